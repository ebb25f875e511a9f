"""What the published benchmarks say: one reader of pytest-benchmark's files for all tables made from them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from repro.experiment import Judgement
from repro.measuring.fits import crossover

Measured = Any
"""What a subject's `load` gives: a table, or a list of entries, with a machine each; empty where nothing was."""


@dataclass(frozen=True)
class MeasuredClaim:
    """A sentence of a paper that a benchmark judges, with what it says of it, and by which rule."""

    id: str
    statement: str
    source: str
    judgement: Judgement
    rule: str


MADE = "made by"
"""What an entry says of its origin."""


def entries(folder: Path, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read results/benchmarks/: machine and entry of every benchmark whose `extra_info` has a key.

    An entry says under `MADE` with which commit it was measured, and when, as far as its file does.
    """
    for path in sorted(folder.glob("*/*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        commit, day = made_by(content)
        made = ", ".join(filter(None, (commit and f"commit {commit}", day)))
        for benchmark in content["benchmarks"]:
            if key in benchmark["extra_info"]:
                yield path.parent.name, benchmark | {MADE: made}


def origins(folder: Path, key: str) -> str:
    """With which commits, and when, each machine measured what has a key in `extra_info`, in one sentence."""
    made: dict[str, dict[str, None]] = {}
    for machine, benchmark in entries(folder, key):
        made.setdefault(machine, {})[benchmark[MADE]] = None
    parts = [f"{machine} ({', '.join(found)})" for machine, found in made.items() if any(found)]
    return f"Measured on {'; '.join(parts)}." if parts else ""


def made_by(content: Mapping[str, Any]) -> tuple[str, str]:
    """Commit and day of a file of pytest-benchmark's, each empty where it does not say."""
    suite = (content.get("machine_info") or {}).get("suite") or {}
    commit = str(suite.get("commit") or "")[:10]
    return commit + (" and changes" if commit and suite.get("dirty") else ""), str(content.get("datetime") or "")[:10]


def machines(found: Measured) -> list[str]:
    """The machines that measured something, in the files' order."""
    names = found["machine"] if isinstance(found, pd.DataFrame) else (entry["machine"] for entry in found)
    return list(dict.fromkeys(names))


def of_machine(found: Measured, machine: str) -> Measured:
    """What one machine measured."""
    if isinstance(found, pd.DataFrame):
        return found[found["machine"] == machine]
    return [entry for entry in found if entry["machine"] == machine]


def first_machine(cells: pd.DataFrame) -> pd.DataFrame:
    """What the first machine measured: one picture, one sentence and one verdict are of one machine."""
    return cells[cells["machine"] == cells["machine"].iloc[0]]


def done_by_first(cells: pd.DataFrame) -> pd.DataFrame:
    """The same without its failures."""
    own = first_machine(cells)
    return own[own["status"] == "ok"]


OVERHEAD = "overhead-bound (twice the batch)"
"""The column of `overhead`."""


def overhead(known: Mapping[str, Any]) -> str:
    """Whether an entry's step is bound by overhead, and how much longer an evaluation takes at twice the batch."""
    ratio = known.get("batch_doubling")
    if ratio is None or ratio != ratio:  # noqa: PLR0124 (NaN, as a table has it)
        return ""
    return f"{'yes' if known['overhead_bound'] else 'no'} ({ratio:.2f})"


def without_empty(table: pd.DataFrame, *optional: str) -> pd.DataFrame:
    """Leave out those of the optional columns in which nothing was measured, as in files from before there were any."""
    return table.drop(columns=[name for name in optional if not table[name].astype(bool).any()])


def crossover_of(cells: pd.DataFrame, cost: str, dear: str, cheap: str) -> float | None:
    """From which `value` on one way's cost exceeds another's, among what worked; None where that is not known.

    Args:
        cells: With the columns `value`, `way`, `status` and the cost.
        cost: A column.
        dear: A way.
        cheap: Another.
    """
    done = cells[cells["status"] == "ok"]
    table = done.pivot_table(index="value", columns="way", values=cost, aggfunc="first").sort_index()
    if not {dear, cheap} <= set(table.columns):
        return None
    table = table[[dear, cheap]].dropna().astype(float)
    return crossover(table.index.tolist(), table[dear].tolist(), table[cheap].tolist())


def sentence(parts: Iterable[str]) -> str:
    """Join what was found into one sentence; empty where nothing was."""
    text = "; ".join(part for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
