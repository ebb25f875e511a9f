"""How far the suite is ahead of other libraries on the same training steps, like beside like, and where it is not."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from repro.report.benchmarks import MADE, sentence
from repro.report.peers import OURS, REFERENCE, is_right, is_timed, milliseconds

COLUMNS = (
    "machine",
    "workload",
    "its fastest way",
    "torchdiffeq's adjoint",
    "adjoint by adjoint",
    "backprop by backprop",
    "at the adjoint's error",
    "fastest other",
)


def ahead(ways: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """How many times as long others take for the same training step.

    In the compiled engine's fastest way on each workload, beside torchdiffeq's adjoint and the fastest way of any other
    library; between them like beside like, and what the adjoint's error costs in the suite's fastest way to it. A way
    whose gradient is wrong has no part in it, and what was not measured is "-".

    Args:
        ways: As `load_peers` gives them.
    """
    return pd.DataFrame(_lines(ways), columns=pd.Index(COLUMNS))


def finding(ways: Sequence[dict[str, Any]]) -> str:
    """Between which ratios a machine's workloads lie."""
    found = list(_compared(ways))
    if not found:
        return ""
    adjoint = [fastest["speedup"] for fastest, _ in found]
    others = [fastest["speedup"] / other["speedup"] for fastest, other in found]
    made = f" ({found[0][0][MADE]})" if found[0][0][MADE] else ""
    told = f"a training step by the compiled engine, in its fastest way, is {_span(adjoint)} times as fast as by "
    told += f"torchdiffeq's adjoint and {_span(others)} times as fast as by the fastest other library, over "
    return sentence([f"{told}{len(found)} {'workload' if len(found) == 1 else 'workloads'}{made}"])


def _span(ratios: Iterable[float]) -> str:
    low, high = (f"{ratio:.3g}" for ratio in (min(ratios), max(ratios)))
    return low if low == high else f"{low} to {high}"


def _compared(ways: Sequence[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    """Of every machine and workload the suite's fastest way and the fastest other."""
    timed = [way for way in ways if is_timed(way) and is_right(way)]
    for place in dict.fromkeys((way["machine"], way["workload"]) for way in timed):
        here = [way for way in timed if (way["machine"], way["workload"]) == place]
        own, others = ([way for way in here if (way["peer"] == OURS) is ours] for ours in (True, False))
        if own and others:
            fastest, other = (max(some, key=lambda way: way["speedup"]) for some in (own, others))
            yield fastest, other


def _lines(ways: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    by_place = {
        (way["machine"], way["workload"], way["peer"], way["way"]): way
        for way in ways
        if is_timed(way) and is_right(way)
    }
    lines = []
    for fastest, other in _compared(ways):
        machine, workload = fastest["machine"], fastest["workload"]
        own, theirs = (
            {way: found for (*place, way), found in by_place.items() if place == [machine, workload, peer]}
            for peer in (OURS, REFERENCE[0])
        )
        alike = [
            f"{theirs[name]['median'] / own[name]['median']:.3g}" if name in own and name in theirs else "-"
            for name in ("adjoint", "backprop")
        ]
        lines.append(
            (
                machine,
                workload,
                f"{fastest['way']}, {milliseconds(fastest['median'])} ms",
                f"{fastest['speedup']:.3g}",
                *alike,
                _at_equal_error(own.values(), theirs.get("adjoint")),
                f"{fastest['speedup'] / other['speedup']:.3g} ({other['peer']} {other['way']})",
            )
        )
    return lines


def _at_equal_error(own: Iterable[dict[str, Any]], adjoint: dict[str, Any] | None) -> str:
    """By how much the suite's fastest way is faster than torchdiffeq's adjoint for a gradient as exact."""
    times = [(way["seconds_at_equal_error"], way["equal_error"]) for way in own if way.get("seconds_at_equal_error")]
    if adjoint is None or not times:
        return "-"
    seconds, how = min(times)
    return f"{'≥ ' if how == 'at most' else ''}{adjoint['median'] / seconds:.3g}"
