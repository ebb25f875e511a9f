"""Work-precision diagrams: error against evaluations and time, for adaptive and for fixed-step solvers."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from repro import plotting
from repro.ode.solvers import OWN_ADAPTIVE, OWN_FIXED
from repro.report.benchmarks import done_by_first
from repro.report.solvers import CLOSED_FORMS

FAMILIES = {
    "adaptive": ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun", "vode_adams", *OWN_ADAPTIVE),
    "fixed steps": ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "implicit_adams", *OWN_FIXED),
}
"""In the order of colours and markers; each has a row of panels of its own for each cost."""
COSTS = {"nfe_forward": "evaluations of the field", "ms": "ms per forward solve"}
ROUNDING = 1e-16
"""Errors below are drawn here: a logarithmic axis has no 0."""
SHOWN_CLOSED_FORMS = ("oscillator", "logistic")


def draw_solvers(cells: pd.DataFrame) -> Figure | None:
    """Relative error against evaluations and time of a forward solve, for adaptive and for fixed-step solvers."""
    if cells.empty:
        return None
    cells = done_by_first(cells)
    there = dict.fromkeys(cells["problem"])
    names = [name for name in (*SHOWN_CLOSED_FORMS, *there) if name in there]
    names = [name for name in dict.fromkeys(names) if name in SHOWN_CLOSED_FORMS or name not in CLOSED_FORMS][:3]
    if not names:
        return None
    rows = [(family, cost) for family in FAMILIES for cost in COSTS]
    errors = cells.loc[cells["problem"].isin(names), "error"]
    limits = (max(float(errors.min()) / 3, ROUNDING), 2 * float(errors.max()))
    figure, axes = plotting.new_figure(len(rows), len(names), panel=(plotting.COLUMN_WIDTH, 2.5))
    for index, (family, cost) in enumerate(rows):
        row = axes[index * len(names) : (index + 1) * len(names)]
        for axis, name in zip(row, names, strict=True):
            _panel(axis, cells[cells["problem"] == name], family, cost, limits)
            axis.set_title(f"{_title(name)}: {family}", loc="left")
        row[0].set_ylabel("relative error at the end")
        _legend(row[-1])
    return figure


def _title(name: str) -> str:
    return name if name in CLOSED_FORMS else f"flow of {name}"


def _panel(axis: Axes, chosen: pd.DataFrame, family: str, cost: str, limits: tuple[float, float]) -> None:
    """Dashed and hollow is the compiled engine, whose evaluations are drawn where torchdiffeq lacks the method."""
    for index, method in enumerate(FAMILIES[family]):
        for suffix in ("", "_compiled"):
            points = chosen[chosen["method"] == f"{method}{suffix}"]
            if points.empty or (suffix and cost == "nfe_forward"):
                continue
            compiled = (points["engine"] == "compiled").all()
            colour = plotting.PALETTE[index % len(plotting.PALETTE)]
            style: dict[str, Any] = {
                "color": colour,
                "marker": plotting.MARKERS[index % len(plotting.MARKERS)],
                "markerfacecolor": "white" if compiled else colour,
            }
            line = "--" if compiled else "-"
            axis.plot(
                points[cost],
                np.maximum(points["error"], ROUNDING),
                line,
                label=f"{method}{suffix}",
                markersize=3.5,
                linewidth=1.1,
                **style,
            )
    axis.set(xscale="log", yscale="log", xlabel=COSTS[cost], ylim=limits)
    axis.yaxis.set_major_locator(LogLocator(numticks=8))
    axis.yaxis.set_minor_locator(NullLocator())
    plotting.plain_log_ticks(axis, "x", roomy_up_to=50.0)


def _legend(axis: Axes) -> None:
    """Beside the row's last panel."""
    handles, labels = axis.get_legend_handles_labels()
    axis.legend(handles, labels, loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=7.5)
