"""FFJORD's toy densities as a grid of pictures, as an animation, and as a table."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from repro import panels, pixels, plotting
from repro.animation import Animation
from repro.arrays import load_arrays
from repro.data import DENSITIES
from repro.papers.ffjord.toy_claims import COMPARED, FIG2, GLOWS, SETS
from repro.results import curve, final_values, largest_text, mean_text, outcomes

MODELS = {
    "": "FFJORD",
    "_hutchinson": "FFJORD, Hutchinson",
    "_planar": "planar CNF",
    "_glow": "Glow",
    "_glow_bounded": "Glow, bounded",
}
"""Suffix of a cell -> its model."""
ORDER = (*COMPARED, *(name for name in SETS if name not in COMPARED))


def draw_toys(rows: pd.DataFrame) -> Figure | None:
    """Densities in the plane: the data's own, FFJORD's and a sample of it, planar CNF's and Glow's.

    Each panel has a colour scale of its own, and below it what the rows say over all seeds: test NLL in nats beside the
    lowest possible, and the evaluations of a test solve.
    """
    found = {name: load_arrays(rows, FIG2, name) for name in ORDER}
    shown = [name for name in ORDER if found[name] is not None]
    if not shown:
        return None
    titles = ["data", "FFJORD", "its sample", "planar CNF", "Glow"]
    figure, axes = panels.grid_figure(len(shown), len(titles), shown, titles, caption_lines=2)
    for line, name in zip(axes, shown, strict=True):
        window, arrays = DENSITIES[name].window, found[name] or {}
        panels.density_panel(line[0], pixels.restored(arrays["truth"]), window)
        panels.caption(line[0], f"entropy {mean_text(rows, FIG2, name, 'nll_floor', 3)}")
        panels.points_panel(line[2], arrays["sample"].astype(float), window)
        for axis, cell in zip((line[1], *line[3:]), (name, f"{name}_planar", GLOWS.get(name, "none")), strict=True):
            _draw_model(axis, rows, cell, window)
    return figure


def _draw_model(axis: plotting.Axes, rows: pd.DataFrame, cell: str, window: float) -> None:
    arrays = load_arrays(rows, FIG2, cell)
    if arrays is None:
        axis.axis("off")
        return
    panels.density_panel(axis, pixels.restored(arrays["density"]), window)
    solved = final_values(rows, FIG2, cell, "nfe_test")
    cost = f"NFE {mean_text(rows, FIG2, cell, 'nfe_test', 0)}" if solved else "no solver"
    panels.caption(axis, f"NLL {mean_text(rows, FIG2, cell, 'test_nll', 3)}", cost)


def animate_toys(rows: pd.DataFrame) -> Animation | None:
    """FFJORD turns noise into data: density and sample on the way, one set after another."""
    found = {name: load_arrays(rows, FIG2, name) for name in COMPARED}
    films = [(arrays, DENSITIES[name].window) for name, arrays in found.items() if arrays]
    return panels.animated(films, 2)


def toy_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Likelihood and cost of every model on every set; nats, lower is better.

    Args:
        rows: the runs of one tier.
    """
    lines = [_line(rows, name, suffix) for name in ORDER for suffix in MODELS if _was_run(rows, name + suffix)]
    return pd.DataFrame(lines)


def _was_run(rows: pd.DataFrame, cell: str) -> bool:
    return bool(((rows["experiment"] == FIG2) & (rows["cell"] == cell)).any())


def _line(rows: pd.DataFrame, name: str, suffix: str) -> dict[str, str]:
    cell = name + suffix
    training = curve(rows, FIG2, cell)
    return {
        "data and model": f"{name}, {MODELS[suffix]}",
        "entropy of the data": mean_text(rows, FIG2, cell, "nll_floor", 3),
        "test NLL": mean_text(rows, FIG2, cell, "test_nll", 3),
        "above the data's own density on the same draws": mean_text(rows, FIG2, cell, "test_gap", 3),
        "the same at a tenth of the tolerance": mean_text(rows, FIG2, cell, "test_nll_tight", 3),
        "mass where the data have none": _percent(rows, cell, "empty_mass"),
        "the data's own mass there": _percent(rows, cell, "empty_mass_data"),
        "NFE, test": mean_text(rows, FIG2, cell, "nfe_test", 0),
        "NFE there / back, without density": " / ".join(
            mean_text(rows, FIG2, cell, metric, 0) for metric in ("nfe_there", "nfe_back")
        ),
        "NFE forward / backward, end of training": _last(training),
        "largest error there and back": largest_text(rows, FIG2, cell, "reversibility_error"),
        "parameters": mean_text(rows, FIG2, cell, "parameters", 0),
        "share of the public iterations": _percent(rows, cell, "budget_share"),
        "runs": outcomes(rows[(rows["experiment"] == FIG2) & (rows["cell"] == cell)]),
    }


def _percent(rows: pd.DataFrame, cell: str, metric: str) -> str:
    values = final_values(rows, FIG2, cell, metric)
    return f"{100 * float(np.mean(values)):.3g} %" if values else "-"


def _last(training: pd.DataFrame) -> str:
    if "nfe_forward" not in training.columns:
        return "-"
    last = training.iloc[-1]
    return f"{last['nfe_forward']:.0f} / {last['nfe_backward']:.0f}" if "nfe_backward" in last else "-"
