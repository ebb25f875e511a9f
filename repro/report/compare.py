"""Two sets of benchmarks or runs, figure by figure: what changed, by how much, and whether for the worse.

How a figure is judged depends on its kind: times by their ratio, and only where the quartiles are apart too; counts by
a relative difference, none by default; errors, which rounding moves, by their ratio; a run's other metrics by a
relative difference. Of times on two machines nothing is concluded.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from repro.report.measured import CompareError, Entry, Figure, Measured

COLUMNS = ("entry", "figure", "kind", "unit", "a", "b", "change", "verdict", "outcome")
"""`change` is b/a for times and errors, b - a for counts, (b - a)/|a| for metrics; `outcome` is `same`, `worse`,
`better`, `new` (only in B) or `unjudged` (a time on another machine)."""

LOWER_IS_BETTER = frozenset({"bytes", "error", "errors", "gap", "kl", "nfe", "nll", "rmse"})
"""Words in the names of metrics; FIXED takes those back whose value is a property of the data or of an estimate."""

FIXED = frozenset({"floor", "gaussian", "images"})
COUNTED = {"nfe": "evaluations", "saved": "saved bytes", "flops": "flops", "n": "steps"}
"""What a count counts, by its name's first word."""


@dataclass(frozen=True)
class Limits:
    """How much is a change: the ratio that a time must exceed, and so on; see the module's docstring."""

    time_factor: float = 1.25
    count_tolerance: float = 0.0
    error_factor: float = 2.0
    metric_tolerance: float = 1e-3


@dataclass(frozen=True)
class Pair:
    """An entry of A and the entry of B of the same name; None where a side has none."""

    name: str
    a: Entry | None
    b: Entry | None


# --- joining ---------------------------------------------------------------------------------------------------------


def join(a: Measured, b: Measured) -> list[Pair]:
    """Find the entries that belong together, by the shortest of their names that is unique on both sides.

    Two single runs belong together whatever their names are.

    Raises:
        CompareError: If a side has two entries that nothing tells apart.
    """
    if a.single and b.single:
        names = dict.fromkeys(entry.names[0] for entry in (*a.entries, *b.entries))
        return [Pair(" / ".join(names), a.entries[0], b.entries[0])]
    counts = _counts(a.entries) | _counts(b.entries)
    first, second = ({_name(entry, counts): entry for entry in side.entries} for side in (a, b))
    return [Pair(name, first.get(name), second.get(name)) for name in dict.fromkeys((*first, *second))]


def _counts(entries: Sequence[Entry]) -> Counter[str]:
    return Counter(name for entry in entries for name in entry.names)


def _name(entry: Entry, counts: Counter[str]) -> str:
    for name in entry.names:
        if counts[name] == 1:
            return name
    raise CompareError(f"{entry.place}: nothing tells two entries {entry.names[-1]} apart")


def warnings(pairs: Sequence[Pair]) -> list[str]:
    """What a reader must know before believing a comparison, one line each: other machines, other settings."""
    both = [(pair.name, pair.a, pair.b) for pair in pairs if pair.a is not None and pair.b is not None]
    machines = dict.fromkeys(filter(None, (machine_difference(a, b) for _, a, b in both)))
    lines = [f"the machines differ ({text}): times are shown, not judged" for text in machines]
    lines += [f"two different runs: {name}" for name, a, b in both if a.names[0] != b.names[0]]
    settings = [f"{name} ({a.digest}, {b.digest})" for name, a, b in both if a.digest != b.digest]
    return lines + [f"other settings, by the digest: {'; '.join(settings)}"] * bool(settings)


def machine_difference(a: Entry, b: Entry) -> str:
    """What differs between two machines, as "threads: 2, 1"; empty where times may be compared."""
    if a.machine["machine"] is None or b.machine["machine"] is None:
        return "which ones they were is not recorded"
    keys = [key for key in a.machine if a.machine[key] != b.machine[key]]
    return "; ".join(f"{key}: {a.machine[key] or 'none'} and {b.machine[key] or 'none'}" for key in keys)


# --- judging ---------------------------------------------------------------------------------------------------------


def compare(pairs: Sequence[Pair], limits: Limits) -> pd.DataFrame:
    """Compare all figures: a line each, in A's order; an entry that a side lacks is one line without figure."""
    return pd.DataFrame([line for pair in pairs for line in _lines(pair, limits)], columns=pd.Index(COLUMNS))


def _lines(pair: Pair, limits: Limits) -> Iterator[tuple[Any, ...]]:
    if pair.a is None or pair.b is None:
        yield pair.name, "", "entry", "", None, None, math.nan, *_lacking(pair.b)
        return
    a, b, elsewhere = pair.a.figures, pair.b.figures, bool(machine_difference(pair.a, pair.b))
    ended_alike = a.get("status", OK) == b.get("status", OK)  # else the other figures say nothing
    for name in dict.fromkeys((*a, *b)) if ended_alike else ("status",):
        old, new = a.get(name), b.get(name)
        if old is None or new is None:
            known, judged = old or new or OK, (math.nan, *_lacking(new))
        else:
            known, judged = old, _judge(name, old, new, limits)
        if elsewhere and known.kind == "time":
            judged = _unjudged(judged)
        yield pair.name, name, known.kind, known.unit, old and old.value, new and new.value, *judged


OK = Figure("status", "ok")
Judged = tuple[float, str, str]
"""Change, verdict and outcome."""

UNCHANGED = {"time": 1.0, "error": 1.0, "count": 0.0, "metric": 0.0, "status": math.nan}


def _lacking(new: object) -> tuple[str, str]:
    return ("only in A", "worse") if new is None else ("only in B", "new")


def _unjudged(judged: Judged) -> Judged:
    change, verdict, outcome = judged
    return judged if outcome == "same" else (change, f"{verdict}, another machine", "unjudged")


def _judge(name: str, old: Figure, new: Figure, limits: Limits) -> Judged:
    a, b = old.value, new.value
    if a == b or (_is_nan(a) and _is_nan(b)):
        return UNCHANGED[old.kind], "same", "same"
    if old.kind == "status":
        return (math.nan, "no longer ok", "worse") if a == "ok" else _otherwise(b)
    if isinstance(a, str) or isinstance(b, str) or _is_nan(a) or _is_nan(b):
        return math.nan, "differs", "worse"
    change, changed = _change(old, new, a, b, limits)
    if not changed:
        return change, "same", "same"
    up, down, known = _words(name, old)
    return change, up if b > a else down, "better" if known and b < a else "worse"


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _otherwise(status: object) -> Judged:
    return (math.nan, "ok now", "better") if status == "ok" else (math.nan, "differs", "worse")


def _change(old: Figure, new: Figure, a: float | int, b: float | int, limits: Limits) -> tuple[float, bool]:
    if old.kind in ("time", "error"):
        factor = limits.time_factor if old.kind == "time" else limits.error_factor
        ratio = b / a if a else math.inf
        return ratio, (ratio > factor or ratio < 1 / factor) and not (old.kind == "time" and _overlap(old, new))
    relative = (b - a) / abs(a) if a and math.isfinite(a) else math.copysign(math.inf, b - a)
    if old.kind == "count":
        return float(b - a), abs(relative) > limits.count_tolerance
    return relative, abs(relative) > limits.metric_tolerance


def _overlap(old: Figure, new: Figure) -> bool:
    """Whether the ranges from quartile to quartile meet; a time taken once has none, and its ratio decides."""
    if old.low is None or old.high is None or new.low is None or new.high is None:
        return False
    return old.low <= new.high and new.low <= old.high


def _words(name: str, figure: Figure) -> tuple[str, str, bool]:
    """Verdicts on more and on less, and whether less is known to be better."""
    words = set(name.split("_"))
    if figure.kind == "time":
        return ("slower", "faster", True) if figure.unit == "s" else ("more memory", "less memory", True)
    if figure.kind == "count":
        noun = COUNTED[name.partition("_")[0]]
        return f"more {noun}", f"fewer {noun}", True
    if figure.kind == "error":
        return "larger error", "smaller error", True
    known = not words.isdisjoint(LOWER_IS_BETTER) and words.isdisjoint(FIXED)
    return ("worse", "better", True) if known else ("differs", "differs", False)
