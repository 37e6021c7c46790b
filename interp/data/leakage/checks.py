"""Search for leaks: test pictures in the training set, and captions that name what is withheld.

A manifest cannot show that a test picture was trained on under another name, that a caption of the
base set names a drawing of a class whose drawings are withheld, or that a cell is empty. Every
finding is a row. A leak invalidates a comparison; other findings are for information.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from interp.core.errors import SampleError, listed
from interp.core.faces.doors import door
from interp.core.images import ImageTable
from interp.core.tables import Table
from interp.data.leakage.hashing import nearest, picture_hashes
from interp.data.mixtures.basesets import base_captions, is_shards, open_base, read_base
from interp.data.mixtures.manifest import largest
from interp.data.mixtures.mixture import Mixture
from interp.data.mixtures.settings import BASE, MixtureSpec
from interp.data.mixtures.templates import mentions, words_for

CHUNK = 200_000
"""Base captions that are read at a time."""

CHECKS = {
    "same pixels": "{n} {split} pictures have the very pixels of a training picture",
    "looks alike": "{n} {split} pictures look like a training picture",
    "withheld in words": "{n} captions name what the mixture withholds",
    "words not aligned": "{n} captions name a domain though captions are aligned",
    "held-out class in the base set": "{n} base captions name a held-out class",
    "empty cell": "{n} cells have no training picture",
    "nothing to test on": "{n} held-out classes have no test picture in the test domain",
    "does not read": "{n} pictures do not read",
}
"""What is looked for, and how a finding of it is summed up."""


@dataclass(frozen=True)
class Audit:
    """The findings of an audit, and how much was looked at.

    Args:
        frame: A row per finding.
        looked: Numbers of pictures and captions looked at, by kind.

    >>> Audit(pd.DataFrame(columns=COLUMNS), {"test pictures": 3}).verdict
    'No leak was found. Looked at 3 test pictures.'
    """

    frame: pd.DataFrame
    looked: dict[str, int] = field(default_factory=dict)

    @property
    def table(self) -> Table:
        """The findings as a table that can be saved."""
        return Table("audit", self.frame, {"looked at": self.looked, "verdict": self.verdict})

    @property
    def leaks(self) -> pd.DataFrame:
        """The findings that invalidate a comparison."""
        return self.frame[~self.frame["ok"].astype(bool)]

    @property
    def verdict(self) -> str:
        """A summary of the findings in a few sentences."""
        looked = ", ".join(f"{n} {what}" for what, n in self.looked.items() if n)
        parts = []
        for ok, before in ((False, "Leaks: "), (True, "Worth knowing: ")):
            words = list(self._sums(ok))
            if words:
                parts.append(f"{before}{'; '.join(words)}.")
        if not len(self.leaks):
            parts.insert(0, "No leak was found.")
        return f"{' '.join(parts)} Looked at {looked}."

    def _sums(self, ok: bool) -> Iterator[str]:
        findings = self.frame[self.frame["ok"] == ok]
        for (check, split), rows in findings.groupby(["check", "split"], sort=False):
            n = int(rows["n"].sum()) if "captions" in CHECKS[str(check)] else len(rows)
            text = CHECKS[str(check)].format(n=n, split=split)
            if check == "looks alike":
                own = (rows["label"].astype(str) == rows["label_b"].astype(str)).sum()
                text += f" ({own} of them one of their own class)"
            yield text


COLUMNS = ("check ok split label domain picture label_b domain_b other distance n detail").split()


@door
def audit(
    images: ImageTable,
    mixture: Mixture | None = None,
    *,
    base: ImageTable | None = None,
    bits: int = 4,
    jobs: int = 1,
) -> Audit:
    """Look for leaks between training and test, in one mixture or in all training pictures.

    Args:
        images: Pictures of the splits train and test; of others, `base` is compared like train and
            the rest like test.
        mixture: The mixture whose pictures and captions are checked; None takes all training
            pictures.
        base: The pictures of base shards, if they are to be compared; a base TSV's are read.
        bits: Bits of 64 in which perceptual hashes of similar pictures may differ.
        jobs: Processes that hash pictures.

    Returns:
        The findings.

    Raises:
        SampleError: For a table without training or test pictures.

    Notes:
        - Pictures: each test (or analysis) picture is compared with the nearest training picture,
          by the hash of its pixels and by a perceptual hash. The same pixels are a leak; a similar
          picture is reported for inspection.
        - Captions of a mixture and its base set that name a withheld domain, or a held-out class in
          words of the test domain, are leaks. Held-out classes that the base set names at all are
          reported.
        - Cells without a picture where the mixture would have some, and held-out classes without
          test pictures, are reported.

        Hashes are kept in the cache, so a second audit takes seconds.

    >>> from PIL import Image
    >>> pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    >>> frame = pd.DataFrame({"path": ["a", "b"], "label": "cat", "domain": "real",
    ...                       "split": ["train", "test"], "caption": ""})
    >>> picture = Image.fromarray(pixels)
    >>> images = ImageTable(frame, fingerprint="two equal", reader=lambda row: picture)
    >>> audit(images).frame[["check", "picture", "other"]].values.tolist()
    [['same pixels', 'b', 'a']]
    """
    train = mixture.images if mixture else images.select(split="train")
    own_base = mixture.own_base if mixture else _split(images, BASE)
    others = images[~images.split.isin(["train", BASE]).to_numpy()]
    if not len(train) or not len(others):
        given = f"{len(train)} training pictures and {len(others)} others"
        do = "give pictures of the splits train and test"
        raise SampleError(f"audit {images.source}", given, "some of both", do)
    spec = mixture.spec if mixture else None
    base_pictures = base if base is not None else _base_pictures(spec)
    groups = [group for group in (train, own_base, base_pictures) if group is not None]
    findings = list(_alike(groups, others, bits, jobs))
    captions = 0
    if mixture:
        frames = [group.frame for group in (train, own_base) if group is not None]
        findings += _in_words(pd.concat(frames), mixture.spec, images.domains)
        if mixture.spec.base:
            rows, captions = _in_base(mixture.spec, images.domains)
            findings += rows
        findings += _empty(mixture, others.frame)
    frame = pd.DataFrame(findings, columns=COLUMNS)
    looked = {
        "training pictures": len(train),
        "base pictures": sum(map(len, groups)) - len(train),
        **{f"{split} pictures": int(n) for split, n in others.split.value_counts().items() if n},
        "base captions": captions,
    }
    return Audit(frame, looked)


def _split(images: ImageTable, name: str) -> ImageTable | None:
    own = (images.split == name).to_numpy()
    return images[own] if own.any() else None


def _base_pictures(spec: MixtureSpec | None) -> ImageTable | None:
    """The pictures of a base TSV; those of shards must be given by the user."""
    if spec is None or not spec.base or is_shards(spec.base):
        return None
    rows = pd.concat(list(read_base(spec.base)), ignore_index=True)
    frame = rows.rename(columns={"filepath": "path", "title": "caption"})
    return ImageTable(frame.assign(label="", domain=BASE, split="train"), source=spec.base)


def _alike(
    groups: list[ImageTable], rest: ImageTable, bits: int, jobs: int
) -> Iterator[dict[str, object]]:
    """Findings on test pictures with the pixels of a training picture, or similar to one."""
    ours = picture_hashes(rest, jobs=jobs)
    theirs = pd.concat([picture_hashes(group, jobs=jobs) for group in groups], ignore_index=True)
    columns = ["path", "label", "domain"]
    frames = [group.frame[columns].astype(object) for group in groups]
    train = pd.concat(frames, ignore_index=True)
    test = rest.frame[[*columns, "split"]].astype(object).reset_index(drop=True)
    for frame, hashes in ((test, ours), (train.assign(split="train"), theirs)):
        for row in np.flatnonzero(hashes["pixels"] == ""):
            yield _finding("does not read", True, frame.iloc[row])
    rows = np.flatnonzero(theirs["pixels"] != "")  # the first of several alike stands for them
    same = theirs.loc[rows, "pixels"].drop_duplicates()
    row_of_pixels = dict(zip(same, same.index, strict=True))
    many = theirs.loc[rows, "pixels"].value_counts()
    near = nearest(ours["looks"].to_numpy(), theirs["looks"].to_numpy()[rows], bits=bits)
    for row, (pixels, (at, distance, n)) in enumerate(zip(ours["pixels"], near, strict=True)):
        if pixels and pixels in row_of_pixels:
            other = train.iloc[row_of_pixels[pixels]]
            yield _finding("same pixels", False, test.iloc[row], other, n=int(many[pixels]))
        elif pixels and n:
            other = train.iloc[rows[at]]
            yield _finding(
                "looks alike", True, test.iloc[row], other, distance=int(distance), n=int(n)
            )


def _finding(
    check: str, ok: bool, row: pd.Series, other: pd.Series | None = None, **more: object
) -> dict[str, object]:
    """A finding about a picture, and perhaps another one."""
    finding = {"check": check, "ok": ok, "split": row["split"], "n": 1, "detail": "", **more}
    finding |= {"picture": row["path"], "label": row["label"], "domain": row["domain"]}
    if other is not None:
        finding |= {"other": other["path"], "label_b": other["label"], "domain_b": other["domain"]}
    return finding


def _withheld(spec: MixtureSpec, domains: Iterable[str]) -> list[str]:
    """The domains of which the mixture holds no picture."""
    apart = [domain for domain in domains if domain not in (spec.natural, spec.test_domain)]
    joined = set(spec.other_domains(list(domains)))
    gone = [domain for domain in apart if domain not in joined]
    if spec.seen_share == 0 and spec.held_out_share == 0:
        gone.append(spec.test_domain)
    return gone


def _named_in(texts: pd.Series, spec: MixtureSpec, domains: list[str]) -> dict[str, np.ndarray]:
    """Which texts name what the mixture withholds: a domain, or a class in the test domain."""
    named = {
        f"words for {domain}": mentions(texts, words_for(domain))
        for domain in _withheld(spec, domains)
    }
    if spec.test_domain not in _withheld(spec, domains) and spec.held_out_share == 0:
        here = mentions(texts, words_for(spec.test_domain))
        for label in spec.held_out:
            named[f"{label} in words for {spec.test_domain}"] = here & mentions(texts, [label])
    return named


def _in_words(
    frame: pd.DataFrame, spec: MixtureSpec, domains: list[str]
) -> list[dict[str, object]]:
    """Findings on captions of the table's own pictures that name what is withheld."""
    texts = frame["caption"].reset_index(drop=True)
    named = _named_in(texts, spec, domains)
    if spec.held_out_share == 0:  # a seen class's picture whose caption speaks of a withheld one
        here = (frame["domain"] == spec.test_domain).to_numpy()
        for label in spec.held_out:
            key = f"{label} beside a picture of {spec.test_domain}"
            named[key] = mentions(texts, [label]) & here
    findings = [
        row
        for what, mask in named.items()
        for row in _worded("withheld in words", what, texts, mask)
    ]
    if not spec.words_share:
        words = [word for domain in domains for word in words_for(domain)]
        findings += _worded("words not aligned", "a domain word", texts, mentions(texts, words))
    return findings


def _worded(
    check: str,
    what: str,
    texts: pd.Series,
    mask: np.ndarray,
    *,
    ok: bool = False,
    split: str = "train",
) -> list[dict[str, object]]:
    """A finding for every distinct text that the mask selects."""
    counts = Counter(texts[mask])
    return [
        {"check": check, "ok": ok, "split": split, "n": n, "detail": f"{what}: {text}"}
        for text, n in sorted(counts.items())
    ]


def _in_base(spec: MixtureSpec, domains: list[str]) -> tuple[list[dict[str, object]], int]:
    """Findings on base captions that name something withheld, and how many were read."""
    sums: Counter[tuple[str, str]] = Counter()
    first: dict[tuple[str, str], str] = {}
    read = 0
    open_base(spec.base)  # a shard that is cut short is refused here, in words
    for texts in _chunks(base_captions(spec.base)):
        read += len(texts)
        named = {
            ("withheld in words", what): m for what, m in _named_in(texts, spec, domains).items()
        }
        for label in spec.held_out:
            named["held-out class in the base set", label] = mentions(texts, [label])
        for key, mask in named.items():
            if mask.any():
                sums[key] += int(mask.sum())
                first.setdefault(key, str(texts[mask].iloc[0]))
    findings = [
        {
            "check": check,
            "ok": check != "withheld in words",
            "split": BASE,
            "n": n,
            "label": what if check.startswith("held-out") else None,
            "detail": f"{what}, first in: {first[check, what]}",
        }
        for (check, what), n in sums.items()
    ]
    return findings, read


def _chunks(texts: Iterator[str]) -> Iterator[pd.Series]:
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == CHUNK:
            yield pd.Series(chunk)
            chunk = []
    if chunk:
        yield pd.Series(chunk)


def _empty(mixture: Mixture, rest: pd.DataFrame) -> list[dict[str, object]]:
    """Findings on empty cells that the specification admits, and on untested classes."""
    manifest = mixture.manifest()
    spec = mixture.spec
    labels = sorted({name.split("/", 1)[1] for name in manifest["counts"]} - set(spec.foreign))
    domains = [spec.natural, *manifest["domains"]]
    if spec.seen_share or spec.held_out_share:
        domains.append(spec.test_domain)
    empty = [
        (domain, label)
        for domain in domains
        for label in labels
        if largest(domain, label, spec, manifest)
        and not manifest["counts"].get(f"{domain}/{label}")
    ]
    findings: list[dict[str, object]] = [
        {
            "check": "empty cell",
            "ok": True,
            "split": "train",
            "label": label,
            "domain": domain,
            "n": 1,
            "detail": f"no picture of {label} in {domain}",
        }
        for domain, label in empty
    ]
    tested = set(rest.loc[rest["domain"] == spec.test_domain, "label"])
    untested = [label for label in spec.held_out if label not in tested]
    if untested:
        findings += [
            {
                "check": "nothing to test on",
                "ok": False,
                "split": "test",
                "label": label,
                "domain": spec.test_domain,
                "n": 1,
                "detail": f"of {listed(untested)}",
            }
            for label in untested
        ]
    return findings
