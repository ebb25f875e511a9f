"""What a training step costs against its sizes: straight lines through times, and how far the times lie from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from repro import plotting
from repro.report.benchmarks import entries, first_machine

COLUMNS = ("machine", "against", "way", "at the least", "at the most", "fixed cost", "per unit", "largest deviation")


def load_scaling(folder: Path) -> pd.DataFrame:
    """Read results/benchmarks/: machine, axis, way, value, and the times' median and quartiles in ms."""
    found = [
        {
            "machine": machine,
            "axis": benchmark["extra_info"]["scaling"],
            **{key: benchmark["extra_info"][key] for key in ("way", "value")},
            **{key: 1e3 * benchmark["stats"][key] for key in ("median", "q1", "q3")},
        }
        for machine, benchmark in entries(folder, "scaling")
    ]
    return pd.DataFrame(found)


def line(values: Sequence[float | int], times: Sequence[float]) -> tuple[float, float, float]:
    """Fit time = fixed + per unit · value; return both and the largest relative deviation of a time from the line.

    Deviations count relative to the time, in the fit too, so that small sizes have as much say as large ones.
    """
    x, y = np.asarray(values, dtype=float), np.asarray(times, dtype=float)
    slope, fixed = np.polyfit(x, y, 1, w=1 / y)
    return float(fixed), float(slope), float(np.max(np.abs(fixed + slope * x - y) / y))


def scaling(times: pd.DataFrame) -> pd.DataFrame:
    """One line for each way along each axis. Times are medians; a cost that is linear has no large deviation."""
    lines = [_row(key, chosen) for key, chosen in _series(times)]
    return pd.DataFrame(lines, columns=pd.Index(COLUMNS))


Key = tuple[str, str, str]


def _series(times: pd.DataFrame) -> list[tuple[Key, pd.DataFrame]]:
    if times.empty:
        return []
    grouped = times.groupby(["machine", "axis", "way"], sort=False)
    return [((str(m), str(a), str(w)), chosen.sort_values("value")) for (m, a, w), chosen in grouped]


def _row(key: Key, chosen: pd.DataFrame) -> dict[str, Any]:
    fixed, slope, deviation = line(chosen["value"].tolist(), chosen["median"].tolist())
    first, last = chosen.iloc[0], chosen.iloc[-1]
    values = (
        *key,
        f"{first['median']:.3g} ms at {first['value']}",
        f"{last['median']:.3g} ms at {last['value']}",
        f"{fixed:.2g} ms",
        f"{1e3 * slope:.3g} µs",
        f"{deviation:.0%}",
    )
    return dict(zip(COLUMNS, values, strict=True))


def draw_scaling(times: pd.DataFrame) -> Figure | None:
    """Time of a CNF's training step against evaluations, batch and dimension, with straight lines through them."""
    if times.empty:
        return None
    times = first_machine(times)
    names = list(dict.fromkeys(times["axis"]))
    figure, axes = plotting.new_figure(1, len(names))
    colours = dict(zip(dict.fromkeys(times["way"]), plotting.PALETTE, strict=False))
    for (_, name, way), chosen in _series(times):
        axis, values = axes[names.index(name)], chosen["value"].to_numpy(float)
        spread = [chosen["median"] - chosen["q1"], chosen["q3"] - chosen["median"]]
        axis.errorbar(values, chosen["median"], yerr=spread, fmt="o", markersize=4, color=colours[way], linewidth=1)
        fixed, slope, _ = line(values.tolist(), chosen["median"].tolist())
        axis.plot(values, fixed + slope * values, color=colours[way], linewidth=1, label=way)
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel="ms per training step")
        axis.set_xticks(values, [f"{value:g}" for value in values], minor=False)
        axis.set_xticks([], minor=True)
        plotting.plain_log_ticks(axis, "y")
    axes[0].legend(frameon=False)
    return figure
