"""The picture of what a trace costs and how noisy it is; bars are quartiles of times and 95 % intervals of noise."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro import plotting
from repro.report.benchmarks import done_by_first
from repro.report.divergence import BOTH, MIB, WAYS


def draw_divergence(cells: pd.DataFrame) -> Figure | None:
    """Time and memory of a trace by dimension, its noise by products, by estimator; bars: quartiles, 95 % intervals."""
    if cells.empty or (cells := done_by_first(cells)).empty:
        return None
    figure, axes = plotting.new_figure(2, 2)
    titles = ("time, forward", f"time, {BOTH}", "kept by autograd", "noise at D = 128")
    plotting.panel_titles(axes, titles)
    costs = cells[cells["axis"] == "dimension"]
    for axis, part, column, scale in (
        (axes[0], "forward", "seconds", 1e3),
        (axes[1], BOTH, "seconds", 1e3),
        (axes[2], BOTH, "saved_bytes", 1 / MIB),
    ):
        _costs(axis, costs[costs["pass"] == part], column, scale)
        axis.set(ylabel="ms per evaluation" if column == "seconds" else "MiB", xlabel="dimension D")
    _noises(axes[3], cells[cells["axis"] == "products"])
    plotting.shared_legend(figure, axes)
    return figure


def _style(way: str) -> dict[str, Any]:
    index = WAYS.index(way)
    return {"color": plotting.PALETTE[index], "marker": plotting.MARKERS[index], "markersize": 3.5, "linewidth": 1.0}


def _costs(axis: Axes, costs: pd.DataFrame, column: str, scale: float) -> None:
    for way in WAYS:
        chosen = costs[costs["way"] == way].sort_values("value")
        if len(chosen):
            axis.plot(chosen["value"], scale * chosen[column].astype(float), label=way, **_style(way))
        if len(chosen) and column == "seconds":
            _bars(axis, way, chosen["value"], scale * chosen[["seconds", "q1", "q3"]].astype(float))
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    values = sorted(set(costs["value"]))[::2]
    axis.set_xticks(values, [f"{value:g}" for value in values])
    plotting.plain_log_ticks(axis, "y")


def _bars(axis: Axes, way: str, x: pd.Series, found: pd.DataFrame) -> None:
    """From the lower to the upper end, the columns beside the middle, where they are known."""
    middle, low, high = (found[name].tolist() for name in found.columns)
    if found.notna().all(axis=None):
        plotting.whiskers(axis, x.astype(float).tolist(), middle, plotting.PALETTE[WAYS.index(way)], along=(low, high))


def _noises(axis: Axes, noises: pd.DataFrame) -> None:
    """Standard deviation over the Jacobian's Frobenius norm with its 95 % interval; Rademacher's probes are dotted."""
    for way in WAYS:
        for kind, line in (("gaussian", "-"), ("rademacher", ":")):
            chosen = noises[(noises["way"] == way) & (noises["noise"] == kind)].sort_values("value")
            if len(chosen):
                axis.plot(chosen["value"], chosen["spread"], linestyle=line, **_style(way))
                _bars(axis, way, chosen["value"], chosen[["spread", "spread_low", "spread_high"]])
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="products with the Jacobian; dotted: signs",
        ylabel="standard deviation / ‖J‖$_F$",
    )
    axis.set_xticks(values := sorted(set(noises["value"])), [f"{value:g}" for value in values])
    axis.set_xticks([], minor=True)
    plotting.plain_log_ticks(axis, "y")
