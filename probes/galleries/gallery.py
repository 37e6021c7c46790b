"""Galleries: the pictures that activate a unit most, least and in between, domains side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from PIL import Image

from interp.core.errors import DataError, SampleError, SpecificationError, check_known, listed
from interp.core.faces.doors import door
from interp.core.faces.late import late
from interp.core.images import ImageTable, Preprocess
from interp.core.sites import find_sites
from interp.core.storage.pictures import UNREADABLE
from interp.core.storage.store import complete
from interp.core.tables import Table
from interp.core.tower import Tower, check_evaluation
from interp.probes.galleries.peaks import Peaks, find_peaks, framed
from interp.probes.galleries.unit_selectivity import FOR_CLASS, Selectivity

if TYPE_CHECKING:
    import plotly.graph_objects as go

QUANTILES = (0.9, 0.75, 0.5)
"""Between the most and the least, pictures at these quantiles of a domain are shown."""

N_MOST, N_LEAST = 5, 2
N_RANDOM = 64
"""Random units that a unit is held against."""

FACTS, VALUES, TOKENS, PICTURES = "units.json", "values.npy", "tokens.npy", "pictures.csv"


@dataclass(frozen=True, eq=False)
class Gallery:
    """What the units of a site respond to: their largest number in every picture, and what it says.

    Args:
        images: The pictures.
        site: The site.
        kind: What its units are: unit, head, feature, direction or subspace.
        peaks: The numbers "picture unit", and where in the picture each stands.
        domains: The domains, in the order shown.
        table: A row for each unit and each two domains: selectivity for a class, and for a domain.

    Notes:
        `gallery` makes one. Units are named by their place.

    >>> frame = pd.DataFrame({"path": ["a", "b"], "label": ["cat", "dog"], "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> peaks = Peaks(np.array([[0.1], [0.9]]), np.zeros((2, 1), int), None)
    >>> rows = Table("gallery", pd.DataFrame())
    >>> shown = Gallery(ImageTable(frame), "hook_embedding", "unit", peaks, ("real",), rows)
    >>> shown.shown(0, "real", most=1, least=1, quantiles=())["label"].tolist()
    ['dog', 'cat']
    """

    images: ImageTable
    site: str
    kind: str
    peaks: Peaks
    domains: tuple[str, ...]
    table: Table

    def __len__(self) -> int:
        return self.peaks.values.shape[1]

    def __repr__(self) -> str:
        return (
            f"Gallery of {len(self):,} {self.kind}s at {self.site}: {len(self.images):,} pictures "
            f"in {listed(self.domains, limit=8)}"
        )

    def values(self, unit: int, domain: str | None = None) -> np.ndarray:
        """A unit's number in every picture, or in those of a domain.

        Args:
            unit: The unit's place.
            domain: The domain; None for all pictures.

        Returns:
            One number for each picture.

        Raises:
            SpecificationError: For a unit that there is not.
            DataError: For an unknown domain.
        """
        self._check(unit)
        return self.peaks.values[self._rows(domain), unit]

    def shown(
        self,
        unit: int,
        domain: str,
        *,
        most: int = N_MOST,
        least: int = N_LEAST,
        quantiles: Sequence[float] = QUANTILES,
    ) -> pd.DataFrame:
        """The pictures of a domain that activate a unit most, at quantiles, and least.

        Args:
            unit: The unit's place.
            domain: The domain.
            most: How many of the largest numbers; a drawing counts once.
            least: How many of the smallest.
            quantiles: Shares of the domain's pictures that lie below, 0 to 1.

        Returns:
            The rows of these pictures in the image table, from most to least, with the columns
            `row` (place in the image table), `shown` (such as "most 1" or "75 %") and `activation`.

        Raises:
            SpecificationError: For a unit or a quantile that there is not.
            DataError: For an unknown domain.
        """
        self._check(unit)
        if wrong := [each for each in quantiles if not 0 <= each <= 1]:
            given = listed(wrong)
            do = "write .9 for 90 %"
            raise SpecificationError("show pictures at quantiles", given, "shares from 0 to 1", do)
        rows = self._rows(domain)
        order = rows[np.argsort(-self.peaks.values[rows, unit], kind="stable")]
        chosen = [(f"most {n}", row) for n, row in enumerate(self._apart(order, most), 1)]
        for share in sorted(quantiles, reverse=True):
            place = round((1 - share) * (len(order) - 1))
            chosen.append((f"{100 * share:g} %", int(order[place])))
        last = self._apart(order[::-1], least)[::-1]
        chosen += [(f"least {len(last) - n}", row) for n, row in enumerate(last)]
        names, places = zip(*chosen, strict=True) if chosen else ((), ())
        found = self.images.frame.iloc[list(places)].reset_index(drop=True)
        values = self.peaks.values[list(places), unit]
        return found.assign(row=list(places), shown=list(names), activation=values)

    def picture(self, row: int, unit: int, *, side: int = 96) -> Image.Image:
        """One picture, with a frame around the place where the unit is most active.

        Args:
            row: The picture's place in the image table.
            unit: The unit's place.
            side: Pixels of its longer side.

        Returns:
            The picture; without a frame where no place is known.
        """
        self._check(unit)
        return framed(self.images.picture(row).convert("RGB"), self.peaks.box(row, unit), side)

    def selective(self, *, within: Sequence[str] | None = None) -> pd.DataFrame:
        """The units by how well they tell their class in every domain, the best first.

        Args:
            within: Domains that count; None for all.

        Returns:
            A row for each unit: its class in each domain, whether that is one class (in all domains
            and for both halves of the artists), and the least of the AUROCs there (`value`).

        Raises:
            DataError: For an unknown domain.
        """
        names = list(self.domains if within is None else within)
        check_known("sort units", "domain", names, self.domains)
        frame = self.table.frame
        own = frame[(frame["measure"] == FOR_CLASS) & (frame["domain_a"] == frame["domain_b"])]
        own = own[own["domain_a"].isin(names)]
        wide = own.pivot(index="feature", columns="domain_a", values=["value", "label"])
        again = own.pivot(index="feature", columns="domain_a", values="label_again")
        labels = wide["label"][names]
        every = pd.concat([labels, again], axis=1)
        made = labels.assign(
            same_class=(every.nunique(axis=1) == 1) & (every != "").all(axis=1),
            value=wide["value"][names].astype(float).min(axis=1),
        )
        return made.sort_values("value", ascending=False).reset_index()

    def plot(self, unit: int, *, domains: Sequence[str] | None = None) -> "go.Figure":
        """Draw a unit's pictures, domains side by side, and its activations in each.

        Args:
            unit: The unit's place.
            domains: The domains that are shown; None for all.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            SpecificationError: For a unit that there is not.
            DataError: For an unknown domain.
        """
        self._check(unit)
        names = list(self.domains if domains is None else domains)
        check_known("draw a gallery", "domain", names, self.domains)
        return late("draw_gallery")(self, unit, names)

    def save(self, folder: str | Path) -> Path:
        """Write numbers, places and table; pictures stay where they are.

        Args:
            folder: The gallery's folder; one that exists is replaced.

        Returns:
            The folder.

        Raises:
            OutputError: If it cannot be written.
        """
        target = Path(folder)
        about: dict[str, object] = {"site": self.site, "kind": self.kind}
        about |= {"domains": list(self.domains), "source": self.images.source}
        about |= {"grid": self.peaks.grid, "first": self.peaks.first}
        with complete(target) as made:
            np.save(made / VALUES, self.peaks.values)
            np.save(made / TOKENS, self.peaks.tokens)
            self.images.frame[["path", "label", "domain"]].to_csv(made / PICTURES, index=False)
            self.table.save(made)
            (made / FACTS).write_text(json.dumps(about))
        return target

    def _rows(self, domain: str | None) -> np.ndarray:
        if domain is None:
            return np.arange(len(self.images))
        check_known("show a unit's pictures", "domain", [domain], self.domains)
        return np.flatnonzero(self.images.frame["domain"] == domain)

    def _apart(self, order: np.ndarray, n: int) -> list[int]:
        """The first rows, of each drawing one."""
        frame = self.images.frame
        if "drawing" not in frame.columns:
            return [int(row) for row in order[:n]]
        found: dict[object, int] = {}
        for row in order:
            if len(found) == n:
                break
            drawing = frame["drawing"].iloc[row]
            found.setdefault(row if pd.isna(drawing) else drawing, int(row))
        return list(found.values())

    def _check(self, unit: int) -> None:
        if not 0 <= unit < len(self):
            right = f"0 to {len(self) - 1}"
            do = "count from 0"
            raise SpecificationError(f"show a {self.kind} of {self.site}", str(unit), right, do)


@door
def gallery(
    tower: Tower,
    images: ImageTable,
    site: str,
    of: object = None,
    *,
    preprocess: Preprocess,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    seed: int = 0,
) -> Gallery:
    r"""Find the pictures that activate every unit of a site, domains side by side, in one pass.

    A unit's number in a picture is its largest over the picture's tokens or places. Its class in a
    domain is the one whose pictures it puts highest above all others, on the drawings of half the
    artists; with $v$ the numbers of the other half,

    selectivity = $P(v_{\text{of the class}} > v_{\text{of others}}) + P(\text{equal}) / 2$,

    the AUROC, the mean of both halves. Scored in another domain it says whether the unit tells the
    same class there.

    Args:
        tower: The tower.
        images: The pictures.
        site: The name of a site.
        of: What is shown: None for the site's units (channels, neurons, coordinates); "heads" for
            the length of what each head writes; a code, such as a `Dictionary`, for its features;
            directions "direction feature", which are taken at length 1; or a list of bases
            "direction feature" of subspaces, such as DAS finds, for the length within each.
        preprocess: From a picture to the tower's input.
        batch_size: Pictures per forward. The batch is halved when memory runs out.
        device: Where the tower runs; None takes the device of its parameters.
        seed: Seed of the halves of artists, the permutations and the random directions.

    Returns:
        The gallery. Its table has `class selectivity` for each unit, domain where the class is
        chosen (`domain_a`) and domain where it is scored (`domain_b`): `null` is the mean over the
        other classes; for `p` drawings trade classes with others of their artist; the interval
        resamples drawings and classes; `random` and `random_high` are the mean and 95 % quantile of
        64 random directions (or subspaces as large). `label` is the class that one half chooses,
        `label_again` that of the other. `domain selectivity` is the share of pictures of A above
        those of B, mean over classes.

    Raises:
        SiteError: For a site that the tower does not have, or heads where there are none.
        ShapeError: For directions of another width.
        SampleError: For no pictures, or fewer than two classes with drawings in both halves.
        NumericsError: For a NaN or infinity, naming site and picture.

    Notes:
        Units that are the same for all pictures of a domain have no class there; `reason` says so.
        Memory grows with pictures times units: 8 bytes each.

        Sources: galleries of what activates a unit most: Zeiler and Fergus 2014; AUROC as
        selectivity: Mann and Whitney 1947; its variance: DeLong et al. 1988, with whole drawings
        (Obuchowski 1997).

    >>> from interp.circuits import Chain
    >>> colours = {"rose": (255, 0, 0), "leaf": (0, 255, 0)}
    >>> rows = [(label, domain, f"{artist} {label}", artist) for label in colours
    ...         for domain in ("real", "sketch") for artist in "abcd"]
    >>> frame = pd.DataFrame(rows, columns=["label", "domain", "drawing", "artist"])
    >>> frame = frame.assign(path=frame.index.astype(str), split="test", caption="")
    >>> images = ImageTable(frame, reader=lambda row: Image.new("RGB", (2, 2), colours[row.label]))
    >>> found = gallery(
    ...     Chain([torch.nn.Identity()]), images, "blocks.0.hook_resid_post",
    ...     preprocess=lambda picture: torch.tensor(np.array(picture) / 255).flatten(0, 1))
    >>> found.selective()[["real", "sketch", "same_class", "value"]].head(2).values.tolist()
    [['rose', 'rose', True, 1.0], ['leaf', 'leaf', True, 1.0]]
    >>> found.shown(0, "sketch", most=1, least=1, quantiles=())[["shown", "label"]].values.tolist()
    [['most 1', 'rose'], ['least 1', 'leaf']]
    """
    check_evaluation(tower, "make a gallery")
    if not len(images):
        raise SampleError("make a gallery", "no pictures", "at least one", "check the selection")
    [site] = find_sites([site], list(tower.sites))
    kind, peaks, random = find_peaks(
        tower,
        images,
        site,
        of,
        preprocess=preprocess,
        batch_size=batch_size,
        device=device,
        n_random=N_RANDOM,
        seed=seed,
    )
    return gallery_of(images, site, kind.kind, peaks, random, seed=seed)


def gallery_of(
    images: ImageTable, site: str, kind: str, peaks: Peaks, random: np.ndarray, *, seed: int = 0
) -> Gallery:
    """The gallery of numbers that are known already.

    Args:
        images: The pictures.
        site: What the numbers were read at.
        kind: What they are of: unit, head, feature, direction or subspace.
        peaks: The numbers "picture unit", and where in the picture each stands.
        random: The same of what units are held against, "picture unit".
        seed: Seed of halves and permutations.

    Returns:
        The gallery.

    Raises:
        SampleError: For fewer than two classes with drawings in both halves.
    """
    frame = images.frame.reset_index(drop=True)
    told = Selectivity(peaks.values, random, frame, images.domains, seed)
    if (n := len(told.classes)) < 2:
        given = f"{n} classes that every domain has drawings of by artists of both halves"
        raise SampleError("make a gallery", given, "two or more", "add drawings by other artists")
    rows = pd.concat([told.by_class(), told.by_domain()], ignore_index=True)
    rows.insert(0, "site", site)
    rows.insert(1, "code", kind)
    facts = {"n_random": N_RANDOM, "classes": told.classes, "seed": seed}
    table = Table.with_evidence("gallery", rows, facts)
    return Gallery(images, site, kind, peaks, tuple(images.domains), table)


@door
def open_gallery(folder: str | Path, images: ImageTable) -> Gallery:
    """Open a gallery that `Gallery.save` wrote.

    Args:
        folder: Its folder.
        images: The pictures that it was made of, or more.

    Returns:
        The gallery.

    Raises:
        DataError: For a folder without a gallery, or pictures that are not in `images`.

    >>> import tempfile
    >>> frame = pd.DataFrame({"path": ["a", "b"], "label": ["cat", "dog"], "domain": "real",
    ...                       "split": "test", "caption": ""})
    >>> peaks = Peaks(np.array([[0.1], [0.9]]), np.zeros((2, 1), int), None)
    >>> rows = Table("gallery", pd.DataFrame({"feature": [0]}))
    >>> made = Gallery(ImageTable(frame), "hook_embedding", "unit", peaks, ("real",), rows)
    >>> open_gallery(made.save(Path(tempfile.mkdtemp()) / "kept"), ImageTable(frame)).values(0)
    array([0.1, 0.9])
    """
    source = Path(folder)
    try:
        about = json.loads((source / FACTS).read_text())
        values, tokens = (np.load(source / name) for name in (VALUES, TOKENS))
        kept = pd.read_csv(source / PICTURES, dtype=str, keep_default_na=False)
        table = Table.load(source / "gallery.csv")
    except (*UNREADABLE, KeyError) as error:
        given = f"files that do not read ({error})"
        right = "a folder that Gallery.save wrote"
        do = "name that folder, or make the gallery again"
        raise DataError(f"open the gallery in {source}", given, right, do) from None
    places = pd.Index(images.frame["path"].astype(str)).get_indexer(kept["path"])
    if (places < 0).any():
        given = f"images without {listed(kept['path'][places < 0], limit=3)}"
        right = "the pictures that it was made of"
        raise DataError(f"open the gallery in {source}", given, right, "open those")
    grid = tuple(about["grid"]) if about["grid"] else None
    peaks = Peaks(values, tokens, grid, about["first"])  # type: ignore[arg-type]
    site, kind, domains = about["site"], about["kind"], tuple(about["domains"])
    return Gallery(images[places], site, kind, peaks, domains, table)
