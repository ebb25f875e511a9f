"""Count what a solve costs."""

from collections import deque
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from repro.interruption import check_interruption
from repro.ode.errors import MaxNFEExceeded, SolveError, StepRecord
from repro.types import Scalar, VectorField

MOST_STEPS = 1e8
"""Steps of a fixed size in one solve."""
HISTORY_LENGTH = 1000
"""Attempted steps that an error reports, at most."""

E = TypeVar("E", bound=SolveError)


@dataclass
class Stats:
    """Cost of one solve, in Python integers.

    A backward evaluation is one evaluation of the augmented system (field and vector-Jacobian product; Algorithm 1), or
    one of the field in a replayed step: dearer than a forward evaluation, so the two are never added up.

    Attributes:
        nfe_forward: Evaluations of the field.
        nfe_backward: Evaluations during `backward()`, which adds to it; 0 before, None (n/a) for backprop.
        n_accepted: Steps kept.
        n_rejected: Steps tried again with a smaller size; None where the engine does not report them.
        n_accepted_backward: As `n_accepted`, summed over the backward solves; None for backprop.
        n_rejected_backward: As `n_rejected`, for the backward solves.
    """

    nfe_forward: int = 0
    nfe_backward: int | None = None
    n_accepted: int | None = None
    n_rejected: int | None = None
    n_accepted_backward: int | None = None
    n_rejected_backward: int | None = None

    def __add__(self, other: "Stats") -> "Stats":
        """Cost of two solves, one after the other; a count that one of them does not have is n/a in the sum."""
        pairs = [(getattr(self, entry.name), getattr(other, entry.name)) for entry in fields(self)]
        return Stats(*[None if None in pair else sum(pair) for pair in pairs])  # pyright: ignore[reportArgumentType]

    def set_forward(self, meter: "Meter") -> None:
        """Take over what the forward pass spent."""
        self.nfe_forward, self.n_accepted, self.n_rejected = meter.nfe, meter.n_accepted, meter.n_rejected

    def add_backward(self, meter: "Meter") -> None:
        """Add what one backward pass spent."""
        self.nfe_backward = (self.nfe_backward or 0) + meter.nfe
        self.n_accepted_backward = _add(self.n_accepted_backward, meter.n_accepted)
        self.n_rejected_backward = _add(self.n_rejected_backward, meter.n_rejected)


def _add(total: int | None, more: int | None) -> int | None:
    return None if more is None else (total or 0) + more


class Meter:
    """Count one pass's evaluations and steps, and end it when the budget is spent.

    Nothing here changes the run: the counts are Python integers, and the history keeps the solver's 0-d tensors, which
    are read (a synchronisation on a GPU) only when an error is made.

    Args:
        max_nfe: Most evaluations; None is no limit.
    """

    def __init__(self, max_nfe: int | None = None) -> None:
        self.max_nfe = max_nfe
        self.nfe = 0
        self.n_accepted: int | None = 0
        self.n_rejected: int | None = 0
        self.last_derivative: Tensor | None = None
        self._steps: deque[tuple[Tensor | float, Tensor | float, bool]] = deque(maxlen=HISTORY_LENGTH)

    def check_grid(self, start: float, end: float, step_size: float) -> None:
        """Check, before a grid is made, that its steps are within the budget, each being an evaluation or more.

        Raises:
            MaxNFEExceeded: They are not.
            ValueError: There is no budget, and their times alone would fill the memory.
        """
        n = abs(end - start) / step_size
        if self.max_nfe is not None and self.nfe + n > self.max_nfe:
            raise self.error(
                MaxNFEExceeded, f"{n:.3g} steps of step_size are more than max_nfe = {self.max_nfe} allows"
            )
        if n > MOST_STEPS:
            raise ValueError(f"step_size makes {n:.3g} steps, over the bound of {MOST_STEPS:.0e}; choose a longer one")

    def watch(self, field: VectorField) -> VectorField:
        """Wrap `field` so that its evaluations are counted."""

        def counted(t: Tensor, y: Tensor) -> Tensor:
            if self.nfe == self.max_nfe:
                raise self.error(MaxNFEExceeded, f"reached max_nfe = {self.max_nfe}")
            check_interruption(self)
            self.nfe += 1
            dy = field(t, y)
            self.last_derivative = dy.detach()
            return dy

        return counted

    def spend(self, n: int) -> None:
        """Count `n` evaluations that are made at once; none of them beyond the budget."""
        if self.max_nfe is not None and self.nfe + n > self.max_nfe:
            self.nfe = self.max_nfe
            raise self.error(MaxNFEExceeded, f"reached max_nfe = {self.max_nfe}")
        check_interruption(self)
        self.nfe += n

    def step(self, t: Scalar | float, dt: Scalar | float, accepted: bool) -> None:
        """Count one attempted step that started at `t`."""
        if accepted:
            self.n_accepted = (self.n_accepted or 0) + 1
        else:
            self.n_rejected = (self.n_rejected or 0) + 1
        self._steps.append((t, dt, accepted))

    @property
    def history(self) -> list[StepRecord]:
        """The last attempted steps, oldest first."""
        return [StepRecord(float(t), float(dt), accepted) for t, dt, accepted in self._steps]

    @property
    def derivative_is_finite(self) -> bool:
        """Whether the field's last value was finite (true before any evaluation)."""
        return self.last_derivative is None or bool(torch.isfinite(self.last_derivative).all())

    def error(self, kind: type[E], what: str) -> E:
        """Make an error of type `kind` that says what happened, where, and after how much work."""
        history = self.history
        where = f" in the step from t = {history[-1].t:.6g}, dt = {history[-1].dt:.3g}," if history else ""
        return kind(f"{what}{where} after {self.nfe} evaluations of the field", history, self.nfe)
