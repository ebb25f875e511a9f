"""The meters: evaluations, kept bytes, gradient errors and times of training steps, taken in turn.

Every figure comes with its unit in its name; what fails becomes a status, so that one cell never ends the others.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from repro.measuring.step import Step
from repro.metrics import saved_bytes, timed
from repro.ode import SolveError, UnsupportedCombination

LONGEST = 20.0
"""Seconds that one cell may spend in timed rounds; a slower one has fewer, at least two."""

K = TypeVar("K", bound=Hashable)


@dataclass
class Cell:
    """What is known of one step.

    Attributes:
        status: "ok", or in one line why there are no figures.
        step: The step; None where it failed.
        figures: nfe_forward, nfe_backward and the counts of steps (None where they do not apply), saved_bytes, loss.
        gradient: Flat and in float64.
        first_call: Seconds of the first step, in which libraries load and compilers run.
        seconds: Timed steps.
    """

    status: str = "ok"
    step: Step | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    gradient: Tensor | None = None
    first_call: float = 0.0
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median of the timed steps, in seconds."""
        return statistics.median(self.seconds)

    @property
    def iqr(self) -> float:
        """Interquartile range of the timed steps, in seconds; 0 for a single one."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return high - low


def start(make: Callable[[], Step], device: torch.device) -> Cell:
    """Make a step and take it twice: once to warm up, once to count.

    Args:
        make: Makes the step; whatever it or the step raises becomes the status.
        device: On which the step works.
    """
    cell = Cell()
    began = time.perf_counter()
    try:
        step = make()
        timed(step.take, device)
        cell.first_call = time.perf_counter() - began
        cell.figures = counted(step)
        cell.gradient = step.gradient()
    except Exception as error:  # any failure of a cell is a result
        return Cell(status_of(error), first_call=time.perf_counter() - began)
    cell.step = step
    if not all(map(torch.isfinite, (torch.tensor(cell.figures["loss"]), cell.gradient.sum()))):
        cell.status = "not finite: loss or gradient"
    return cell


def counted(step: Step) -> dict[str, Any]:
    """Take a step and count: evaluations and steps of its solve, bytes that autograd keeps for backward, the loss."""
    step.clear()
    with saved_bytes(exclude=iter(step.leaves)) as kept:
        loss = step.loss()
    loss.backward()
    stats = step.stats()
    return {**(asdict(stats) if stats else {}), "saved_bytes": kept.total, "loss": float(loss.detach())}


def status_of(error: Exception) -> str:
    """An error as a status: what kind of failure, and its first line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error):
        return "out of memory"
    kind = {UnsupportedCombination: "not supported", SolveError: "failed"}
    found = next((word for known, word in kind.items() if isinstance(error, known)), type(error).__name__)
    return f"{found}: {lines[0][:200]}"


def in_turn(
    calls: Mapping[K, Callable[[], object]], rounds: int, device: torch.device, longest: float, least: int
) -> dict[K, list[float]]:
    """Time calls in turn, A B C … A B C, so that a drift of the machine's speed hits all of them alike.

    Args:
        calls: By their names.
        rounds: Timed calls of each.
        device: Idle before and after each call.
        longest: Seconds after which a call has no more rounds.
        least: Rounds that it has all the same.

    Returns:
        Seconds by the calls' names.
    """
    gc.collect()
    seconds: dict[K, list[float]] = {key: [] for key in calls}
    for index in range(rounds):
        for key, call in calls.items():
            if index < least or sum(seconds[key]) < longest:
                seconds[key].append(timed(call, device))
    return seconds


def interleave(cells: Mapping[K, Cell], rounds: int, device: torch.device) -> None:
    """Time the steps of the cells that have one, in turn."""
    steps = {key: cell.step.take for key, cell in cells.items() if cell.step is not None}
    for key, seconds in in_turn(steps, rounds, device, LONGEST, 2).items():
        cells[key].seconds += seconds


def relative_error(value: Float[Tensor, " n"], exact: Float[Tensor, " n"]) -> float:
    """Return ‖value − exact‖ / ‖exact‖ over all leaves together; 0 where both are zero, ∞ where only `exact` is."""
    distance, size = float((value - exact).norm()), float(exact.norm())
    return distance / size if size else 0.0 if distance == 0 else math.inf
