"""What a reader's notebook asks of the published results: the runs that count, the claims' verdicts, small pictures."""

import io
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from repro.report.build import PUBLISHED_TIERS, load_runs
from repro.report.ledger import ledger
from repro.report.subjects import judged, measured

DPI = 130
"""Of a picture in a notebook, which is shown at about 95 pixels an inch."""
COLOURS = 128
"""Of a picture in a notebook: enough for lines, text and one colour map."""


def published_runs(results: Path) -> pd.DataFrame:
    """The rows of all published runs whose settings are those of a cell today; columns of `repro.results.load`.

    Args:
        results: the results/ folder.
    """
    return load_runs(results / "runs")


def published_ledger(results: Path, runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Every claim with verdict and evidence, as the README has it: claim, source, verdict, tier, evidence, id.

    Args:
        results: the results/ folder.
        runs: its `published_runs`; None reads them.
    """
    rows = published_runs(results) if runs is None else runs
    return ledger(rows, PUBLISHED_TIERS, judged(measured(results / "benchmarks")))


def picture(figure: Figure) -> bytes:
    """The figure as a PNG of few colours: a notebook that holds its pictures stays small."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=DPI)
    reduced = Image.open(full).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    reduced.save(small, format="PNG", optimize=True)
    return small.getvalue()
