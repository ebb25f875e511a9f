"""The same training steps in several libraries: a table of all ways, and a picture of what they cost and give."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro import plotting
from repro.report.benchmarks import OVERHEAD, entries, overhead, without_empty

COLUMNS = (
    "machine",
    "workload",
    "threads",
    "library",
    "way",
    "time",
    "speed-up",
    "NFE forward / backward",
    "loss error",
    "gradient error",
    "time at the adjoint's error",
    "first call",
    OVERHEAD,
    "why not",
)
OURS = "neural-ode-ffjord-suite"
"""This package, which tables and figures call by what it is to their readers."""

LABEL_SIZE = 6.5
"""Points; of what is written beside bars and dots."""


def load_peers(folder: Path) -> list[dict[str, Any]]:
    """Read results/benchmarks/: what is known of each way, with `machine`, `median` and `iqr`, in the files' order."""
    return [
        {"machine": machine, **benchmark["extra_info"], **{key: benchmark["stats"][key] for key in ("median", "iqr")}}
        for machine, benchmark in entries(folder, "peer")
    ]


def peers(ways: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One line for each way to take each step; a way without times says why.

    Times are medians with half the interquartile range of interleaved steps, without the first call, which compiles.
    Speed-ups are over torchdiffeq's adjoint in the same run. Errors are against float64 at tolerance 1e-10, that of the
    gradient relative over all parameters. The time at the adjoint's error is interpolated between runs at several
    tolerances; it is what the way takes for a gradient as exact as that of torchdiffeq's adjoint. Of
    the adjoint it is also said, where that was measured, whether it is bound by overhead: whether at twice the batch an
    evaluation takes less than 1.25 times as long.
    """
    return without_empty(pd.DataFrame([_line(way) for way in ways], columns=pd.Index(COLUMNS)), OVERHEAD)


def _line(way: dict[str, Any]) -> dict[str, str]:
    done = is_timed(way)
    values = (
        way["machine"],
        way["workload"],
        str(way["threads"]),
        _library(way),
        way["way"],
        f"{_milliseconds(way['median'])} ± {1e3 * way['iqr'] / 2:.2g} ms" if done else "-",
        f"{way['speedup']:.2f}" if done else "-",
        f"{way['nfe_forward']} / {way['nfe_backward']}" if done else "-",
        f"{way['loss_error']:.1e}" if done else "-",
        f"{way['gradient_error']:.1e}" if done else "-",
        _at_equal_error(way) if done else "-",
        f"{way['first_call']:.2g} s" if done else "-",
        overhead(way),
        "" if done else way["status"],
    )
    return dict(zip(COLUMNS, values, strict=True))


def is_timed(way: dict[str, Any]) -> bool:
    """Whether the way has times."""
    return way["status"] == "ok"


def _library(way: dict[str, Any]) -> str:
    return _name(way["peer"]) if way["version"] == "n/a" else f"{_name(way['peer'])} {way['version']}"


def _name(peer: str) -> str:
    return "this suite" if peer == OURS else peer


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def _at_equal_error(way: dict[str, Any]) -> str:
    seconds, how = way.get("seconds_at_equal_error"), way["equal_error"]
    if seconds is None:
        return how
    return f"{'≤ ' if how == 'at most' else ''}{_milliseconds(seconds)} ms"


def draw_peers(ways: Sequence[dict[str, Any]]) -> Figure | None:
    """Time of a training step by library, and the gradient's error against it, for each workload."""
    timed = [way for way in ways if is_timed(way)]
    if not timed:
        return None
    machine = timed[0]["machine"]  # one picture has times of one machine
    workloads = list(dict.fromkeys(way["workload"] for way in timed if way["machine"] == machine))
    figure, axes = plotting.new_figure(len(workloads), 2, panel=(1.4 * plotting.COLUMN_WIDTH, 2.9))
    colours = dict(zip(dict.fromkeys(way["peer"] for way in timed), plotting.PALETTE, strict=False))
    for row, workload in enumerate(workloads):
        chosen = [way for way in timed if (way["machine"], way["workload"]) == (machine, workload)]
        left, right = axes[2 * row : 2 * row + 2]
        left.set_title(f"{workload}, {_threads(chosen[0]['threads'])}", loc="left")
        _bars(left, chosen, colours)
        _dots(right, chosen, colours)
    return figure


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def _bars(axis: Axes, ways: Sequence[dict[str, Any]], colours: Mapping[str, str]) -> None:
    """Time of a step, the fastest on top, with the ratio to torchdiffeq's adjoint."""
    ordered = sorted(ways, key=lambda way: -way["median"])
    times = [1e3 * way["median"] for way in ordered]
    axis.barh(
        [_label(way) for way in ordered],
        times,
        xerr=[500 * way["iqr"] for way in ordered],
        color=[colours[way["peer"]] for way in ordered],
        error_kw={"linewidth": 0.7},
        height=0.7,
    )
    for index, (way, time) in enumerate(zip(ordered, times, strict=True)):
        axis.annotate(
            f"{way['speedup']:.3g}x", (time, index), (6, 0), textcoords="offset points", va="center", size=LABEL_SIZE
        )
    axis.set(xscale="log", xlabel="ms per training step", xlim=(min(times) / 2, 2.5 * max(times)))
    plotting.plain_log_ticks(axis, "x")
    axis.tick_params(axis="y", labelsize=LABEL_SIZE, length=0)
    axis.grid(visible=False, axis="y")


def _dots(axis: Axes, ways: Sequence[dict[str, Any]], colours: Mapping[str, str]) -> None:
    """Error of the gradient against the time; left and low is better. Thin lines join a way's other tolerances.

    A library's name stands at its fastest way; the bars beside name all of them in the same colours.
    """
    fastest = {way["peer"]: way["way"] for way in sorted(ways, key=lambda way: -way["median"])}
    for index, way in enumerate(sorted(ways, key=lambda way: way["gradient_error"])):
        sweep = [(1e3 * point["seconds"], point["gradient_error"]) for point in way.get("sweep") or []]
        if sweep:
            axis.plot(*zip(*sweep, strict=True), color=colours[way["peer"]], linewidth=0.6, alpha=0.5)
        place = 1e3 * way["median"], way["gradient_error"]
        axis.plot(*place, "o", color=colours[way["peer"]], markersize=4)
        if fastest[way["peer"]] == way["way"]:
            above = 3 if index % 2 else -7  # by turns, so that neighbours keep apart
            axis.annotate(_name(way["peer"]), place, (4, above), textcoords="offset points", size=LABEL_SIZE)
    axis.set(xscale="log", yscale="log", xlabel="ms per training step", ylabel="relative error of the gradient")
    axis.set_xlim(axis.get_xlim()[0], 3 * axis.get_xlim()[1])  # room for the words
    plotting.plain_log_ticks(axis, "x")


def _label(way: dict[str, Any]) -> str:
    return f"{_name(way['peer'])} {way['way'].replace('_', ' ')}"
