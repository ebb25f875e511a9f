"""The picture of how often training steps evaluate their field."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro import plotting
from repro.report.benchmarks import done_by_first
from repro.report.nfe import AXES, STATES, shown

FORWARD = "forward"
STYLES = {
    "adjoint": (plotting.PALETTE[1], "o", "-", 7.5),
    "adjoint_seminorm": (plotting.PALETTE[4], "v", "--", 5.0),
    "checkpoint": (plotting.PALETTE[2], "s", "-", 4.5),
    FORWARD: (plotting.PALETTE[6], "x", ":", 4.5),
}
"""Colour, marker, line and size of each series, the lowest first: they often lie upon each other."""
LABELS = {FORWARD: FORWARD} | {way: f"backward, {way}" for way in STYLES if way != FORWARD}
XLABELS = {"tolerance": "rtol = atol", "solver": ""}


def draw_nfe(cells: pd.DataFrame) -> Figure | None:
    """Evaluations of a training step against tolerance, output times, solver and dimension, untrained and trained."""
    if cells.empty:
        return None
    cells = done_by_first(cells)
    panels = [(axis, state) for axis in AXES for state in STATES if len(_panel_of(cells, axis, state))]
    if not panels:
        return None
    rows = -(-len(panels) // 2)
    figure, axes = plotting.new_figure(rows, min(2, len(panels)), panel=(1.15 * plotting.COLUMN_WIDTH, 2.5))
    plotting.panel_titles(axes, [f"{axis}, {state}" for axis, state in panels])
    counts = cells[["nfe_forward", "nfe_backward"]].to_numpy(dtype=float)
    limits = (float(np.nanmin(counts)) / 1.4, float(np.nanmax(counts)) * 1.4)
    for axis, panel in zip(axes, panels, strict=False):
        _panel(axis, panel[0], _panel_of(cells, *panel))
        axis.set_ylim(*limits)  # the same in all panels, which are there to be compared
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    _legend(figure, axes, axes[len(panels) :])
    return figure


def _legend(figure: Figure, axes: Sequence[Axes], free: Sequence[Axes]) -> None:
    """In a panel's free place where there is one, else below."""
    known = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    labels = [label for label in LABELS.values() if label in known]
    lines, title = [known[label] for label in labels], "evaluations of the field"
    if free:
        free[0].legend(lines, labels, title=title, loc="center")
    else:
        figure.legend(lines, labels, title=title, loc="outside lower center", ncols=2)


def _panel_of(cells: pd.DataFrame, axis: str, state: str) -> pd.DataFrame:
    return cells[(cells["axis"] == axis) & (cells["state"] == state)]


def _setting(name: str, chosen: pd.DataFrame) -> str:
    """What the axis leaves as it is: the solver and its tolerance."""
    solver = "" if name == "solver" else "dopri5"
    tolerance = "" if name == "tolerance" else f"tolerance {shown(chosen['tolerance'].iloc[0])}"
    return " at ".join(part for part in (solver, tolerance) if part)


def _panel(axis: Axes, name: str, chosen: pd.DataFrame) -> None:
    values = list(dict.fromkeys(chosen["value"]))
    for series, (colour, marker, line, size) in STYLES.items():
        column = "nfe_forward" if series == FORWARD else "nfe_backward"
        found = chosen if series == FORWARD else chosen[chosen["way"] == series]
        found = found.dropna(subset=column).drop_duplicates("value")
        places = [values.index(value) for value in found["value"]] if name == "solver" else found["value"].tolist()
        style = {"color": colour, "marker": marker, "markersize": size, "linestyle": "" if name == "solver" else line}
        if len(found):
            axis.plot(places, found[column].astype(float), label=LABELS[series], linewidth=1.2, **style)
    label = ", ".join(part for part in (XLABELS.get(name, name), _setting(name, chosen)) if part)
    axis.set(yscale="log", ylabel="evaluations")
    axis.set_xlabel(f"{label} ({chosen['workload'].iloc[0]})", fontsize=7.5)
    if name == "solver":
        axis.set_xticks(range(len(values)), values, rotation=35, ha="right")
    else:
        axis.set_xscale("log")
        axis.set_xticks(values, [shown(value) for value in values])
        axis.set_xticks([], minor=True)
    if name == "tolerance":
        axis.invert_xaxis()
    plotting.plain_log_ticks(axis, "y")
