"""What the published benchmarks say: one reader of pytest-benchmark's files for all tables made from them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from repro.experiment import Judgement

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

    An entry says under `MADE` with which commit it was measured, and when, as far as its file does. Files that
    `find_unclean_files` names are left out.
    """
    for path, content in _contents(folder):
        if describe_unclean(content) and not _is_local(folder):
            continue
        commit, day = made_by(content)
        made = ", ".join(filter(None, (commit and f"commit {commit}", day)))
        for benchmark in content["benchmarks"]:
            if key in benchmark["extra_info"]:
                yield path.parent.name, benchmark | {MADE: made}


def find_unclean_files(folder: Path) -> dict[Path, str]:
    """Find published benchmark files that no commit can give again, each with what is wrong with it.

    A reader can't know the code behind such a file. In a user's results/local/ it is shown, with its commit and "and
    changes".
    """
    if _is_local(folder):
        return {}
    return {path: problem for path, content in _contents(folder) if (problem := describe_unclean(content))}


def describe_unclean(content: Mapping[str, Any]) -> str:
    """Say why a file of pytest-benchmark's is not from a clean commit; empty where it is, or does not say.

    As for runs, changes below results/ alone don't count: they are not code.
    """
    suite = (content.get("machine_info") or {}).get("suite") or {}
    if suite.get("dirty"):
        return f"measured with changes after commit {str(suite['commit'])[:10]}"
    return "measured without a commit" if "commit" in suite and not suite["commit"] else ""


def _contents(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(folder.glob("*/*.json")):
        yield path, json.loads(path.read_text(encoding="utf-8"))


def _is_local(folder: Path) -> bool:
    return folder.parent.name == "local"


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


UNMEASURED = "Not measured from a clean commit."
"""Of a published subject of which no benchmark file counts."""
NOT_CLEAN = Judgement("not attempted", "not measured from a clean commit")
"""On a claim that such a subject judges."""


def machines(found: Measured) -> list[str]:
    """The machines that measured something, in the files' order."""
    if isinstance(found, pd.DataFrame):
        names = found["machine"] if len(found) else []
    else:
        names = (entry["machine"] for entry in found)
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


@dataclass(frozen=True)
class Bracket:
    """Between which two measured values a cost begins to exceed another.

    Attributes:
        last: The largest value up to which it is not shown to; None where it exceeds the other at every value.
        first: The least value from which on it does at every value.
    """

    last: float | None
    first: float

    def __str__(self) -> str:
        return f"{self.first:g}" if self.last is None else f"between {self.last:g} and {self.first:g}"


def bracket_of(
    cells: pd.DataFrame, cost: str, dear: str, cheap: str, ends: tuple[str, str] | None = None
) -> Bracket | None:
    """Find between which values one way's cost begins to exceed another's; None where it does not at the largest.

    Args:
        cells: With the columns `value`, `way`, `status`, the cost and the ends; what failed is left out.
        cost: A column.
        dear: A way.
        cheap: Another.
        ends: Columns of the cost's lower and upper quartiles: a cost exceeds another where they don't overlap.
    """
    done = cells[cells["status"] == "ok"]
    low, high = ends or (cost, cost)
    above = done[done["way"] == dear].drop_duplicates("value").set_index("value")[low].astype(float)
    below = done[done["way"] == cheap].drop_duplicates("value").set_index("value")[high].astype(float)
    exceeds = (above - below).dropna().sort_index() > 0
    since = next((value for value in exceeds.index if exceeds.loc[value:].all()), None)
    if since is None:
        return None
    before = exceeds.index[exceeds.index < since]
    return Bracket(float(before[-1]) if len(before) else None, float(since))


def sentence(parts: Iterable[str]) -> str:
    """Join what was found into one sentence; empty where nothing was."""
    text = "; ".join(part for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
