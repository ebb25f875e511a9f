"""Initial value problems with closed-form solutions, for tests and benchmarks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from repro.types import Scalar, State, Trajectory, VectorField


@dataclass(frozen=True)
class Problem:
    """dy/dt = f(t, y), y(t0) = y0 in float64, with its solution.

    Attributes:
        name: Its key in `PROBLEMS`.
        field: Right-hand side.
        y0: State at t0; row vectors in a batch.
        t0: Start.
        t1: End.
        flow: (y0, t0, t) -> y(t), with t a 0-d tensor; closed form, differentiable in all three.
    """

    name: str
    field: VectorField
    y0: Tensor
    t0: float
    t1: float
    flow: Callable[[Tensor, Tensor, Tensor], Tensor]

    def times(self, n: int = 2) -> Tensor:
        """Return `n` equally spaced times from t0 to t1."""
        return torch.linspace(self.t0, self.t1, n, dtype=self.y0.dtype)

    def solution(self, t: Tensor) -> Trajectory:
        """Return the exact state at each of the times `t`."""
        return torch.stack([self.flow(self.y0, t.new_tensor(self.t0), time) for time in t])


_MATRIX = torch.tensor([[-0.1, 1.0, 0.0], [-1.0, -0.1, 0.5], [0.0, -0.5, -0.3]], dtype=torch.float64)


def _rows(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _decay(t: Scalar, y: State) -> State:
    return -y


def _decay_flow(y0: State, t0: Scalar, t: Scalar) -> State:
    return y0 * torch.exp(t0 - t)


def _linear(t: Scalar, y: State) -> State:
    return y @ _MATRIX.to(y).mT


def _linear_flow(y0: State, t0: Scalar, t: Scalar) -> State:
    return y0 @ torch.linalg.matrix_exp(_MATRIX.to(y0) * (t - t0)).mT


def _oscillator(t: Scalar, y: State) -> State:
    position, velocity = y.unbind(-1)
    return torch.stack([velocity, -position], dim=-1)


def _oscillator_flow(y0: State, t0: Scalar, t: Scalar) -> State:
    (position, velocity), cos, sin = y0.unbind(-1), torch.cos(t - t0), torch.sin(t - t0)
    return torch.stack([cos * position + sin * velocity, cos * velocity - sin * position], dim=-1)


def _logistic(t: Scalar, y: State) -> State:
    return y * (1 - y)


def _logistic_flow(y0: State, t0: Scalar, t: Scalar) -> State:
    return y0 / (y0 + (1 - y0) * torch.exp(t0 - t))


def _rational(t: Scalar, y: State) -> State:
    return -2 * t * y.square()


def _rational_flow(y0: State, t0: Scalar, t: Scalar) -> State:
    return y0 / (1 + y0 * (t.square() - t0.square()))


PROBLEMS = {
    "decay": Problem("decay", _decay, _rows([1.0, -0.5], [2.0, 0.25]), 0.0, 2.0, _decay_flow),
    "linear": Problem("linear", _linear, _rows([1.0, 0.0, -1.0], [0.5, 2.0, 0.3]), 0.0, 2.0, _linear_flow),
    "oscillator": Problem("oscillator", _oscillator, _rows([1.0, 0.0], [0.3, -0.7]), 0.0, 3.0, _oscillator_flow),
    "logistic": Problem("logistic", _logistic, _rows([0.1], [0.7]), 0.0, 3.0, _logistic_flow),
    "rational": Problem("rational", _rational, _rows([1.0], [0.4]), 0.2, 2.0, _rational_flow),
}
"""Exponential decay, a linear system, a harmonic oscillator, logistic growth; dy/dt = -2 t y² depends on t."""
