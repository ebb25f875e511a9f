"""Take the steps of all ways in turn, A B C ... A B C, so that a drift of the machine's speed hits all of them."""

import gc
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.peers.protocol import Outcome, Step, Way, first_line, timed

LOSS_TOLERANCE = 1e-3
"""Relative difference of a loss from the reference's, beyond which a step did other work and is not timed."""
LONGEST = 25.0
"""Seconds that one way may spend in timed rounds; a slower way has fewer, at least two."""


@dataclass
class Run:
    """One way at one tolerance.

    Attributes:
        status: "ok", or why there are no times.
        step: The step; None where there is none.
        first_call: Seconds of building and of the first step, with what a library compiles then; the suite's native
            code is on disk by then, since making the workload may have trained with it.
        warm: Seconds of the second step, which is left out of the times too.
        outcome: What the second step left.
        seconds: Timed steps.
    """

    status: str
    step: Step | None = None
    first_call: float = 0.0
    warm: float = 0.0
    outcome: Outcome | None = None
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median of the timed steps."""
        return statistics.median(self.seconds)


def start(
    way: Way, workload, rtol: float, atol: float, reference: Outcome, loss_tolerance: float = LOSS_TOLERANCE
) -> Run:
    """Build a step and take it twice; whatever goes wrong becomes the status."""
    reason, looked = timed(way.missing)
    if reason is not None:
        return Run(f"missing: {reason}", first_call=looked)
    run = Run("ok")

    def first():
        run.step = way.build(workload, rtol, atol)
        return run.step()

    began = time.perf_counter()
    try:
        run.first_call = timed(first)[1]
        run.outcome, run.warm = timed(run.step)
    except Exception as error:  # any failure of a library is a result here
        return Run(f"not possible: {first_line(error)}", first_call=time.perf_counter() - began)
    wanted, got = float(reference.loss), float(run.outcome.loss)
    if not abs(got - wanted) <= loss_tolerance * max(1.0, abs(wanted)):
        return Run(f"not possible: another loss, {got:.6g} instead of {wanted:.6g}", first_call=run.first_call)
    return run


def interleave(runs: Mapping[str, Run], rounds: int) -> None:
    """Time the steps of the runs in turn."""
    gc.collect()
    for index in range(rounds):
        for run in runs.values():
            if run.step is not None and index < max(2, LONGEST / run.warm):
                run.seconds.append(timed(run.step)[1])


def relative_error(outcome: Outcome, reference: Outcome) -> float:
    """Distance of the gradients over all parameters, relative to the reference's norm."""
    exact = reference.flat()
    return float(np.linalg.norm(outcome.flat() - exact) / np.linalg.norm(exact))
