"""How far the suite is ahead of other libraries on the same training steps, like beside like, and where it is not."""

from collections.abc import Iterator, Sequence
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
    return pd.DataFrame([_line(own, others) for own, others in _rivals(ways)], columns=pd.Index(COLUMNS))


def finding(ways: Sequence[dict[str, Any]]) -> str:
    """Between which ratios a machine's workloads lie."""
    found = [(_fastest(own), _fastest(others)) for own, others in _rivals(ways)]
    if not found:
        return ""
    adjoint = [fastest["speedup"] for fastest, _ in found]
    beside = [fastest["speedup"] / other["speedup"] for fastest, other in found]
    made = f" ({found[0][0][MADE]})" if found[0][0][MADE] else ""
    told = f"a training step by the compiled engine, in its fastest way, is {_span(adjoint)} times as fast as by "
    told += f"torchdiffeq's adjoint and {_span(beside)} times as fast as by the fastest other library, over "
    return sentence([f"{told}{len(found)} {'workload' if len(found) == 1 else 'workloads'}{made}"])


def _span(ratios: Sequence[float]) -> str:
    low, high = (f"{ratio:.3g}" for ratio in (min(ratios), max(ratios)))
    return low if low == high else f"{low} to {high}"


Ways = list[dict[str, Any]]


def _rivals(ways: Sequence[dict[str, Any]]) -> Iterator[tuple[Ways, Ways]]:
    """The suite's ways and the others', of every machine and workload where both have a right gradient."""
    places: dict[tuple[str, str], Ways] = {}
    for way in ways:
        if is_timed(way) and is_right(way):
            places.setdefault((way["machine"], way["workload"]), []).append(way)
    for here in places.values():
        own, others = ([way for way in here if (way["peer"] == OURS) is ours] for ours in (True, False))
        if own and others:
            yield own, others


def _fastest(ways: Ways) -> dict[str, Any]:
    return max(ways, key=lambda way: way["speedup"])


def _line(own: Ways, others: Ways) -> tuple[str, ...]:
    fastest, other = _fastest(own), _fastest(others)
    ours, theirs = {way["way"]: way for way in own}, {way["way"]: way for way in others if way["peer"] == REFERENCE[0]}
    alike = [
        f"{theirs[name]['median'] / ours[name]['median']:.3g}" if name in ours and name in theirs else "-"
        for name in ("adjoint", "backprop")
    ]
    return (
        fastest["machine"],
        fastest["workload"],
        f"{fastest['way']}, {milliseconds(fastest['median'])} ms",
        f"{fastest['speedup']:.3g}",
        *alike,
        _at_equal_error(own, theirs.get("adjoint")),
        f"{fastest['speedup'] / other['speedup']:.3g} ({other['peer']} {other['way']})",
    )


def _at_equal_error(own: Ways, adjoint: dict[str, Any] | None) -> str:
    """By how much the suite's fastest way is faster than torchdiffeq's adjoint for a gradient as exact."""
    times = [(way["seconds_at_equal_error"], way["equal_error"]) for way in own if way.get("seconds_at_equal_error")]
    if adjoint is None or not times:
        return "-"
    seconds, how = min(times)
    return f"{'≥ ' if how == 'at most' else ''}{adjoint['median'] / seconds:.3g}"
