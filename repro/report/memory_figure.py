"""The picture of a training step's peak memory against everything that it may depend on."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro import plotting
from repro.report.benchmarks import done_by_first
from repro.report.memory import WAYS

PANELS = (("ODE-Net", "solver steps"), ("CNF", "solver steps"), ("field", "output times"))
MORE = (("CNF", "batch"), ("field", "width"), ("CNF", "solver"))


def draw_memory(cells: pd.DataFrame) -> Figure | None:
    """Peak memory of a training step against steps, output times, batch, width and solver, by gradient method."""
    if cells.empty:
        return None
    cells = done_by_first(cells)
    panels = [pair for pair in (*PANELS, *MORE) if len(_chosen(cells, *pair))]
    if not panels:
        return None
    rows = -(-len(panels) // 3)
    figure, axes = plotting.new_figure(rows, min(3, len(panels)))
    plotting.panel_titles(axes, [f"{workload}: {axis}" for workload, axis in panels])
    for axis, (workload, name) in zip(axes, panels, strict=False):
        _panel(axis, name, _chosen(cells, workload, name))
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    plotting.shared_legend(figure, axes, WAYS)
    return figure


def _chosen(cells: pd.DataFrame, workload: str, axis: str) -> pd.DataFrame:
    return cells[(cells["workload"] == workload) & (cells["axis"] == axis)]


def _panel(axis: Axes, name: str, chosen: pd.DataFrame) -> None:
    categories = list(dict.fromkeys(chosen["value"])) if name == "solver" else None
    for index, way in enumerate(WAYS):
        of_way = chosen[chosen["way"] == way]
        places = [categories.index(value) for value in of_way["value"]] if categories else of_way["value"].tolist()
        style = {"color": plotting.PALETTE[index], "marker": plotting.MARKERS[index], "markersize": 4}
        line = "none" if categories else "--" if way == "adjoint_seminorm" else "-"  # often upon that of the adjoint
        if len(of_way):
            axis.plot(places, of_way["peak_mib"], linestyle=line, label=way, **style)
    axis.set(yscale="log", ylabel="peak, MiB", xlabel={"solver steps": "solver steps (RK4) or blocks"}.get(name, name))
    if categories:
        axis.set_xticks(range(len(categories)), categories, rotation=30, ha="right")
    else:
        values = sorted(set(chosen["value"]))
        axis.set_xscale("log")
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.set_xticks([], minor=True)
    plotting.plain_log_ticks(axis, "y")
