"""Evaluate single explicit Runge-Kutta steps as torchdiffeq takes them, from a step's start alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from repro.ode.tableau import Tableau
from repro.types import Scalar, State, VectorField


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
    k = _stages(field, step, y, f, tableau, n_stages)
    y_end = _combine(y, size, tableau.weights, k)
    if tableau.mid is None:
        outputs = [_linear(step, y, y_end, time) for time in step.outputs]
    else:
        y_mid = _combine(y, size, tableau.mid, k) if len(step.outputs) else y
        outputs = [_quartic(_fraction(step, time).to(y.dtype), size, y, y_mid, y_end, k) for time in step.outputs]
    return y_end, k[-1], torch.stack(outputs) if outputs else y.new_empty(0, *y.shape)


def _stages(
    field: VectorField, step: Step, y: Tensor, f: Tensor | None, tableau: Tableau, n_stages: int
) -> list[Tensor]:
    start, size, end = (time.to(y.dtype) for time in (step.start, step.size, step.end))
    k = [field(start, y) if f is None else f]
    for alpha, row in zip(tableau.alpha[1:n_stages], tableau.beta[1:n_stages], strict=True):
        time = end if alpha == 1 else start + alpha * size
        k.append(field(time, _combine(y, size, row, k)))
    return k


def _combine(y: State, size: Scalar, weights: Sequence[float], k: Sequence[Tensor]) -> State:
    """Return y + size·Σ weights_i k_i."""
    # A zero weight is left out, so that its stage need not exist and costs no graph.
    slope = sum(w * k[i] for i, w in enumerate(weights) if w != 0)
    return y + size * slope


def _fraction(step: Step, time: Scalar) -> Scalar:
    return (time.to(step.start.dtype) - step.start) / step.size


def _linear(step: Step, y0: State, y1: State, time: Scalar) -> State:
    # At the end torchdiffeq returns the state itself, so that this output's time has no gradient of its own.
    return y1 if time == step.end else y0 + _fraction(step, time).to(y0.dtype) * (y1 - y0)


def _quartic(x: Scalar, size: Scalar, y0: State, y_mid: State, y1: State, k: Sequence[Tensor]) -> State:
    """Evaluate the quartic through y0, y_mid, y1 with slopes k_first, k_last at x in [0, 1]."""
    f0, f1 = size * k[0], size * k[-1]
    a = 2 * (f1 - f0) - 8 * (y1 + y0) + 16 * y_mid
    b = 5 * f0 - 3 * f1 + 18 * y0 + 14 * y1 - 32 * y_mid
    c = f1 - 4 * f0 - 11 * y0 - 5 * y1 + 16 * y_mid
    return y0 + x * (f0 + x * (c + x * (b + x * a)))
