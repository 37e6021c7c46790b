"""Export of a result: CSV with a dictionary of its columns, figures, circuits for MIB."""

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from interp.circuits.discovery.circuit import Circuit
from interp.circuits.edges.wire import Wiring, node_of
from interp.core.errors import DataError, SpecificationError, check_known, listed
from interp.core.progress import say
from interp.core.storage.store import told_when_full, writable
from interp.core.tables import Table
from interp.report.drawing import result_figures
from interp.study.results import Result, open_result
from interp.verdicts.rungs import PLACE

Figures: TypeAlias = dict[str, go.Figure]
Writer: TypeAlias = Callable[[Result, Path, Figures], list[Path]]

PIXELS = 2
"""Pixels of a PNG per pixel of its figure."""


def export(
    result: Result | str | Path,
    to: str | Path,
    what: Sequence[str] = ("csv", "html"),
    *,
    figures: Sequence[str] = (),
) -> dict[str, list[Path]]:
    """Write a result in formats that other tools read, each into a folder of its own.

    | format | what is written |
    |---|---|
    | csv | every table, and `columns.csv`: table, column, meaning |
    | html | every figure of the page, interactive; they share one `plotly.min.js` |
    | png, svg | the same as pictures; needs the extra `image`, and Chrome or Chromium |
    | mib | circuits of edges in the Mechanistic Interpretability Benchmark's json |

    Args:
        result: A result, or its folder.
        to: The folder to write into; it gets a folder per format.
        what: The formats.
        figures: Names of the figures to write; none takes all.

    Returns:
        The files of each format.

    Raises:
        DataError: For a folder without a result, or a result without circuits for `mib`.
        SpecificationError: For no or an unknown format, an unknown figure, or missing kaleido or
            Chrome.
        OutputError: If nothing can be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = Table("losses", pd.DataFrame({"epoch": [1], "loss": [0.5]}))
    ...     _ = table.save(f"{folder}/tables")
    ...     _ = (Path(folder) / "facts.json").write_text("{}")
    ...     found = export(folder, f"{folder}/out", ["csv"])
    >>> [path.name for path in found["csv"]]
    ['losses.csv', 'columns.csv']
    """
    source = open_result(result)
    asked = list(dict.fromkeys(what))
    check_known("export a result", "format", asked, FORMATS, SpecificationError)
    if not asked:
        raise SpecificationError(
            "export a result", "no format", f"some of {listed(FORMATS)}", "name one"
        )
    target = writable(Path(to), purpose="the export")
    drawn = {"html", "png", "svg"} & set(asked)
    made = result_figures(source.folder) if drawn else {}
    check_known("export a figure", "figure", figures if drawn else (), made, SpecificationError)
    made = {name: made[name] for name in figures} if figures and drawn else made
    found = {}
    with told_when_full("the export"):
        for name in asked:
            folder = target / name
            folder.mkdir(exist_ok=True)
            found[name] = FORMATS[name](source, folder, made)
    return found


def _csv(result: Result, folder: Path, figures: Figures) -> list[Path]:
    """Tables byte for byte, and what their columns mean."""
    written, meanings = [], []
    for name, table in result.tables.items():
        written.append(Path(shutil.copy(result.folder / "tables" / f"{name}.csv", folder)))
        meanings += [(name, column, meaning) for column, meaning in table.describe().items()]
    frame = pd.DataFrame(meanings, columns=["table", "column", "meaning"])
    frame.to_csv(folder / "columns.csv", index=False)
    return [*written, folder / "columns.csv"]


def _html(result: Result, folder: Path, figures: Figures) -> list[Path]:
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.html"
        figure.write_html(path, include_plotlyjs="directory", full_html=True)
        paths.append(path)
    return [*paths, _captions(folder, figures)]


def _captions(folder: Path, figures: Figures) -> Path:
    """What each figure shows: a picture without its n and its null is none."""
    rows = [
        (name, *(each.layout.meta[key] for key in ("alt", "caption")))
        for name, each in figures.items()
    ]
    frame = pd.DataFrame(rows, columns=["figure", "shows", "caption"])
    frame.to_csv(folder / "captions.csv", index=False)
    return folder / "captions.csv"


def _picture(kind: str) -> Writer:
    def write(result: Result, folder: Path, figures: Figures) -> list[Path]:
        paths = [folder / f"{name}.{kind}" for name in figures]
        jobs = []
        for path, figure in zip(paths, figures.values(), strict=True):
            opts = {"format": kind, "scale": PIXELS if kind == "png" else 1}
            opts |= {side: figure.layout[side] for side in ("width", "height")}
            jobs.append({"fig": figure, "path": str(path), "opts": opts})
        say(f"{len(jobs)} figures as {kind} …")
        _with_kaleido(jobs)
        return [*paths, _captions(folder, figures)]

    return write


def _with_kaleido(jobs: list[dict[str, object]]) -> None:
    """Draw pictures in one browser, which is told to fetch nothing."""
    right, html = "kaleido, and Chrome or Chromium", "; --what html needs neither"
    try:
        import kaleido  # pyright: ignore[reportMissingImports] - an extra
    except ImportError:
        raise SpecificationError(
            "draw pictures", "no kaleido", right, f"run pip install kaleido{html}"
        ) from None
    try:
        kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False})
    except Exception as error:
        if "chrome" not in f"{type(error).__name__} {error}".lower():
            raise
        do = f"install one, or run plotly_get_chrome{html}"
        raise SpecificationError("draw pictures", "no Chrome or Chromium", right, do) from None


def _mib(result: Result, folder: Path, figures: Figures) -> list[Path]:
    """A file per model and domain: every edge with its score, and whether it was drawn."""
    table = result.tables.get("edges")
    if table is None or not len(table):
        right = "a study of a transformer, measured with circuits"
        do = "a ResNet is cut by channels, for which MIB has no names; their table is circuits.csv"
        raise DataError("export circuits for MIB", "a result without scores of edges", right, do)
    frame, written = table.frame, []
    keys = [name for name in (*PLACE, "domain") if name in frame and name != "control"]
    for place, rows in frame.groupby(keys, sort=False, dropna=False):
        words = [str(part) for part in np.atleast_1d(np.array(place, object)) if str(part) != ""]
        name = "-".join(words).replace(" ", "-").replace("/", "-").replace(",", "")
        written.append(circuit_of(Table("edges", rows)).to_mib(folder / f"{name}.json"))
    return written


def circuit_of(table: Table) -> Circuit:
    """The circuit whose every edge, in the order of its wiring, is a row: `edge, score, kept`.

    The names say the wiring: writers in order, and how many each reader sees. Raises `DataError`
    for rows that are no whole wiring.

    >>> rows = {"edge": ["input->m0", "input->logits", "m0->logits"], "score": [1.0, 0.0, 2.0],
    ...         "kept": [True, False, True]}
    >>> circuit_of(Table("edges", pd.DataFrame(rows))).edges
    ('input->m0', 'm0->logits')
    """
    names = [str(name) for name in table.frame["edge"]]
    seen: dict[str, list[str]] = {}
    for writer, _, reader in (name.partition("->") for name in names):
        seen.setdefault(reader, []).append(writer)
    writers = max(seen.values(), key=len, default=[])
    wiring = Wiring(tuple(writers), tuple(seen), tuple(len(each) for each in seen.values()))
    if not names or list(wiring.names) != names or not _whole(wiring):
        given = f"{len(names)} edges that are no whole wiring in its order"
        right = "every edge of a tower, as the study wrote them"
        raise DataError("read a circuit from a table", given, right, "run the study again")
    kept = table.frame["kept"].astype(str).str.lower().isin(["true", "1"]).to_numpy()
    return Circuit(wiring, kept, table.frame["score"].to_numpy(float))


def _whole(wiring: Wiring) -> bool:
    """Whether every writer but the input reads too, and every head reads in as many places."""
    places = Counter(node_of(reader) for reader in wiring.readers)
    heads = {n for node, n in places.items() if ".h" in node}
    return set(places) == set(wiring.nodes[1:]) and len(heads) <= 1


FORMATS: dict[str, Writer] = {
    "csv": _csv,
    "html": _html,
    "png": _picture("png"),
    "svg": _picture("svg"),
    "mib": _mib,
}
"""What a result is written as, and by what: to add a format, add a function and its line here."""
