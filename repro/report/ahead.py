"""How far the suite is ahead of other libraries on the same training steps, like beside like, and where it is not."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from repro.report.benchmarks import MADE, sentence
from repro.report.peers import OURS, REFERENCE, is_right, is_timed, milliseconds

ALIKE = {"adjoint by adjoint": "adjoint", "backprop by backprop": "backprop"}
"""Columns that set like beside like -> the method."""
PLANAR = (
    "on the planar CNF the PyTorch libraries evaluate the public example's field, unit by unit, and its trace by "
    "autograd, the suite a matrix product and a closed form"
)
"""What the ratios on that workload rest on beside the libraries."""
COLUMNS = (
    "machine",
    "workload",
    *ALIKE,
    "at the adjoint's error",
    "its fastest way",
    "torchdiffeq's adjoint",
    "fastest other",
)


def ahead(ways: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """How many times as long others take for the same training step.

    Like beside like first: torchdiffeq by the same method as the compiled engine. Then what the adjoint's error costs
    in the suite's fastest way to it, and the compiled engine's fastest way beside torchdiffeq's adjoint and the fastest
    way of any other library. A way whose gradient is wrong has no part in it, and what was not measured is "-".

    Args:
        ways: As `load_peers` gives them.
    """
    return pd.DataFrame([_line(own, others) for own, others in _rivals(ways)], columns=pd.Index(COLUMNS))


def finding(ways: Sequence[dict[str, Any]]) -> str:
    """Between which ratios a machine's workloads lie: like beside like, then the fastest ways."""
    rivals = list(_rivals(ways))
    found = [(_fastest(own), _fastest(others)) for own, others in rivals]
    if not found:
        return ""
    adjoint = [fastest["speedup"] for fastest, _ in found]
    beside = [fastest["speedup"] / other["speedup"] for fastest, other in found]
    made = f" ({found[0][0][MADE]})" if found[0][0][MADE] else ""
    like = [
        f"{_span(ratios)} times as fast as torchdiffeq's by {method} ({_workloads(len(ratios))})"
        for method in ALIKE.values()
        if (ratios := [ratio for own, others in rivals if (ratio := _alike(own, others, method))])
    ]
    text = f"a training step by the compiled engine is {' and '.join(like)}" if like else ""
    lead = "in its fastest way it" if like else "a training step by the compiled engine, in its fastest way,"
    fastest = f"{lead} is {_span(adjoint)} times as fast as by torchdiffeq's adjoint and {_span(beside)} times as fast "
    fastest += f"as by the fastest other library ({_workloads(len(found))})"
    planar = any(own[0]["workload"].startswith("planar") for own, _ in rivals)
    return sentence([text, f"{fastest}{f'; {PLANAR}' if planar else ''}{made}"])


def _workloads(count: int) -> str:
    return f"{count} {'workload' if count == 1 else 'workloads'}"


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
    alike = [_alike(own, others, method) for method in ALIKE.values()]
    return (
        fastest["machine"],
        fastest["workload"],
        *(f"{ratio:.3g}" if ratio else "-" for ratio in alike),
        _at_equal_error(own, _of_torchdiffeq(others).get("adjoint")),
        f"{fastest['way']}, {milliseconds(fastest['median'])} ms",
        f"{fastest['speedup']:.3g}",
        f"{fastest['speedup'] / other['speedup']:.3g} ({other['peer']} {other['way']})",
    )


def _alike(own: Ways, others: Ways, method: str) -> float | None:
    """How many times as long torchdiffeq takes by the same method; None where one of both was not measured."""
    ours, theirs = {way["way"]: way for way in own}, _of_torchdiffeq(others)
    return theirs[method]["median"] / ours[method]["median"] if method in ours and method in theirs else None


def _of_torchdiffeq(others: Ways) -> dict[str, dict[str, Any]]:
    return {way["way"]: way for way in others if way["peer"] == REFERENCE[0]}


def _at_equal_error(own: Ways, adjoint: dict[str, Any] | None) -> str:
    """By how much the suite's fastest way is faster than torchdiffeq's adjoint for a gradient as exact."""
    times = [(way["seconds_at_equal_error"], way["equal_error"]) for way in own if way.get("seconds_at_equal_error")]
    if adjoint is None or not times:
        return "-"
    seconds, how = min(times)
    return f"{'≥ ' if how == 'at most' else ''}{adjoint['median'] / seconds:.3g}"
