"""Evaluate single explicit Runge-Kutta steps as torchdiffeq takes them, from a step's start alone."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from repro.ode.kernels.protocol import StageTimes
from repro.ode.solvers import Solver
from repro.ode.stages import combined, stages
from repro.ode.tableau import Tableau
from repro.types import Scalar, State, Times, VectorField

X = TypeVar("X", float, Tensor)


@dataclass(frozen=True)
class Step:
    """Where one step lies in time, as 0-d tensors that may carry gradients.

    Attributes:
        start: t_n.
        size: dt_n, negative where time decreases.
        end: t_n + dt_n; given, so that rounding is the solver's.
        outputs: The output times inside the step, its end included.
    """

    start: Tensor
    size: Tensor
    end: Tensor
    outputs: Tensor


def replay(
    field: VectorField, step: Step, y: State, f: State | None, tableau: Tableau
) -> tuple[State, State, Float[Tensor, "outputs *state"]]:
    """Take one step.

    Args:
        field: Right-hand side.
        step: Its place in time.
        y: State at the start.
        f: First stage; None evaluates f(start, y).
        tableau: Coefficients; with `mid`, outputs are interpolated by a quartic, else linearly.

    Returns:
        The state at the end, the last stage that was needed, and the states at the output times.
    """
    # An FSAL method's last stage does not enter the result: only dense output needs it.
    n_stages = len(tableau.alpha) - (tableau.is_fsal and len(step.outputs) == 0)
    size = step.size.to(y.dtype)
    k = stages(field, tableau, n_stages, y, f, step.start, step.size, step.end)
    y_end = combined(y, size, tableau.weights, k)
    if tableau.mid is None:
        outputs = [_linear(step, y, y_end, time) for time in step.outputs]
    else:
        y_mid = combined(y, size, tableau.mid, k) if len(step.outputs) else y
        parts = (y, y_mid, y_end, size * k[0], size * k[-1])
        outputs = [_weighted(dense_weights(_fraction(step, time).to(y.dtype)), parts) for time in step.outputs]
    return y_end, k[-1], torch.stack(outputs) if outputs else y.new_empty(0, *y.shape)


def _fraction(step: Step, time: Scalar) -> Scalar:
    return (time.to(step.start.dtype) - step.start) / step.size


def _linear(step: Step, y0: State, y1: State, time: Scalar) -> State:
    # At the end torchdiffeq returns the state itself, so that this output's time has no gradient of its own.
    return y1 if time == step.end else y0 + _fraction(step, time).to(y0.dtype) * (y1 - y0)


def dense_weights(x: X) -> tuple[X, X, X, X, X]:
    """Return the weights of y(0), y(1/2), y(1), dt·y'(0), dt·y'(1) in their quartic's value at x in [0, 1]."""
    x2, x3, x4 = x * x, x * x * x, x * x * x * x
    return (
        1 - 11 * x2 + 18 * x3 - 8 * x4,
        16 * x2 - 32 * x3 + 16 * x4,
        -5 * x2 + 14 * x3 - 8 * x4,
        x - 4 * x2 + 5 * x3 - 2 * x4,
        x2 - 3 * x3 + 2 * x4,
    )


def _weighted(weights: Sequence[Scalar], parts: Sequence[State]) -> State:
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum(0)


class Grid:
    """The steps' places in time, as functions of the output times t.

    Adaptive: t_n = t[0] + constant, dt_n constant; where steps end on outputs, t_n = the last of them + constant, and a
    step's end is the output. Fixed with `step_size`: all nodes move with t[0], the last one is
    t[-1]. Fixed without: the nodes are t.
    """

    def __init__(self, solver: Solver, starts: list[Tensor], sizes: list[Tensor], t: Times) -> None:
        self._solver, self._sizes = solver, sizes
        self._starts = starts
        self._sign = 1.0 if t[-1] > t[0] else -1.0
        self._numbers = list(zip(torch.stack(starts).tolist(), torch.stack(sizes).tolist(), strict=True))
        ends = [self._sign * start for start, _ in self._numbers[1:]]
        self._step_of = [bisect_left(ends, self._sign * time) for time in t.tolist()[1:]]

    def __len__(self) -> int:
        return len(self._starts)

    def outputs(self, n: int) -> slice:
        """Return which entries of t lie in step n: after its start, up to its end."""
        return slice(bisect_left(self._step_of, n) + 1, bisect_right(self._step_of, n) + 1)

    def step(self, n: int, t: Times) -> Step:
        """Return step n, with gradients to t if it requires them."""
        outputs = t[self.outputs(n)]
        if self._solver.is_adaptive:
            before = t[self.outputs(n).start - 1] if self._solver.ends_steps_on_outputs else t[0]
            start, size = _moves_with(before, self._starts[n]), self._sign * self._sizes[n]
            if len(outputs) and self._solver.ends_steps_on_outputs:
                end = outputs[-1].to(start.dtype)
                return Step(start, end - start, end, outputs)
            return Step(start, size, start + size, outputs)
        start, end = self._node(n, t), self._node(n + 1, t)
        return Step(start, end - start, end, outputs)

    def times(self, n: int, t: Times) -> StageTimes:
        """Return step n as Python numbers."""
        if self._solver.is_adaptive:
            start, size = self._numbers[n]
            return StageTimes(start, self._sign * size, start + self._sign * size)
        step = self.step(n, t.detach())
        return StageTimes(step.start.item(), step.size.item(), step.end.item())

    def _node(self, n: int, t: Times) -> Scalar:
        if n == len(self):
            return t[-1]
        return t[n] if self._solver.step_size is None else _moves_with(t[0], self._starts[n])


def _moves_with(t: Scalar, value: Scalar) -> Scalar:
    """Return `value`, with derivative 1 with respect to `t`."""
    return value + (t - t.detach()) if t.requires_grad else value
