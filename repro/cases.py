"""Claims of several cases: what the runs of the cells they need say, and what is missing.

A sweep of which one cell ended and the rest diverged must not read "reproduced": a claim is reproduced only by all the
cells it is about. Cells that are compared are compared seed by seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import pandas as pd

from repro.experiment import NOT_ATTEMPTED, Judgement, Verdict
from repro.results import curve, failures, final_values, mean_pair, seed_pairs

T = TypeVar("T")


@dataclass(frozen=True)
class Cases(Generic[T]):
    """What the runs say of each case of a claim.

    Attributes:
        found: by the case's name, in the claim's order; cases without the successful runs they need are left out.
        expected: how many cases the claim is about.
        failures: how the runs ended that failed, as "1 diverged; 2 budget"; empty where none did.
        tried: whether every cell of every case has been run, with or without success.
        note: what the numbers behind the verdict are of; it ends the evidence.
    """

    found: Mapping[str, T]
    expected: int
    failures: str
    tried: bool
    note: str = ""

    def judged(self, verdict: Verdict, evidence: str) -> Judgement:
        """A verdict on the cases found, at most "partly" if some are missing; the evidence counts what is not there.

        Without any case the claim is not attempted, or not reproduced if all its cells ran and too many failed.

        Args:
            verdict: that on the cases found; not read if there is none.
            evidence: the numbers behind it.
        """
        ending = f"; failed runs: {self.failures}" if self.failures else ""
        evidence += f"; {self.note}" if self.note else ""
        if not self.found:
            text = f"0 of {self.expected} cases have the runs they need{ending}" if ending else NOT_ATTEMPTED.evidence
            return Judgement("not reproduced" if self.tried else "not attempted", text)
        if len(self.found) == self.expected:
            return Judgement(verdict, evidence + ending)
        return Judgement(at_most_partly(verdict), f"{evidence}; {len(self.found)} of {self.expected} cases{ending}")


def at_most_partly(verdict: Verdict) -> Verdict:
    """The verdict of a claim that can't be called reproduced, whatever its numbers say."""
    return "partly" if verdict == "reproduced" else verdict


def cases(
    rows: pd.DataFrame, experiment: str, needed: Mapping[str, Sequence[str]], read: Callable[..., T | None]
) -> Cases[T]:
    """Read the cases of a claim.

    Args:
        rows: as `repro.results.load` gives them.
        experiment: the experiment's name.
        needed: the cells that each case needs.
        read: turns the names of a case's cells into what is judged, or None where a successful run is missing.
    """
    values = {name: read(*cells) for name, cells in needed.items()}
    cells = {cell for group in needed.values() for cell in group}
    runs = rows[(rows["experiment"] == experiment) & rows["cell"].isin(cells)]
    found = {name: value for name, value in values.items() if value is not None}
    return Cases(found, len(needed), failures(runs), cells <= set(runs["cell"]))


def final_cases(rows: pd.DataFrame, experiment: str, cells: Mapping[str, str], metric: str) -> Cases[list[float]]:
    """A metric's final values over the seeds, for cases of one cell each."""
    needed = {name: (cell,) for name, cell in cells.items()}
    return cases(rows, experiment, needed, lambda cell: final_values(rows, experiment, cell, metric) or None)


def paired_cases(
    rows: pd.DataFrame, experiment: str, pairs: Mapping[str, tuple[str, str]], metric: str
) -> Cases[tuple[float, float]]:
    """A metric's means in two cells over the seeds that both have: their difference is that of the seeds' pairs."""
    found = cases(rows, experiment, pairs, lambda a, b: mean_pair(rows, experiment, a, b, metric))
    counts = [len(seed_pairs(rows, experiment, *pairs[name], metric)) for name in found.found]
    return replace(found, note=f"seeds in common: {_counted(counts)}" if counts else "")


def _counted(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low} to {high}" if low < high else f"{low}"


def curve_cases(rows: pd.DataFrame, experiment: str, cells: Sequence[str]) -> Cases[pd.DataFrame]:
    """The curves of cases of one cell each."""

    def read(cell: str) -> pd.DataFrame | None:
        table = curve(rows, experiment, cell)
        return None if table.empty else table

    return cases(rows, experiment, {cell: (cell,) for cell in cells}, read)
