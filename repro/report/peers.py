"""The same training steps in several libraries: a table of all ways, and a picture of what they cost and give."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from repro import plotting
from repro.report.benchmarks import MADE, OVERHEAD, entries, overhead, without_empty

SHARES = "where its time goes"
COLUMNS = (
    "machine",
    "workload",
    "threads",
    "library",
    "way",
    "time",
    "speed-up",
    "over its backprop",
    "NFE forward / backward",
    "loss error",
    "gradient error",
    "errors against float64 at",
    "time at the adjoint's error",
    "first call",
    OVERHEAD,
    SHARES,
    "why not",
)
OURS = "neural-ode-ffjord-suite"
"""This package, which tables and figures call by what it is to their readers."""

LABEL_SIZE = 6.5
"""Points; of what is written beside dots."""

KINDS = {
    "adjoint, solved back": ("adjoint", "backsolve"),
    "steps replayed": ("checkpoint",),
}
"""How a way gets its gradient -> what its name has in it."""
OTHER = "through the solver"
MARKERS = {OTHER: "s", **dict(zip(KINDS, ("o", "^"), strict=True))}
"""Of the dots, by how a way gets its gradient."""
WRONG = 0.5
"""The relative error from which on a gradient is wrong. An ODE-Net's, whose ReLUs cost the solver its order, is off by
up to a quarter at the papers' tolerance in every library."""
REFERENCE = ("torchdiffeq", "backprop")
"""Library and way that the second ratio is taken to."""


def load_peers(folder: Path) -> list[dict[str, Any]]:
    """Read results/benchmarks/: what is known of each way, with `machine`, `median` and `iqr`, in the files' order."""
    return [
        {
            "machine": machine,
            MADE: benchmark[MADE],
            **benchmark["extra_info"],
            **{key: benchmark["stats"][key] for key in ("median", "iqr")},
        }
        for machine, benchmark in entries(folder, "peer")
    ]


def peers(ways: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One line for each way to take each step; a way without times says why.

    Times are medians with half the interquartile range of interleaved steps, without the first call, in which diffrax
    compiles; the suite's native code was compiled before and kept on disk, and is in no figure here. Speed-ups are over
    torchdiffeq's adjoint in the same run, and beside them over its backprop; a way whose gradient is wrong has none.
    This suite's ways are those of its compiled engine; its reference engine is torchdiffeq. On the planar CNF the suite
    takes the trace in closed form, as its users do, where the others differentiate. Errors are against float64 at a far
    smaller tolerance, that of the gradient relative over all parameters. The time at the adjoint's error is
    interpolated between runs at several tolerances; it is what the way takes for a gradient as exact as that of
    torchdiffeq's adjoint. Where a machine's figures are of another day than another's, so may the suite be. Of the
    suite's ways it is told where a step's time goes under torch's profiler, whose own cost counts as Python; of the
    adjoint it is also said, where that was measured, whether it is bound by overhead: whether at twice the batch an
    evaluation takes less than 1.25 times as long.
    """
    reference = {(w["machine"], w["workload"]): w for w in ways if (w["peer"], w["way"]) == REFERENCE}
    lines = [_line(way, reference.get((way["machine"], way["workload"]))) for way in ways]
    return without_empty(pd.DataFrame(lines, columns=pd.Index(COLUMNS)), OVERHEAD, SHARES)


def _line(way: dict[str, Any], backprop: dict[str, Any] | None) -> dict[str, str]:
    done, right = is_timed(way), is_timed(way) and is_right(way)
    second = right and backprop is not None and is_timed(backprop)
    wrong = f"its gradient is wrong: relative error {way['gradient_error']:.2g}" if done and not right else ""
    tolerance = way.get("reference_tolerance")
    values = (
        way["machine"],
        way["workload"],
        str(way["threads"]),
        _library(way),
        way["way"],
        f"{milliseconds(way['median'])} ± {1e3 * way['iqr'] / 2:.2g} ms" if done else "-",
        f"{way['speedup']:.2f}" if right else "-",
        f"{backprop['median'] / way['median']:.2f}" if second and backprop is not None else "-",
        f"{way['nfe_forward']} / {way['nfe_backward']}" if done else "-",
        f"{way['loss_error']:.1e}" if done else "-",
        f"{way['gradient_error']:.1e}" if done else "-",
        f"{tolerance:.0e}".replace("e-0", "e-") if done and tolerance else "-",
        _at_equal_error(way) if right else "-",
        f"{way['first_call']:.2g} s" if done else "-",
        overhead(way),
        _shares(way),
        wrong if done else way["status"],
    )
    return dict(zip(COLUMNS, values, strict=True))


def _shares(way: dict[str, Any]) -> str:
    """Where a step's time goes; autograd's functions of the suite are Python too, but for what they call."""
    parts: dict[str, float] = {}
    for name, share in way.get("shares", ()):
        named = "Python" if name.startswith("_") else name.removeprefix("aten::")
        parts[named] = parts.get(named, 0.0) + share
    return ", ".join(f"{name} {share:.0%}" for name, share in sorted(parts.items(), key=lambda item: -item[1]))


def is_timed(way: dict[str, Any]) -> bool:
    """Whether the way has times."""
    return way["status"] == "ok"


def is_right(way: dict[str, Any]) -> bool:
    """Whether the gradient of a timed way is that of the loss: not off by more than half of it."""
    return way["gradient_error"] < WRONG


def _library(way: dict[str, Any]) -> str:
    return _name(way["peer"]) if way["version"] == "n/a" else f"{_name(way['peer'])} {way['version']}"


def _name(peer: str) -> str:
    return "this suite (compiled)" if peer == OURS else peer


def milliseconds(seconds: float) -> str:
    """A time by three digits at most, but for thousands."""
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def _at_equal_error(way: dict[str, Any]) -> str:
    seconds, how = way.get("seconds_at_equal_error"), way["equal_error"]
    if seconds is None:
        return how
    return f"{'≤ ' if how == 'at most' else ''}{milliseconds(seconds)} ms"


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
        _times(left, chosen, colours)
        _errors(right, chosen, colours)
    _legend(figure, colours)
    return figure


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def _style(way: dict[str, Any], colours: Mapping[str, str]) -> dict[str, Any]:
    """Colour by library, marker by the kind of its gradient."""
    return {"color": colours[way["peer"]], "marker": MARKERS[_kind(way["way"])], "linestyle": "none", "markersize": 5}


def _kind(way: str) -> str:
    return next((kind for kind, names in KINDS.items() if any(name in way for name in names)), OTHER)


def _times(axis: Axes, ways: Sequence[dict[str, Any]], colours: Mapping[str, str]) -> None:
    """Time of a step, the fastest on top, with the ratio to torchdiffeq's adjoint."""
    ordered = sorted(ways, key=lambda way: -way["median"])
    for index, way in enumerate(ordered):
        time = 1e3 * way["median"]
        axis.errorbar(time, index, xerr=500 * way["iqr"], elinewidth=0.8, **_style(way, colours))
        told = f"{way['speedup']:.3g}x" if is_right(way) else "wrong gradient"
        axis.annotate(told, (time, index), (7, 0), textcoords="offset points", va="center", size=LABEL_SIZE)
    times = [1e3 * way["median"] for way in ordered]
    axis.set_yticks(range(len(ordered)), [_label(way) for way in ordered])
    axis.set(xscale="log", xlabel="ms per training step", xlim=(min(times) / 1.5, 2.2 * max(times)))
    plotting.plain_log_ticks(axis, "x")
    axis.tick_params(axis="y", labelsize=LABEL_SIZE, length=0)


def _errors(axis: Axes, ways: Sequence[dict[str, Any]], colours: Mapping[str, str]) -> None:
    """Error of the gradient against the time; left and low is better. Thin lines join a way's other tolerances."""
    for way in ways:
        sweep = [(1e3 * point["seconds"], point["gradient_error"]) for point in way.get("sweep") or []]
        if sweep:
            axis.plot(*zip(*sweep, strict=True), color=colours[way["peer"]], linewidth=0.6, alpha=0.5)
        axis.plot(1e3 * way["median"], way["gradient_error"], **_style(way, colours))
    axis.set(xscale="log", yscale="log", xlabel="ms per training step", ylabel="relative error of the gradient")
    plotting.plain_log_ticks(axis, "x")


def _legend(figure: Figure, colours: Mapping[str, str]) -> None:
    libraries = [Line2D([], [], color=colour, linewidth=3, label=_name(peer)) for peer, colour in colours.items()]
    kinds = [
        Line2D([], [], color="0.3", marker=marker, linestyle="none", markersize=5, label=kind)
        for kind, marker in MARKERS.items()
    ]
    figure.legend(handles=[*libraries, *kinds], loc="outside upper center", ncols=5, fontsize=7.5)


def _label(way: dict[str, Any]) -> str:
    return f"{_name(way['peer'])} {way['way'].replace('_', ' ')}"
