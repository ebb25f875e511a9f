"""Choose how a solve is differentiated, and which solvers allow it."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from repro.checks import check_name
from repro.ode import compiled, torchdiffeq_backend
from repro.ode.adjoint import adjoint, adjoint_seminorm
from repro.ode.checkpoint import checkpoint
from repro.ode.errors import UnsupportedCombination
from repro.ode.first_order import refuse_second_order
from repro.ode.meter import Meter, Stats
from repro.ode.problem import InitialValueProblem
from repro.ode.runge_kutta import RUNGE_KUTTA
from repro.ode.solvers import Solver
from repro.ode.steppers import why_not_traced
from repro.types import Trajectory


@runtime_checkable
class Gradient(Protocol):
    """Solve an initial value problem in a way that autograd can differentiate."""

    def __call__(self, problem: InitialValueProblem, solver: Solver, stats: Stats) -> Tensor:
        """Return the state at every output time, and fill `stats`."""
        ...


def backprop(problem: InitialValueProblem, solver: Solver, stats: Stats) -> Trajectory:
    """Solve, with gradients by autograd through every operation of the solver.

    Memory grows with the evaluations; under torchdiffeq's engine those of rejected steps count too, and its estimate of
    the first step is differentiated, so that the gradient is not quite that of a fixed sequence of steps unless
    `first_step` or a norm is given; the difference is of the order of the truncation error. The compiled engine holds
    the sequence constant, as `checkpoint` does, and keeps accepted steps alone, a field's own kernel no more than their
    matrix products; gradients for t are torchdiffeq's.

    Args:
        problem: Field, state at t[0], output times, norm; parameters are found by autograd.
        solver: Method and tolerances; the torchdiffeq or the compiled engine.
        stats: Filled; `nfe_backward` stays None, because backward evaluates no field.

    Returns:
        The state at every output time.

    Raises:
        UnsupportedCombination: t requires gradients, and torchdiffeq does not have the method.
    """
    meter = Meter(solver.max_nfe)
    if problem.t.requires_grad and solver.method in RUNGE_KUTTA:
        raise UnsupportedCombination(
            f"backprop leaves gradients for t to torchdiffeq, which has no {solver.method!r}; use checkpoint or adjoint"
        )
    if solver.engine != "compiled" or problem.t.requires_grad:
        y = torchdiffeq_backend.integrate(problem, solver, meter=meter)
    elif not isinstance(problem.kernel, str):
        return checkpoint(problem, solver, stats, keep=True)
    else:
        y = compiled.integrate(problem, solver, meter=meter, differentiable=True)
        y = refuse_second_order(y) if why_not_traced(problem) is None else y
    stats.set_forward(meter)
    return y


GRADIENTS: dict[str, Gradient] = {
    "backprop": backprop,
    "adjoint": adjoint,
    "adjoint_seminorm": adjoint_seminorm,
    "checkpoint": checkpoint,
}
"""Ways to differentiate a solve by name; `supported` says which solvers allow them."""


def supported(solver: Solver, gradient: str) -> str | None:
    """Return None if `gradient` works with `solver`, else the reason why it does not.

    Args:
        solver: Method and engine.
        gradient: A name in `GRADIENTS`.

    Raises:
        ValueError: `gradient` is not a known name.
    """
    check_name("gradient", gradient, GRADIENTS)
    if gradient == "adjoint":
        return None
    if solver.engine == "scipy":
        return _SCIPY_REASONS[gradient]
    if gradient == "checkpoint" and not solver.is_explicit_runge_kutta:
        return f"checkpoint replays single steps, and a step of {solver.method!r} depends on the steps before it"
    return None


_SCIPY_REASONS = {
    "backprop": "autograd cannot go through SciPy's compiled code; use adjoint",
    "adjoint_seminorm": "SciPy's VODE does not take an error norm; use adjoint",
    "checkpoint": "SciPy does not report its steps, so they cannot be replayed; use adjoint",
}
