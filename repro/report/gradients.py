"""How exact gradients are, and what that costs in time, evaluations and memory: a table and Pareto plots."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro import plotting
from repro.report.benchmarks import OVERHEAD, entries, first_machine, overhead, without_empty

MIB = 2**20
COLUMNS = (
    "machine",
    "step of",
    "way",
    "tolerance",
    "gradient error",
    "NFE forward / backward",
    "time",
    "kept by autograd",
    "peak",
    OVERHEAD,
    "reference",
    "status",
)
WAYS = (
    "backprop",
    "checkpoint",
    "adjoint",
    "adjoint_seminorm",
    "backprop, compiled",
    "checkpoint, compiled",
    "adjoint, compiled",
)
"""In the order of legends; a compiled way has the colour of its method."""
LEVEL = 1.03
"""Costs up to this factor above the least are level with it: about what a repeated measurement differs by."""
ASKED = 1e-2
"""Relative error of the gradient at which the finding compares the ways."""


def load_gradients(folder: Path) -> pd.DataFrame:
    """Read results/benchmarks/: machine, workload, way, tolerance, status, error, counts, ms, MiB, reference."""
    return pd.DataFrame([_cell(machine, benchmark) for machine, benchmark in entries(folder, "gradients")])


def _cell(machine: str, benchmark: dict[str, Any]) -> dict[str, Any]:
    known, stats = benchmark["extra_info"], benchmark["stats"]
    return {
        "machine": machine,
        "workload": known["gradients"],
        **{key: known[key] for key in ("way", "tolerance", "status")},
        "reference": known.get("reference", ""),
        "error": known.get("gradient_error", np.nan),
        "nfe_forward": known.get("nfe_forward"),
        "nfe_backward": known.get("nfe_backward"),
        "ms": 1e3 * stats["median"],
        "iqr": 1e3 * stats["iqr"],
        **{quartile: 1e3 * stats.get(quartile, np.nan) for quartile in ("q1", "q3")},
        "saved_mib": known.get("saved_bytes", np.nan) / MIB,
        "peak_mib": known.get("peak_bytes", np.nan) / MIB,
        "overhead": overhead(known),
    }


def gradients(cells: pd.DataFrame) -> pd.DataFrame:
    """One line for each way at each tolerance.

    Errors are relative, ‖g − g_exact‖ / ‖g_exact‖ over everything that is differentiated for, against one reference a
    workload. Times are medians with half the interquartile range of steps taken in turn; evaluations backward are n/a
    where the backward pass makes none. A way is bound by overhead if at twice the batch an evaluation takes less than
    1.25 times as long, asked at its loosest tolerance; the column is there where that was measured.
    """
    table = pd.DataFrame([_line(cell) for _, cell in cells.iterrows()], columns=pd.Index(COLUMNS))
    return without_empty(table, OVERHEAD)


def _line(cell: pd.Series) -> dict[str, str]:
    if cell["status"] != "ok":
        figures = [*["-"] * 5, ""]
    else:
        backward = "n/a" if pd.isna(cell["nfe_backward"]) else f"{cell['nfe_backward']:.0f}"
        figures = [
            f"{cell['error']:.1e}",
            f"{cell['nfe_forward']:.0f} / {backward}",
            f"{cell['ms']:.3g} ± {cell['iqr'] / 2:.2g} ms",
            f"{cell['saved_mib']:.3g} MiB",
            "-" if pd.isna(cell["peak_mib"]) else f"{cell['peak_mib']:.3g} MiB",
            cell["overhead"],
        ]
    first = [cell["machine"], cell["workload"], cell["way"], f"{cell['tolerance']:g}"]
    return dict(zip(COLUMNS, [*first, *figures, cell["reference"], cell["status"]], strict=True))


Series = tuple[str, pd.DataFrame]


def _series(cells: pd.DataFrame, workload: str) -> Iterator[Series]:
    """The ways of a workload that have errors, each from the loosest tolerance to the tightest."""
    for way in WAYS:
        chosen = cells[(cells["workload"] == workload) & (cells["way"] == way) & (cells["status"] == "ok")]
        if len(chosen):
            yield way, chosen.sort_values("tolerance", ascending=False)


def cost_at(errors: Sequence[float | int], costs: Sequence[float | int], wanted: float) -> float | None:
    """The cost of an error, between two measured points by powers; None where the error is not reached.

    Args:
        errors: Of the points, the loosest tolerance first.
        costs: Theirs.
        wanted: The error. Where the first point is already better, its cost is an upper bound and is given.
    """
    if errors[0] <= wanted:
        return float(costs[0])
    for i in range(len(errors) - 1):
        if errors[i] > wanted >= errors[i + 1]:
            share = np.log(errors[i] / wanted) / np.log(errors[i] / errors[i + 1])
            return float(costs[i] * (costs[i + 1] / costs[i]) ** share)
    return None


def finding(cells: pd.DataFrame) -> str:
    """What the picture shows, in a sentence: the cheapest ways to a gradient of a given error."""
    cells = first_machine(cells)
    parts = []
    for workload in dict.fromkeys(cells["workload"]):
        time, memory = (cheapest(cells, workload, column, ASKED) for column in ("ms", "memory"))
        if time and memory:
            parts.append(
                f"on the {workload} the least time is {time[1]:.3g} ms, by {in_words(time[0])}, and the least memory "
                f"{memory[1]:.3g} MiB, by {in_words(memory[0])}"
            )
        else:
            parts.append(f"on the {workload} none reaches it at the tolerances measured")
    return f"For a gradient with a relative error of {ASKED:g}: {'; '.join(parts)}."


def in_words(ways: Sequence[str]) -> str:
    """Ways as sentences call them."""
    return " or ".join(way.replace("_", " ") for way in ways)


def cheapest(cells: pd.DataFrame, workload: str, column: str, error: float) -> tuple[list[str], float] | None:
    """The ways that reach an error at the least cost, up to `LEVEL`, and that cost; "memory" is a column too."""
    found = []
    for way, points in _series(cells, workload):
        chosen = points.assign(memory=memory_of(points)).dropna(subset=[column])
        costs = chosen[column]
        if len(chosen) and (cost := cost_at(chosen["error"].tolist(), costs.tolist(), error)) is not None:
            found.append((way, cost))
    least = min((cost for _, cost in found), default=0.0)
    return ([way for way, cost in found if cost <= LEVEL * least], least) if found else None


def memory_of(chosen: pd.DataFrame) -> pd.Series:
    """The peak, or what autograd keeps where no peak at all was measured, in MiB: never a mixture of two meters."""
    return chosen["peak_mib"] if chosen["peak_mib"].notna().any() else chosen["saved_mib"]


def draw_gradients(cells: pd.DataFrame) -> Figure | None:
    """Error of the gradient against time and memory of a training step, by gradient method; bars: quartiles."""
    if cells.empty:
        return None
    cells = first_machine(cells)
    workloads = list(dict.fromkeys(cells["workload"]))
    figure, axes = plotting.new_figure(len(workloads), 2, panel=(plotting.COLUMN_WIDTH, 2.4))
    plotting.panel_titles(axes, [f"{workload}: {what}" for workload in workloads for what in ("time", "memory")])
    peaks = cells["peak_mib"].notna().any()
    for row, workload in enumerate(workloads):
        left, right = axes[2 * row : 2 * row + 2]
        for way, chosen in _series(cells, workload):
            _curve(left, way, chosen["ms"], chosen["error"])
            _quartiles(left, way, chosen)
            _curve(right, way, memory_of(chosen), chosen["error"])
        left.set(xlabel="ms per training step", ylabel="relative error of the gradient")
        right.set(xlabel=f"{'peak' if peaks else 'kept by autograd'}, MiB per training step")
        for axis in (left, right):
            axis.set(xscale="log", yscale="log")
            plotting.plain_log_ticks(axis, "x")
    plotting.shared_legend(figure, axes)
    return figure


def _quartiles(axis: Axes, way: str, chosen: pd.DataFrame) -> None:
    """How far the times of a way scattered; a file from before quartiles were kept shows none."""
    known, colour = chosen.dropna(subset=["q1", "q3"]), plotting.PALETTE[WAYS.index(way.partition(", ")[0])]
    if len(known):
        ends = known["q1"].tolist(), known["q3"].tolist()
        plotting.whiskers(axis, known["ms"].tolist(), known["error"].tolist(), colour, across=ends)


def _curve(axis: Axes, way: str, costs: pd.Series, errors: pd.Series) -> None:
    """A way's points, one a tolerance; compiled ways are dashed and hollow."""
    gradient, _, engine = way.partition(", ")
    index = WAYS.index(gradient)
    style: dict[str, Any] = {"color": plotting.PALETTE[index], "marker": plotting.MARKERS[index], "markersize": 4}
    hollow: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white"} if engine else {}
    axis.plot(costs, errors, label=in_words([way]), linewidth=1.0, **style, **hollow)
