"""Figures, findings and verdicts of several machines: each from its own figures alone, then put together.

Where a single machine has measured, nothing names it: its name stands beside every figure of the table.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.figure import Figure

from repro.experiment import NOT_ATTEMPTED, Judgement, Verdict
from repro.report.benchmarks import Measured, MeasuredClaim, machines, of_machine


@dataclass(frozen=True)
class Drawn:
    """A machine's picture.

    Attributes:
        file: Its name without a suffix: the subject's for the first machine, then with the machine's name.
        figure: The picture.
        machine: Whose it is.
        named: Whether its caption must say so, because there are several.
    """

    file: str
    figure: Figure
    machine: str
    named: bool


def drawn(name: str, draw: Callable[[Measured], Figure | None], found: Measured) -> Iterator[Drawn]:
    """Draw each machine's picture; the first that has one keeps the subject's name for its file."""
    pictures = [(machine, draw(of_machine(found, machine))) for machine in machines(found)]
    there = [(machine, figure) for machine, figure in pictures if figure is not None]
    for index, (machine, figure) in enumerate(there):
        yield Drawn(f"{name}_{machine}" if index else name, figure, machine, named=len(there) > 1)


def said(says: Callable[[Measured], str], found: Measured) -> str:
    """What the figures say: a machine's own sentence, and of several each different one with whose it is."""
    names = machines(found)
    sentences: dict[str, list[str]] = {}
    for machine in names:
        if text := says(of_machine(found, machine)):
            sentences.setdefault(text, []).append(machine)
    if len(names) < 2:
        return next(iter(sentences), "")
    return " ".join(f"On {listed(whose)}: {text}" for text, whose in sentences.items())


def listed(names: Sequence[str]) -> str:
    """Names in a row: "a", "a and b", "a, b and c"."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def judged(judges: Callable[[Measured], Sequence[MeasuredClaim]], found: Measured) -> list[MeasuredClaim]:
    """Judge the claims on each machine by itself, and then on all together."""
    names = machines(found)
    if len(names) < 2:
        return list(judges(found))
    by_claim: dict[str, dict[str, MeasuredClaim]] = {}
    for machine in names:
        for claim in judges(of_machine(found, machine)):
            by_claim.setdefault(claim.id, {})[machine] = claim
    return [_together(claims) for claims in by_claim.values()]


def _together(claims: dict[str, MeasuredClaim]) -> MeasuredClaim:
    """One claim of several machines: what holds on all, on some, or on none; machines that did not try have no say."""
    first = next(iter(claims.values()))
    tried = {name: c.judgement for name, c in claims.items() if c.judgement.verdict != NOT_ATTEMPTED.verdict}
    if not tried:
        return first
    return replace(first, judgement=join_judgements({f"on {name}": judgement for name, judgement in tried.items()}))


def join_judgements(judgements: Mapping[str, Judgement]) -> Judgement:
    """Join the judgements of several measurements on one claim: the verdict that all share, "partly" where they differ.

    Args:
        judgements: By what they are of; the evidence names it.
    """
    verdicts: list[Verdict] = list(dict.fromkeys(judgement.verdict for judgement in judgements.values()))
    several = len(verdicts) > 1
    evidence = [
        f"{name}{f' ({judgement.verdict})' if several else ''}: {judgement.evidence}"
        for name, judgement in judgements.items()
    ]
    return Judgement("partly" if several else verdicts[0], "; ".join(evidence))
