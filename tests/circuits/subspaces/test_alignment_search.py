"""DAS on planted models: one circuit for both domains, or two; and the ways to be fooled."""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from open_clip.transformer import VisionTransformer
from PIL import Image
from torch import Tensor, nn

from interp.circuits import Chain, Classifier, das, das_among
from interp.circuits.patching.engine import hold
from interp.circuits.planted.world import CLASSES as PLANTED_CLASSES
from interp.circuits.planted.world import DOMAINS, as_tensor, paint
from interp.circuits.subspaces.fit_subspace import (
    FitRecipe,
    SubspaceTask,
    fit_directions,
    smallest_that_carries,
)
from interp.circuits.subspaces.interchanges import (
    CLASS_FREE,
    DasTask,
    class_free,
    hold_out,
    read_class_free,
    read_domain,
)
from interp.circuits.subspaces.subspace import Subspace, read_at
from interp.circuits.subspaces.trials import KINDS, of_one_code, try_site, try_subspaces
from interp.core.artists import artist_sides
from interp.core.errors import DataError, SampleError, SiteError, SpecificationError
from interp.core.images import ImageTable
from interp.core.statistics.index_of_sharing import Index
from interp.core.tables import EVIDENCE, Table
from interp.models.towers.vit import HookedViT
from tests.circuits.conftest import CLASSES, Function
from tests.circuits.patching.test_transplants import tower
from tests.circuits.planted_models import model
from tests.refusals import refuses
from tests.tables import image_table

SITES = [f"blocks.{layer}.hook_resid_post" for layer in (1, 2, 3)]
STEPS = 15  # enough for models without noise, and a third of the time


@cache
def images_of(condition: str) -> ImageTable:
    return paint(model(condition)[0].world, 16, seed=5)


def run(condition: str, **words: Any) -> Table:
    planted, hooked = model(condition)
    how = {"classifier": planted.classifier, "preprocess": as_tensor, "where": {"pos": 0}}
    usual = {"domain_a": "A", "domain_b": "B", "sites": SITES, "n": 48, "steps": STEPS}
    arguments: dict[str, Any] = {"images": images_of(condition), **usual, **how, **words}
    return das(arguments.pop("tower", hooked), **arguments)


@cache
def found(condition: str) -> pd.DataFrame:
    return run(condition).frame


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "verdict", "index"),
    [("all shared", "shared", 1.0), ("all separate", "not shared", 0.0)],
)
def test_planted_truth(condition: str, verdict: str, index: float) -> None:
    frame = found(condition)
    assert frame["site"].tolist() == SITES * 2 and set(EVIDENCE) <= set(frame.columns)
    assert frame["domain_a"].tolist() == ["A"] * 3 + ["B"] * 3
    assert set(frame["verdict"]) == {verdict} and set(frame["reason"]) == {""}
    assert (frame["index"] - index).abs().max() < 0.05
    if condition == "all shared":
        assert (frame["p"] < 0.05).all()
        assert frame["k"].tolist() == [4, 7, 7] * 2  # P of 4, Q of 2; then 8 classes
    assert (frame["share_of_whole"] > 0.95).all() and (frame["loss"] < 0.01).all()
    assert (frame["random"] < 0.5 * frame["ceiling"]).all()
    own = frame["ceiling"].to_numpy()  # what one direction calls its ceiling is the other's own fit
    np.testing.assert_allclose(frame["in_domain"], np.roll(own, 3))


@pytest.mark.slow
def test_free_directions_learn_ways_that_no_picture_takes() -> None:
    """Both lanes end in one output: halfway between A's lane and B's, a direction reads what A's
    pictures show and writes into both. It is kept out by looking where A's pictures vary."""
    free = run("all separate", sites=SITES[1], span=1.0, steps=40, class_free=()).frame
    beyond, room = (free[name] - free["other_class"] for name in ("value", "ceiling"))
    assert (beyond / room > 0.1).any()
    bound = found("all separate").query(f"site == {SITES[1]!r}")
    assert (bound["index"].abs() < 0.02).all()


@pytest.mark.parametrize(
    ("condition", "site", "index", "verdict", "reason"),
    [
        # A's and B's lanes stay in the stream beside the code that is read from block 2 on
        ("shared from block 2", SITES[1], 1.0, "shared", ""),
        # what both domains have alike nobody reads
        ("unread shared copy", SITES[1], 0.0, "not shared", ""),
        # the two lanes are still apart, but the block behind takes their sum
        ("separate, one output", SITES[1], 1.0, "unknown", "one reader"),
    ],
)
def test_what_is_read_is_told_from_what_goes_with_it(
    condition: str, site: str, index: float, verdict: str, reason: str
) -> None:
    frame = run(condition, sites=site).frame
    assert set(frame["verdict"]) == {verdict}
    assert frame["reason"].str.startswith(reason).all()
    if reason:  # the index would be the reader's
        assert frame[["index", "p"]].isna().all(axis=None)
    else:
        assert (frame["index"] - index).abs().max() < 0.02
    apart = frame["varied"].abs() < 0.05 * frame["ceiling"]
    assert (apart == bool(reason)).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_classes_that_do_not_correspond_are_never_shared(seed: int) -> None:
    images = images_of("all shared")
    order = np.random.default_rng(seed).permutation(len(PLANTED_CLASSES))
    other = dict(zip(PLANTED_CLASSES, np.asarray(PLANTED_CLASSES)[order], strict=True))
    frame = images.frame.copy()
    in_b = frame["domain"] == "B"
    frame.loc[in_b, "label"] = frame.loc[in_b, "label"].map(other)
    table = run("all shared", images=images.with_frame(frame), sites=SITES[2], seed=seed).frame
    assert "shared" not in set(table["verdict"])


@pytest.mark.parametrize("seed", range(3))
def test_an_untrained_tower_is_never_shared(seed: int) -> None:
    torch.manual_seed(seed)
    size = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 3, "heads": 2}
    fresh = VisionTransformer(**size, mlp_ratio=2.0, output_dim=24).double().eval()
    head = Classifier(torch.randn(8, 24).double(), PLANTED_CLASSES)
    table = run("all shared", tower=HookedViT(fresh), classifier=head, sites=SITES[1], seed=seed)
    assert "shared" not in set(table.frame["verdict"])
    assert (table.frame["verdict"] == "not shared").all() or table.frame["reason"].any()


@pytest.mark.slow
def test_effects_are_those_of_hooks_on_the_whole_tower() -> None:
    (planted, hooked), images = model("all separate"), images_of("all separate")
    held = hold_out(images, DOMAINS, classes=PLANTED_CLASSES, n=16, seed=2)
    task = DasTask(
        classifier=planted.classifier, preprocess=as_tensor, k=3, steps=3, batch_size=16, seed=2
    )
    domains = {name: read_domain(hooked, held, name, task) for name in DOMAINS}
    site = "blocks.1.attn.hook_z"
    floors = read_class_free(hooked, held, task)
    words: dict[str, Any] = {"k": 3, "where": {"pos": 0, "head": 1}, "rows": 5}
    tried = try_site(hooked, site, domains, floors, task, **words)
    b, rows = domains["B"], held.tested["B"].rows
    logits = planted.classifier.standardised(hooked(b.base)).logits
    labels = [PLANTED_CLASSES.index(label) for label in rows["label"]]

    def margin(outputs: Tensor) -> Tensor:
        scores = logits(outputs)
        own = scores[range(len(scores)), labels]
        scores[range(len(scores)), labels] = -torch.inf
        return own - scores.amax(1)

    here = tried["B"]
    for effects, basis, sources in [
        (here.of_other("A", "fitted"), tried["A"].subspace.basis, b.donor),
        (here.of_other("A", "fitted null"), tried["A"].subspace.basis, b.null),
        (here["own null"], here.subspace.basis, b.null),
        (here["whole"], torch.eye(16).double(), b.donor),
    ]:
        given = hooked.run_with_cache(sources, names_filter=[site])[1][site]

        def replace(own: Tensor, hook: object, basis: Any = basis, given: Any = given) -> Tensor:
            patched = own.clone()
            patched[:, 0, 1] += (given[:, 0, 1] - own[:, 0, 1]) @ basis @ basis.T
            return patched

        out = hooked.run_with_hooks(b.base, fwd_hooks=[(site, replace)])
        wanted = (margin(out) - margin(hooked(b.base))).detach().numpy()
        np.testing.assert_allclose(effects, wanted, atol=1e-9)
    assert here.effects.shape == (len(KINDS), 16)
    twin = try_site(hooked, site, {"C": domains["B"], **domains}, floors, task, **words)["B"]
    for kind, own in (("fitted", "own"), ("fitted null", "own null")):  # C is B by another name
        np.testing.assert_allclose(twin.of_other("C", kind), here[own], atol=1e-9)
        np.testing.assert_allclose(twin.of_other("A", kind), here.of_other("A", kind), atol=1e-9)
        assert not np.allclose(twin.of_other("A", kind), twin.of_other("C", kind))


def test_a_random_subspace_is_as_large_as_the_one_it_stands_beside() -> None:
    """Beside a basis of all directions it is the whole site, whatever is drawn; else it is not."""
    (planted, hooked), images = model("all shared"), images_of("all shared")
    held = hold_out(images, DOMAINS, classes=PLANTED_CLASSES, n=16, seed=2)
    task = DasTask(
        classifier=planted.classifier, preprocess=as_tensor, steps=1, batch_size=16, seed=2
    )
    domain = read_domain(hooked, held, "B", task)
    site, where = "blocks.1.hook_resid_post", {"pos": 0}
    d = hooked.cfg.d_model
    narrow = Subspace(site, hooked.axes(site), torch.eye(d).double()[:, :3], where)
    wide = narrow.with_basis(torch.eye(d))
    words: dict[str, Any] = {"rows": 16, "seed": 0}
    of_all, of_few = (
        try_subspaces(hooked, domain, own, {}, {"noise": (narrow, wide)}, **words)
        for own in (wide, narrow)
    )
    np.testing.assert_allclose(of_all["random"], of_all["whole"], atol=1e-9)
    assert not np.allclose(of_few["random"], of_few["whole"], atol=0.1)
    np.testing.assert_allclose(of_few.of_floors("fitted")["noise"], of_few["own"], atol=1e-9)
    np.testing.assert_allclose(of_few.of_floors("varied")["noise"], of_few["whole"], atol=1e-9)


def test_several_domains_share_their_subspaces() -> None:
    """A third domain (A's pictures by a name of their own) changes nothing between A and B."""
    (planted, hooked), images = model("all separate"), images_of("all separate")
    again = images.select(domain="A").frame.assign(domain="C")
    frame = pd.concat([images.frame, again], ignore_index=True)
    words: dict[str, Any] = {"classifier": planted.classifier, "preprocess": as_tensor}
    words |= {"where": {"pos": 0}, "sites": SITES[-1], "n": 24, "steps": 4}
    three = das_among(hooked, images.with_frame(frame), domains=("A", "B", "C"), **words).frame
    by_ends = three.set_index(["domain_a", "domain_b"])
    assert sorted(by_ends.index) == [(a, b) for a in "ABC" for b in "ABC" if a != b]
    for column in ("in_domain", "loss"):  # a domain's basis is one, whoever it is tried on
        assert by_ends.loc[("A", "B"), column] == by_ends.loc[("A", "C"), column]
    for column in ("ceiling", "whole"):  # and so is what a domain says of its own
        assert by_ends.loc[("B", "A"), column] == by_ends.loc[("C", "A"), column]
    refuses(SpecificationError, "one domain", das_among, hooked, images, domains=("A",), **words)


@pytest.mark.slow
def test_batches_and_memory_change_nothing_but_time() -> None:
    words: dict[str, Any] = {"sites": "blocks.2.hook_mlp_out", "n": 16, "steps": 2}
    one, again = (run("all shared", **words).frame for _ in range(2))
    pd.testing.assert_frame_equal(one, again)
    tight = run("all shared", **words, memory=24 * 2**20, batch_size=32).frame
    for column in ("value", "null", "ceiling", "in_domain", "whole"):
        np.testing.assert_allclose(tight[column], one[column], atol=1e-7)
    other = run("all shared", **words, seed=1).frame
    assert (other["value"] != one["value"]).all()


def test_nobody_is_fitted_on_and_tested_on(pictures: ImageTable) -> None:
    held = hold_out(pictures, ["A", "B"], classes=CLASSES, n=20, seed=3)
    frame = pictures.frame
    fitted = {name: frame.iloc[rows] for name, rows in held.fitted.items()}
    artists = {name: set(part["artist"]) for name, part in fitted.items()}
    assert artists["A"] == artists["B"] and len(artists["A"]) == 2
    for name, part in fitted.items():
        assert set(part["domain"]) == {name}
        assert part["label"].value_counts().to_dict() == dict.fromkeys(CLASSES, 4)
        drawn = held.tested[name]
        assert len(drawn) == 20
        for role, label in (("target", "target_label"), ("donor", "label"), ("null", "null_label")):
            shown = drawn.images.frame.iloc[drawn.rows[role]]
            assert not artists[name] & set(shown["artist"])
            assert set(shown["domain"]) == {name}
            assert shown["label"].tolist() == drawn.rows[label].tolist()
    again = hold_out(pictures, ["B", "A"], classes=CLASSES, n=20, seed=3)
    assert all((again.fitted[name] == held.fitted[name]).all() for name in ("A", "B")) or (
        set(frame.iloc[again.fitted["A"]]["artist"]) == artists["A"]
    )


def test_dealt_cells_stand_on_both_sides_wherever_they_can() -> None:
    """Forty artists who each drew three of thirty cells: a coin for each would leave some empty."""
    generator = np.random.default_rng(0)
    artists = np.repeat(np.arange(40), 3).astype(str)
    cells = np.concatenate([generator.choice(30, 3, replace=False) for _ in range(40)]).astype(str)
    side = artist_sides(pd.DataFrame({"artist": artists, "label": cells, "domain": "A"}))
    assert all(len(set(side[artists == name])) == 1 for name in set(artists))
    both = [len(set(side[cells == cell])) == 2 for cell in set(cells)]
    could = [len(set(artists[cells == cell])) > 1 for cell in set(cells)]
    assert sum(both) >= sum(could) - 1


@pytest.mark.parametrize(("shared", "verdict"), [(True, "shared"), (False, "not shared")])
def test_a_hand_made_tower(pictures, colours, shared, verdict) -> None:
    frame = das(tower(shared), pictures, **by_hand(colours), n=60).frame
    assert frame["verdict"].tolist() == [verdict] * 2
    assert (frame["n_drawings"] <= 20).all() and (frame["n_units"] == 5).all()


def by_hand(colours: Callable) -> dict[str, Any]:
    """For the hand-made tower; there a colour is a class, and noise has colours."""
    head = Classifier(torch.eye(5, 6).double(), CLASSES)
    ends: dict[str, Any] = {"domain_a": "A", "domain_b": "B", "class_free": ()}
    place = {"sites": "blocks.0.hook_mlp_out", "where": {"pos": 0}}
    return {**ends, **place, "classifier": head, "preprocess": colours}


def test_refusals(pictures: ImageTable, colours: Callable) -> None:
    words = {**by_hand(colours), "n": 12, "steps": 2}

    def refuse(error: type, match: str, images: ImageTable = pictures, **other: Any) -> None:
        refuses(error, match, das, tower(True), images, **{**words, **other})

    refuse(DataError, "domain 'C'", domain_b="C")
    refuse(SpecificationError, "different domains", domain_b="A")
    refuse(SampleError, "2 classes", pictures.select(label=["ant", "bee"]))
    refuse(SampleError, "three artists", pictures.select(artist="artist 1"))
    refuse(SampleError, "three artists", pictures.select(artist=["artist 1", "artist 2"]))
    refuse(SpecificationError, "clean_distance", metric="clean_distance")
    refuse(SpecificationError, "k = 0", k=0)
    refuse(SpecificationError, "k = 19, right would be 1 to 18", k=19)
    refuse(SpecificationError, "learning_rate=0.0", learning_rate=0.0)
    refuse(SpecificationError, "budget", memory=8)
    refuse(SiteError, "hook_mlp_in", sites="blocks.0.hook_mlp_in")
    refuse(SiteError, "axis head", where={"head": 0})
    whole = das(tower(True), pictures, **{**words, "k": 18}).frame
    assert set(whole["verdict"]) == {"unknown"}
    assert whole["reason"].str.startswith("all directions").all()
    few = das(tower(True), pictures.select(label=["ant", "bee", "cat"]), **words).frame
    assert set(few["verdict"]) == {"unknown"} and few["reason"].str.contains("3 units").all()


def test_shared_needs_what_varies_in_the_other_domain() -> None:
    shared, unsure = Index(0.9, 0.8, 1.0, "shared", ""), Index(0.5, 0.1, 0.9, "unknown", "")
    apart = Index(0.0, -0.1, 0.1, "not shared", "")
    told = of_one_code(shared, unsure, shared)
    assert told.verdict == "unknown" and "0.10 to 0.90" in told.reason
    assert of_one_code(shared, shared, shared) is shared
    withheld = of_one_code(shared, unsure, apart)
    assert np.isnan(withheld.value) and "what varies in A does" in withheld.reason
    assert of_one_code(apart, unsure, apart) is apart
    partly = Index(0.5, 0.3, 0.7, "partly shared", "")
    for low, word in ((0.15, "partly shared"), (0.05, "unknown")):
        varied = Index(0.3, low, 0.5, "unknown", "")
        assert of_one_code(partly, varied, partly).verdict == word


@pytest.mark.slow
def test_a_reader_that_noise_drives_explains_what_two_codes_do() -> None:
    """Without pictures of no class as a null, only the test of one code holds the verdict back."""
    words: dict[str, Any] = {"sites": SITES[1:], "steps": STEPS}
    told = run("one reader", **words).frame
    assert set(told["verdict"]) == {"unknown"}
    assert told["reason"].str.startswith("the reader explains it").all()
    assert (told["class_free"] > 0.9 * told["ceiling"]).all()
    assert (run("one reader", class_free=(), **words).frame["null"] < 0.2 * told["ceiling"]).all()


def test_the_strongest_null_counts() -> None:
    frame = run("all shared", sites=SITES[1:2], steps=15).frame
    nulls = frame[["other_class", "random", "class_free"]]
    np.testing.assert_allclose(frame["null"], nulls.max(axis=1))
    index = (frame["value"] - frame["null"]) / (frame["ceiling"] - frame["null"])
    np.testing.assert_allclose(frame["index"], index)
    names = {"other_class": "another class as donor", "random": "a random subspace"}
    names["class_free"] = "a subspace of"
    for kind, strongest in zip(frame["null_kind"], nulls.idxmax(axis=1), strict=True):
        assert names[strongest] in kind


PATTERNS = np.random.default_rng(4).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)


def patterned(noise_in_a: int | None) -> ImageTable:
    """Six fixed patterns under noise, alike in A and B; or white noise alone in A."""
    draw, rows, pictures = np.random.default_rng(noise_in_a or 0), [], []
    for domain, label, artist in product("AB", range(6), range(16)):
        base = PATTERNS[label] if domain == "B" or noise_in_a is None else 127
        spread = 60 if domain == "B" or noise_in_a is None else 75
        shown = (base + draw.normal(0, spread, PATTERNS[0].shape)).clip(0, 255)
        rows.append(("abcdef"[label], domain, f"artist {artist % 8}"))
        pictures.append(shown.round().astype(np.uint8))
    read = lambda row: Image.fromarray(pictures[int(row["path"])])  # noqa: E731
    return image_table(rows, "label domain artist", read)


def of_a_reader(images: ImageTable, *, least: float = -torch.inf, **words: Any) -> pd.DataFrame:
    """`das` at a site that holds linear projections of a picture, of which some are read."""
    draw = torch.Generator().manual_seed(0)
    looks = torch.from_numpy(PATTERNS / 255 - 0.5).flatten(1)
    others = torch.randn(14, looks.shape[1], generator=draw).double() * 0.3
    site = torch.cat([looks, others])  # the first six are read

    def preprocess(image: Image.Image) -> Tensor:
        flat = torch.from_numpy(np.asarray(image) / 255 - 0.5).flatten()
        return (site @ flat)[None]

    pool = Function(lambda stream: stream[:, 0, :6].clamp(min=least) / 2)
    head = Classifier(torch.eye(6).double(), list("abcdef"))
    how = {"domain_a": "A", "domain_b": "B", "sites": "hook_embed", "n": 48, **words}
    tower = Chain([nn.Identity()], pool=pool)
    return das(tower, images, classifier=head, preprocess=preprocess, **how).frame


def test_pictures_that_the_model_answers_alike_are_no_null() -> None:
    """What is read lies below a threshold in all that has no class: nothing can be fitted there."""
    found = of_a_reader(patterned(None), least=9.0, class_free=("white noise", "shuffled pixels"))
    assert found["class_free"].isna().all() and (found["class_free_kind"] == "").all()
    assert set(found["verdict"]) == {"shared"}


def test_what_any_reader_gives_is_not_called_shared() -> None:
    """Six projections are read, whatever is shown: noise finds them as well as the classes do."""
    found = of_a_reader(patterned(None))
    assert set(found["verdict"]) == {"unknown"}
    assert found["reason"].str.startswith("the reader explains it: a subspace of").all()
    assert (found["class_free"] > 0.8 * found["ceiling"]).all()
    without = of_a_reader(patterned(None), class_free=())
    assert set(without["verdict"]) == {"shared"}  # what was said before the null of noise
    assert without["class_free"].isna().all() and (without["class_free_kind"] == "").all()


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_subspace_of_noise_is_never_shared(seed: int) -> None:
    """A holds white noise under labels dealt at random; B the patterns."""
    found = of_a_reader(patterned(seed)).query("domain_a == 'A'")
    assert set(found["verdict"]) == {"unknown"}, found["reason"].tolist()


@pytest.mark.parametrize("kind", CLASS_FREE)
def test_pictures_without_a_class_keep_what_they_should(kind: str) -> None:
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (5, 16, 12, 3)).astype(float)
    made = CLASS_FREE[kind](pictures, np.random.default_rng(1))
    assert made.shape == pictures.shape and not np.allclose(made, pictures)
    if kind == "shuffled pixels":  # every picture's colours
        for before, after in zip(pictures, made, strict=True):
            rows = (
                each.reshape(-1, 3)[np.lexsort(each.reshape(-1, 3).T)] for each in (before, after)
            )
            np.testing.assert_array_equal(*rows)
    elif kind == "scrambled phases":  # every picture's power at every frequency
        spectra = (np.abs(np.fft.fft2(each, axes=(1, 2))) for each in (pictures, made))
        np.testing.assert_allclose(*spectra, atol=1e-8)
    else:  # mean and deviation of all
        for of in (np.mean, np.std):
            np.testing.assert_allclose(of(made, axis=(0, 1, 2)), of(pictures, axis=(0, 1, 2)))
    power = np.abs(np.fft.fft2(made, axes=(1, 2)))[:, :, :, 0]
    power[:, 0, 0] = 0
    fine = power[:, 6:11].sum() / power.sum()  # rows of 16 that hold the finest waves
    assert (fine < 0.2) == (kind == "smooth noise")
    again = CLASS_FREE[kind](pictures, np.random.default_rng(1))
    np.testing.assert_array_equal(made, again)


def test_class_free_pictures_keep_their_sizes_and_order() -> None:
    sizes = [(8, 6), (6, 8), (8, 6)]
    pictures = [Image.new("RGB", size, (place * 90, 0, 0)) for place, size in enumerate(sizes)]
    made = class_free(pictures, "shuffled pixels", seed=3)
    assert [each.size for each in made] == sizes
    assert [np.asarray(each)[0, 0, 0] for each in made] == [0, 90, 180]


def test_unknown_class_free_pictures_are_refused() -> None:
    with pytest.raises(SpecificationError, match="pink noise"):
        of_a_reader(patterned(None), class_free=("pink noise",))


@pytest.mark.parametrize(("pool_type", "place"), [("tok", {"pos": 0}), ("avg", {})])
def test_a_tower_is_patched_where_its_embedding_is_read(pool_type: str, place: Any) -> None:
    """A class token alone, or every patch of a ViT that averages them."""
    torch.manual_seed(0)
    size = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 2}
    fresh = VisionTransformer(**size, mlp_ratio=2.0, output_dim=24, pool_type=pool_type)
    found = HookedViT(fresh.eval())
    x = torch.rand(1, 3, 32, 32)
    assert read_at(found, "blocks.1.hook_resid_post", x) == place
    assert read_at(found, "blocks.0.hook_resid_post", x) == {}  # a block later, all are read
    assert read_at(found, "hook_embedding", x) == {}


def test_the_fewest_directions_that_carry_the_class_are_taken() -> None:
    """Two of eight directions are read, one of them much more: it alone does nearly everything."""
    draw = torch.Generator().manual_seed(0)
    base, source = torch.randn(2, 256, 1, 8, generator=draw).double()
    both = torch.cat([base, source])
    pairs = np.stack([np.arange(256), np.arange(256, 512)], axis=1)
    for weights, fewest in (((1.0, 0.05), 1), ((1.0, 1.0), 2)):
        ways = torch.zeros(8, 2).double()
        ways[0, 0], ways[1, 1] = weights
        tower = Chain([nn.Identity()], pool=Function(lambda stream, ways=ways: stream[:, 0] @ ways))
        runs = hold(tower, "hook_embed", both, rows=64)
        says = tower(source)

        def far(outputs: Tensor, says: Tensor = says) -> Tensor:
            return -(outputs - says[: len(outputs)]).square().sum(dim=1)

        task = SubspaceTask(tower, runs, runs, pairs, far, {})
        recipe = FitRecipe(steps=5, batch_size=256)
        fitted = fit_directions(task, recipe, k=4, rows=256)
        assert smallest_that_carries(task, fitted, rows=256, n=256) == fewest
        assert float(fitted.basis[0, 0].abs()) > 0.99 or fewest == 2
