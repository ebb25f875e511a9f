"""Whether a step costs what its arithmetic costs, or what calls cost whatever their size.

A step that is bound by overhead says how fast a library starts operations, not how fast they run, and nothing of larger
problems. The rule: a step is overhead-bound if at twice the batch an evaluation of its field takes less than 1.25 times
as long. It needs no profiler and means the same on a CPU and a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

import torch

from repro.measuring.meters import in_turn, status_of

BOUND = 1.25
"""Twice the work takes twice the time; below this ratio most of the time is not the work's."""
ROUNDS, LONGEST = 25, 2.0
"""Timed steps of each batch, fewer where they take so many seconds together, but one at least."""


class Counts(Protocol):
    """Evaluations that a step tells of; those that do not apply are None."""

    @property
    def nfe_forward(self) -> int | None:
        """Of the forward pass."""

    @property
    def nfe_backward(self) -> int | None:
        """Of the backward pass."""


@dataclass(frozen=True)
class Sized:
    """A step at one batch.

    Attributes:
        take: Takes it.
        counts: Evaluations of the last one; None where nothing is solved.
    """

    take: Callable[[], object]
    counts: Callable[[], Counts | None]

    def evaluations(self) -> int:
        """Evaluations of the last step, both passes together; 1 where none were counted."""
        found = self.counts()
        return max(1, (found.nfe_forward or 0) + (found.nfe_backward or 0)) if found else 1


def doubling(once: Sized, twice: Callable[[], Sized], device: torch.device) -> dict[str, Any]:
    """Time a step and the same at twice the batch, in turn.

    An adaptive solver may take another number of steps for another batch, so that times count per evaluation.

    Args:
        once: The step, after a first call.
        twice: Makes the one of twice the batch.
        device: On which both work.

    Returns:
        batch_doubling, the ratio of median seconds per evaluation; overhead_bound, whether it is below `BOUND`; or
        doubling_status, why there are none.
    """
    try:
        other = twice()
        other.take()
        other.take()  # as the one of the batch itself was, which has been timed
        seconds = in_turn({"once": once.take, "twice": other.take}, ROUNDS, device, LONGEST, 1)
        paces = [median(seconds[key]) / step.evaluations() for key, step in (("once", once), ("twice", other))]
    except Exception as error:  # a batch that does not fit says nothing against the step itself
        return {"doubling_status": status_of(error)}
    ratio = paces[1] / paces[0]
    return {"batch_doubling": ratio, "overhead_bound": ratio < BOUND}
