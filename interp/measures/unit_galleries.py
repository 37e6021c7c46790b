"""What the units behind R5 and R6 respond to: one that serves both domains, one of each, one drawn.

Units are chosen by what they do for a class in pictures by half of the artists, and shown on
pictures by the others, so that what a gallery says was not chosen with it.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from interp.circuits import Units
from interp.circuits.sharing.by_site import BOTH, places, serving_units
from interp.core.artists import artist_sides
from interp.core.errors import AlikeError, SampleError
from interp.core.illustrations import Plate, sheet
from interp.core.images import ImageTable, Preprocess
from interp.core.progress import say
from interp.core.sites import middle_of
from interp.core.statistics.index_of_sharing import LEVEL
from interp.core.tables import stacked
from interp.core.tower import Tower
from interp.declared import figures
from interp.declared.writing import between, number, plain
from interp.measures.circuit_tables import circuits_of, cuts_of
from interp.measures.subject import Frames, Subject
from interp.probes import Gallery, gallery, name_units
from interp.probes.galleries.unit_selectivity import FOR_CLASS

SIDE = 66
"""Pixels of a picture in a plate."""


def unit_galleries(subject: Subject) -> Frames:
    """The table `unit_galleries`: four units of the site nearest to half depth."""
    cut = next((cut for cut in cuts_of(subject) if isinstance(cut, Units)), None)
    if cut is None:
        return {}
    try:
        first, second = (circuits_of(subject, domain, cut) for domain in subject.pair)
        sites = places(first)
        site = middle_of({name: place["depth"] for name, place in sites.items()})
        units = serving_units(first, second, site, seed=subject.seed)
        rows = unit_rows(_gallery(subject, site), units, subject.seed).assign(**sites[site])
    except (AlikeError, SampleError) as error:
        rows = pd.DataFrame([{"measure": FOR_CLASS, "reason": str(error)}])
    return {"unit_galleries": rows}


def unit_plates(subject: Subject, frames: Mapping[str, pd.DataFrame]) -> list[Plate]:
    """What the units of `unit_galleries` respond to, as one plate."""
    rows = frames["unit_galleries"]
    if "role" not in rows:  # reasons alone
        return []
    shown = _gallery(subject, str(rows["site"].iloc[0]))
    return [plate_of_units(shown, rows, subject.name, subject.place)]


def _gallery(subject: Subject, site: str) -> Gallery:
    return gallery_of_others(
        subject.tower,
        subject.intervened,
        site,
        subject.pair,
        preprocess=subject.preprocess,
        seed=subject.seed,
    )


def gallery_of_others(
    tower: Tower,
    images: ImageTable,
    site: str,
    domains: Sequence[str],
    *,
    preprocess: Preprocess,
    seed: int = 0,
) -> Gallery:
    """The gallery of a site in some domains, on pictures by the half of the artists that chose no
    unit.
    """
    others = images[artist_sides(images.frame) == 1].select(domain=list(domains))
    return gallery(tower, others, site, preprocess=preprocess, seed=seed)


def unit_rows(shown: Gallery, units: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """What the gallery says of the units, and their names, with role and class beside."""
    frames = [shown.table.frame]
    try:
        frames.append(name_units(shown, seed=seed).frame)
    except SampleError as error:
        say(f"names of units left out: {error}")
    return stacked([units.merge(frame, on="feature") for frame in frames])


def plate_of_units(
    shown: Gallery, table: pd.DataFrame, name: str, place: Mapping[str, object]
) -> Plate:
    """Rows of pictures for each unit, domains under one another, from most to least active.

    `table` has the rows of `unit_rows`; captions call the model by `name`.
    """
    units = table[["role", "feature", "chosen_for"]].drop_duplicates()
    rows = {
        (int(unit), domain): shown.shown(int(unit), domain)
        for unit in units["feature"]
        for domain in shown.domains
    }
    strips = [
        [shown.picture(row, unit, side=SIDE).resize((SIDE, SIDE)) for row in found["row"]]
        for (unit, _), found in rows.items()
    ]
    words = ". ".join(_words(table[table["feature"] == unit]) for unit in units["feature"])
    caption = (
        f"{name[:1].upper()}{name[1:]}, {shown.site}: what {len(units)} units respond to, "
        f"{' above '.join(shown.domains)}, from most to least active, in {len(shown.images):,} "
        f"pictures by artists whose pictures chose none of them. {words}."
    )
    heads = [_head(table[table["feature"] == unit], shown.domains) for unit in units["feature"]]
    picture = sheet(strips, SIDE, down=len(shown.domains), heads=heads)
    return Plate.of_model("units", place, picture, caption)


def _head(rows: pd.DataFrame, domains: Sequence[str]) -> str:
    """What stands above a unit's pictures: its number, its role, and whose rows they are."""
    first = rows.iloc[0]
    chosen = f" of {first['chosen_for']}" if first["chosen_for"] else ""
    return f"unit {first['feature']:g}: {first['role']}{chosen} ({' above '.join(domains)})"


def _words(rows: pd.DataFrame) -> str:
    """A unit's role, and the class that it tells in each domain alone."""
    first = rows.iloc[0]
    chosen = f" (chosen for {first['chosen_for']})" if first["chosen_for"] else ""
    own = rows[(rows["measure"] == FOR_CLASS) & (rows["domain_a"] == rows["domain_b"])]
    each = ", ".join(_tells(row) for _, row in own.iterrows())
    return f"Unit {first['feature']:g} {first['role']}{chosen}; it tells {each}"


def _tells(row: pd.Series) -> str:
    """What a unit tells in a domain; other numbers are in the table.

    >>> _tells(pd.Series({"domain_a": "real", "label": "cat", "value": 0.9, "low": 0.8,
    ...     "high": 1.0, "p": 0.01, "unit": "drawing", "n_units": 6}))
    'in real cat (AUROC 0.90, 95 % interval 0.80 to 1.00, n = 6 drawings)'
    """
    if not row["p"] < LEVEL:
        return f"in {row['domain_a']} no class beyond chance"
    return (
        f"in {row['domain_a']} {row['label']} (AUROC {number(row['value'])}, "
        f"{between(row['low'], row['high'])}, n = {row['n_units']:g} {row['unit']}s)"
    )


TOLD = figures.FigureSpec(
    "unit-galleries",
    "What single units tell",
    "forest",
    method="A unit's class is chosen on some drawings of one domain and scored on others, there "
    "and in the other domain: the AUROC.",
    null="The mean over the other classes (column null of the table).",
    caption="{n}; bars are 95 % intervals. 0.5 is chance. Units are chosen by what they do for "
    "a class in pictures by other artists. {kinds}",
    where={"measure": FOR_CLASS},
    subjects="settings",
    choices=(figures.TEST_DOMAIN, figures.ChoiceSpec("Unit", "role")),
    labels=lambda row: (
        f"class chosen in {plain(row['domain_a'])}, told in {plain(row['domain_b'])}"
    ),
    x=figures.AxisSpec("AUROC of the class", limits=(0, 1)),
)

UNIT_GALLERIES = figures.SectionSpec(
    "units",
    "What do the units respond to?",
    "At the site nearest to half depth one unit is taken that does most for a class in both "
    "domains, one for each domain that does much more there than in the other, and one at random. "
    "To serve a domain is to do something for a class there, not to be active: that is the domain "
    "selectivity of the table. Most single units tell no class. "
    "Galleries show what activates each, in pictures by artists whose pictures chose none of them: "
    "from the left the most active, those above 90, 75 and 50 % of the domain's, and the least, "
    "with a frame where the unit is most active.",
    (TOLD,),
    also=("shared units", "private units", "single units, neurons, channels", "galleries"),
    note="What a unit responds to is no proof of what it does: R5 and R6 say that.",
    gist=figures.GistSpec(
        "unit_galleries",
        "The unit that does most for a class in both domains tells a class with an AUROC of "
        "{range} (0.5 is chance) in drawings by other artists.",
        where={"measure": FOR_CLASS, "role": BOTH},
    ),
)
