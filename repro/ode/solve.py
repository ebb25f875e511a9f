"""Solve an initial value problem and differentiate through it."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repro.ode.errors import UnsupportedCombination
from repro.ode.gradients import GRADIENTS, supported
from repro.ode.inference import as_normal, leave_inference_mode
from repro.ode.meter import Stats
from repro.ode.problem import make_problem
from repro.ode.solvers import SOLVERS, Solver
from repro.ode.transforms import is_transformed, is_vmapped
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
        field: Right-hand side, time first; it must be deterministic, for the solver as for the gradient, return a new
            tensor of the state's shape and leave the state as it is. What it reads beside time and state must not
            change before `backward()`.
        y0: State at t[0], of any shape; a batch shares its steps.
        t: At least two output times, strictly monotone in either direction, in y0's dtype and on its device. At times
            inside a step adaptive methods give the step's quartic interpolant, fixed-step methods a linear one (see
            `Solver.step_size`); where a method's quartic is of lower order, its steps end on the output times.
        solver: Method, tolerances, engine.
        gradient: One of `GRADIENTS`.
        parameters: Tensors that the field closes over and that get gradients, or a module for its own; None takes the
            field's, if it is a module, and whatever else the graph of the field's first evaluation shows that it uses,
            as tensors of a closure or modules that it calls. Where they are given, one that the field uses and that is
            missing is refused; () trains none. A tensor that is named twice counts once.
        norm: Size of an error in units of the tolerances; None is the RMS over all elements. A state of several parts
            may be measured by its worst part. SciPy's solvers have a norm of their own.

    Returns:
        The state at every output time, differentiable in y0, t and the parameters, and the cost.

    Raises:
        ValueError: An argument is out of range, or the field's value has another shape than y0; the message names it.
        TypeError: An argument or the field's value has the wrong type, dtype or device; the message names it.
        UnsupportedCombination: The solver does not allow this gradient method; `supported` says why.
        SolveError: The solve failed; also out of `backward()`.
    """
    check_problem(y0, t)
    check_solver(solver, y0.dtype)
    reason = supported(solver, gradient)
    if reason is not None:
        raise UnsupportedCombination(reason)
    check_transforms(y0, t, solver, gradient)
    stats = Stats()
    with leave_inference_mode():
        problem = make_problem(
            field,
            as_normal(y0),
            as_normal(t),
            solver,
            norm=norm,
            parameters=parameters,
            evaluates_again=gradient != "backprop",
        )
        y = GRADIENTS[gradient](problem, solver, stats)
    return Solution(y, stats)


def check_problem(y0: object, t: object) -> None:
    """Check initial state and output times.

    Raises:
        ValueError: `y0` is empty, or `t` is not a strictly monotone vector of at least two finite times.
        TypeError: One is no tensor, `y0` is not floating, or `t` has another dtype or device than `y0`.
    """
    for name, value in (("y0", y0), ("t", t)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor; got {type(value).__name__}")
    assert isinstance(y0, Tensor)
    assert isinstance(t, Tensor)
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


def check_solver(solver: object, dtype: torch.dtype) -> None:
    """Check the solver for states of a dtype.

    Raises:
        TypeError: It is no `Solver`.
        ValueError: Its tolerances are finer than a half-precision dtype resolves; no step would be kept.
    """
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a Solver, as Solver('rk4', step_size=0.1); got {solver!r}")
    resolution = torch.finfo(dtype).eps
    in_half = dtype in (torch.float16, torch.bfloat16) and solver.is_adaptive and solver.engine != "scipy"
    if in_half and max(solver.rtol, solver.atol) < resolution:
        raise ValueError(
            f"rtol = {solver.rtol:g} and atol = {solver.atol:g} are finer than {dtype} resolves, {resolution:.2g}: "
            "solve in float32, or with larger tolerances"
        )


def check_transforms(y0: Tensor, t: Tensor, solver: Solver, gradient: str) -> None:
    """Check that a solve inside torch.func's transforms is one that they can go through.

    Raises:
        UnsupportedCombination: It is vmapped, or differentiated by jvp, jacrev or grad without backprop through the
            compiled engine.
    """
    if is_vmapped(y0) or is_vmapped(t):
        raise UnsupportedCombination(
            "vmap does not go through a solve, whose steps follow the values: give y0 a batch dimension instead, and "
            "differentiate by gradient='backprop' or torch.autograd.functional.jacobian"
        )
    transformed = is_transformed(y0) or is_transformed(t)
    if transformed and not (gradient == "backprop" and solver.engine == "compiled"):
        raise UnsupportedCombination(
            "torch.func's transforms do not go through this gradient: use gradient='backprop' with engine='compiled', "
            "or torch.autograd.functional.jacobian"
        )
