"""What the pages are made of, and what is known of the runs and benchmark files behind it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from repro.evaluation.selection import Level
from repro.papers import EXPERIMENTS
from repro.published import Published
from repro.report.benchmarks import Measured, find_unclean_files, made_by
from repro.report.evidence import select_evidence
from repro.report.ledger import remarks
from repro.report.pages import Picture
from repro.report.subjects import Subject
from repro.results import final_values, read_record


@dataclass(frozen=True)
class Run:
    """A run: its folder below the runs' root, and what its run.json says."""

    folder: str
    info: Mapping[str, Any]

    @property
    def date(self) -> str:
        """The day on which it began, or nothing where that was not recorded."""
        return str(self.info.get("start") or "")[:10]

    @property
    def hardware(self) -> str:
        """GPU, or processor with its cores."""
        name = self.info.get("gpu") or self.info.get("cpu") or self.info["machine"]
        cores = self.info.get("cpu_count")
        return str(name) if self.info.get("gpu") or not cores else f"{name}, {cores} cores"


@dataclass(frozen=True)
class Source:
    """A benchmark file: its path below the benchmarks' folder, and what it says of itself."""

    path: str
    date: str
    hardware: str
    commit: str
    words: frozenset[str]


@dataclass(frozen=True)
class Material:
    """Everything that a report shows.

    Attributes:
        root: The folder of the runs, results/runs or results/local.
        beside: The way to it from a page.
        numbers: The way to the published numbers from a page.
        benchmarks: The folder of the benchmarks' files.
        rows: Of the valid runs.
        published: The papers' numbers.
        comparison: A line for each of them.
        compared: The rows that its column of ours was made from.
        claims: The ledger.
        tables: Laid-out tables: title and content by name, which ends in the tier.
        pictures: Of experiments and of benchmarks.
        found: What was measured, by subject.
        tiers: That are shown, the lowest first.
    """

    root: Path
    beside: str
    numbers: str
    benchmarks: Path
    rows: pd.DataFrame
    published: Sequence[Published]
    comparison: pd.DataFrame
    compared: pd.DataFrame
    claims: pd.DataFrame
    tables: Mapping[str, tuple[str, pd.DataFrame]]
    pictures: Sequence[Picture]
    found: Sequence[tuple[Subject, Measured]]
    tiers: Sequence[str]

    @property
    def own(self) -> bool:
        """Whether the runs are a user's own, not the published ones."""
        return self.root.name == "local"

    @cached_property
    def runs(self) -> dict[str, list[Run]]:
        """The valid runs of each experiment, in the order of their folders."""
        runs: dict[str, list[Run]] = {name: [] for name in EXPERIMENTS}
        for folder in sorted(set(self.rows["run"])):
            if (info := read_record(self.root / folder)) is not None:  # None: replaced since the rows were loaded
                runs[info["experiment"]].append(Run(folder, info))
        return runs

    @cached_property
    def sources(self) -> list[Source]:
        """The benchmark files that count."""
        unclean = find_unclean_files(self.benchmarks)
        paths = sorted(self.benchmarks.glob("*/*.json"))
        return [_source(path, self.benchmarks) for path in paths if path not in unclean]

    @cached_property
    def remarks(self) -> dict[str, list[str]]:
        """What the runs show beside the claims, by experiment."""
        return remarks(self.rows, self.tiers)

    def level(self, experiment: str) -> Level | None:
        """Select the level behind an experiment's figures, tables and page; None where it was not run."""
        return self._evidence[experiment][1]

    def tier(self, experiment: str) -> str:
        """Name the tier of that level; empty where the experiment was not run."""
        level = self.level(experiment)
        return level.tier if level else ""

    @cached_property
    def _evidence(self) -> dict[str, tuple[pd.DataFrame, Level | None]]:
        return {name: select_evidence(self.rows, name, self.tiers) for name in EXPERIMENTS}

    def drawn_from(self, experiment: str) -> list[Run]:
        """List the runs behind an experiment's pictures: those of its level, and those whose weights they read."""
        rows = self._evidence[experiment][0]
        folders = set(rows.loc[rows["experiment"] == experiment, "run"])
        own = [run for run in self.runs[experiment] if run.folder in folders]
        read = {str(Path(file).parent) for run in own for file in run.info.get("inputs") or {}}
        known = {f"{self.root.name}/{run.folder}": run for runs in self.runs.values() for run in runs}
        return own + [run for key, run in known.items() if key in read and run not in own]

    def lines(self, experiment: str) -> list[tuple[Published, dict[str, str]]]:
        """An experiment's published numbers, each with its line of the comparison."""
        lines = self.comparison.to_dict("records")
        pairs = zip(self.published, lines, strict=True)
        return [
            (number, {str(k): str(v) for k, v in line.items()})
            for number, line in pairs
            if number.experiment == experiment
        ]

    def ledger(self, ids: Iterable[str]) -> pd.DataFrame:
        """The ledger's lines of some claims."""
        return self.claims[self.claims["id"].isin(list(ids))]

    def share(self, experiment: str) -> str:
        """Print the share of the paper's or the public code's budget over the cells of the level; empty if unknown."""
        rows = self._evidence[experiment][0]
        values = [
            v for cell in EXPERIMENTS[experiment].cells for v in final_values(rows, experiment, cell, "budget_share")
        ]
        ends = list(dict.fromkeys(f"{100 * value:.3g} %" for value in (min(values), max(values)))) if values else []
        return " to ".join(ends)


def hardware(runs: Iterable[Run]) -> str:
    """The kinds of hardware of some runs."""
    return "; ".join(dict.fromkeys(run.hardware for run in runs))


def dates(runs: Iterable[Run]) -> str:
    """The first and the last day of some runs."""
    days = sorted({run.date for run in runs} - {""})
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""


def _source(path: Path, folder: Path) -> Source:
    content = json.loads(path.read_text(encoding="utf-8"))
    suite = (content.get("machine_info") or {}).get("suite") or {}
    cores = f", {suite['cpu_count']} cores" if suite.get("cpu_count") and not suite.get("gpu") else ""
    words = frozenset(word for benchmark in content["benchmarks"] for word in benchmark["extra_info"])
    name = suite.get("gpu") or suite.get("cpu") or path.parent.name
    commit, day = made_by(content)
    return Source(path.relative_to(folder).as_posix(), day, f"{name}{cores}", commit, words)
