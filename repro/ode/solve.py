"""Solve an initial value problem and differentiate through it."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repro.ode.errors import UnsupportedCombination
from repro.ode.gradients import GRADIENTS, supported
from repro.ode.inference import as_normal, leave_inference_mode
from repro.ode.meter import Stats
from repro.ode.parameters import collect_parameters
from repro.ode.solvers import SOLVERS, Solver
from repro.types import Norm, State, Times, Trajectory, VectorField


@dataclass(frozen=True)
class Solution:
    """A solved initial value problem.

    Attributes:
        y: The state at every output time; y[0] is y0.
        stats: What it cost; `backward()` fills the backward part.
    """

    y: Trajectory
    stats: Stats


def solve(
    field: VectorField,
    y0: State,
    t: Times,
    solver: Solver = SOLVERS["dopri5"],
    gradient: str = "adjoint",
    parameters: Iterable[Tensor] | nn.Module | None = None,
    norm: Norm | None = None,
) -> Solution:
    """Solve dy/dt = f(t, y), y(t[0]) = y0.

    Args:
        field: Right-hand side, time first; it must be deterministic, for the solver as for the gradient.
        y0: State at t[0], of any shape; a batch shares its steps.
        t: At least two output times, strictly monotone in either direction, in y0's dtype and on its device.
        solver: Method, tolerances, engine.
        gradient: One of `GRADIENTS`.
        parameters: Tensors that the field closes over and that get gradients, or a module for its own; None takes the
            field's, if it is a module. A field that is no module but uses one must name them; "backprop" finds them
            by itself. A tensor that is named twice counts once.
        norm: Size of an error in units of the tolerances; None is the RMS over all elements. A state of several parts
            may be measured by its worst part. SciPy's solvers have a norm of their own.

    Returns:
        The state at every output time, differentiable in y0, t and the parameters, and the cost.

    Raises:
        ValueError: An argument is out of range; the message names it.
        TypeError: A tensor has the wrong dtype or device, or `parameters` are no tensors; the message names it.
        UnsupportedCombination: The solver does not allow this gradient method; `supported` says why.
        SolveError: The solve failed; also out of `backward()`.
    """
    check_problem(y0, t)
    reason = supported(solver, gradient)
    if reason is not None:
        raise UnsupportedCombination(reason)
    stats = Stats()
    leaves = collect_parameters(field, parameters, gradient)
    with leave_inference_mode():
        start, times = as_normal(y0), as_normal(t)
        y = GRADIENTS[gradient](field, start, times, solver, parameters=leaves, stats=stats, norm=norm)
    return Solution(y, stats)


def check_problem(y0: Tensor, t: Tensor) -> None:
    """Check initial state and output times.

    Raises:
        ValueError: `y0` is empty, or `t` is not a strictly monotone vector of at least two finite times.
        TypeError: `y0` is not floating, or `t` has another dtype or device than `y0`.
    """
    if not y0.is_floating_point():
        raise TypeError(f"y0 must be a floating tensor; got {y0.dtype}")
    if y0.numel() == 0:
        raise ValueError(f"y0 must hold at least one number; got shape {tuple(y0.shape)}")
    if (t.dtype, t.device) != (y0.dtype, y0.device):
        raise TypeError(f"t must have y0's dtype and device, {y0.dtype} on {y0.device}; got {t.dtype} on {t.device}")
    if t.ndim != 1 or len(t) < 2:
        raise ValueError(f"t must be a vector of at least two times; got shape {tuple(t.shape)}")
    steps = t.detach().diff()
    if not bool(((steps > 0).all() | (steps < 0).all()) & torch.isfinite(t).all()):
        raise ValueError(f"t must be finite and strictly increasing or strictly decreasing; got {t.tolist()}")
