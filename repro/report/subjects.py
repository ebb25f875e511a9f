"""What the benchmarks measured, subject by subject: a table, a picture, a finding in a sentence, claims."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from repro.report import (
    ahead,
    divergence,
    divergence_figure,
    gradients,
    machines,
    memory,
    memory_figure,
    nfe,
    nfe_figure,
    peers,
    scaling,
    solvers,
    solvers_figure,
    speed,
    training,
)
from repro.report.benchmarks import Measured, MeasuredClaim, find_unclean_files


@dataclass(frozen=True)
class Subject:
    """A subject of the benchmarks.

    What is drawn, said and judged is of one machine at a time; `machines` puts those of several together.

    Attributes:
        name: Of its table, its figure, and its blocks in the README.
        title: Of its table.
        load: Reads a folder of pytest-benchmark's files.
        table: Everything that was measured, for people.
        draw: The picture of a machine's figures; None where a table says it all.
        says: One sentence that says what the picture shows, made from the figures; empty where there is none.
        judges: Those of the papers' claims that it judges, from a machine's figures.
        brief: The few figures that say most, for the README and above the whole table; None where a sentence does.
        word: What its entries have in `extra_info`; by default its name.
    """

    name: str
    title: str
    load: Callable[[Path], Measured]
    table: Callable[[Measured], pd.DataFrame]
    draw: Callable[[Measured], Figure | None] | None = None
    says: Callable[[Measured], str] = lambda _: ""
    judges: Callable[[Measured], Sequence[MeasuredClaim]] = lambda _: ()
    brief: Callable[[Measured], pd.DataFrame] | None = None
    word: str = ""

    def drawn(self, found: Measured) -> Iterator[machines.Drawn]:
        """The pictures of all machines."""
        return iter(()) if self.draw is None else machines.drawn(self.name, self.draw, found)

    def finding(self, found: Measured) -> str:
        """What the pictures show, in a sentence for each machine that has something else to say."""
        return machines.said(self.says, found)

    def claims(self, found: Measured) -> list[MeasuredClaim]:
        """What all machines together say of the papers' claims."""
        return machines.judged(self.judges, found)


SUBJECTS = (
    Subject("speed", "Speed beside another way to do the same work", speed.speeds, lambda table: table, word="ratio"),
    Subject(
        "training",
        "Whole trainings by both engines",
        training.load_trainings,
        training.trainings,
        says=training.finding,
    ),
    Subject(
        "peers",
        "The same training steps in several libraries",
        peers.load_peers,
        peers.peers,
        peers.draw_peers,
        ahead.finding,
        brief=ahead.ahead,
        word="peer",
    ),
    Subject(
        "scaling",
        "What a CNF's training step costs by its sizes",
        scaling.load_scaling,
        scaling.scaling,
        scaling.draw_scaling,
    ),
    Subject(
        "memory",
        "Peak memory of a training step",
        memory.load_memory,
        memory.memory,
        memory_figure.draw_memory,
        memory.finding,
        memory.claims,
    ),
    Subject(
        "gradients",
        "How exact gradients are, and what that costs",
        gradients.load_gradients,
        gradients.gradients,
        gradients.draw_gradients,
        gradients.finding,
    ),
    Subject(
        "divergence",
        "What a trace costs, and how noisy it is",
        divergence.load_divergence,
        divergence.divergence,
        divergence_figure.draw_divergence,
        divergence.finding,
        divergence.claims,
    ),
    Subject(
        "nfe", "Evaluations of the field in a training step", nfe.load_nfe, nfe.nfe, nfe_figure.draw_nfe, nfe.finding
    ),
    Subject(
        "solvers",
        "What exactness costs by solver",
        solvers.load_solvers,
        solvers.solvers,
        solvers_figure.draw_solvers,
        solvers.finding,
        word="work_precision",
    ),
)


NOTHING = pd.DataFrame(columns=pd.Index(["machine"]))
"""What is there of a subject that was not measured."""


def judge_by_subject(found: Iterable[tuple[Subject, Measured]]) -> Iterator[tuple[Subject, MeasuredClaim]]:
    """Judge the papers' claims by each subject; a claim whose subject was not measured is not attempted."""
    by_name = {subject.name: entries for subject, entries in found}
    for subject in SUBJECTS:
        for claim in subject.claims(by_name.get(subject.name, NOTHING)):
            yield subject, claim


def judged(found: Iterable[tuple[Subject, Measured]]) -> list[MeasuredClaim]:
    """What the benchmarks say of the papers' claims."""
    return [claim for _, claim in judge_by_subject(found)]


def measured(folder: Path) -> Iterator[tuple[Subject, Measured]]:
    """Read results/benchmarks/: every subject of which something was measured.

    A file that is not from a clean commit is left out, with one sentence on stderr.
    """
    for path, problem in find_unclean_files(folder).items():
        print(f"left out: {path.relative_to(folder).as_posix()}: {problem}", file=sys.stderr)
    for subject in SUBJECTS:
        if len(found := subject.load(folder)):
            yield subject, found
