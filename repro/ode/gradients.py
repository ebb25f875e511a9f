"""Choose how a solve is differentiated, and which solvers allow it."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from repro.checks import check_name
from repro.ode import compiled, torchdiffeq_backend
from repro.ode.adjoint import adjoint, adjoint_seminorm
from repro.ode.checkpoint import checkpoint
from repro.ode.errors import UnsupportedCombination
from repro.ode.meter import Meter, Stats
from repro.ode.runge_kutta import RUNGE_KUTTA
from repro.ode.solvers import Solver
from repro.ode.steppers import native_kernel_of
from repro.types import Norm, State, Times, Trajectory, VectorField


@runtime_checkable
class Gradient(Protocol):
    """Solve an initial value problem in a way that autograd can differentiate."""

    def __call__(
        self,
        field: VectorField,
        y0: Tensor,
        t: Tensor,
        solver: Solver,
        *,
        parameters: tuple[Tensor, ...],
        stats: Stats,
        norm: Norm | None = None,
    ) -> Tensor:
        """Return the state at every output time, and fill `stats`."""
        ...


def backprop(
    field: VectorField,
    y0: State,
    t: Times,
    solver: Solver,
    *,
    parameters: tuple[Tensor, ...],
    stats: Stats,
    norm: Norm | None = None,
) -> Trajectory:
    """Solve, with gradients by autograd through every operation of the solver.

    Memory grows with the evaluations; under torchdiffeq's engine those of rejected steps count too, and its estimate of
    the first step is differentiated, so that the gradient is not quite that of a fixed sequence of steps unless
    `first_step` is given; the difference is of the order of the truncation error. The compiled engine holds the
    sequence constant, as `checkpoint` does, and keeps accepted steps alone, a field's own kernel no more than their
    matrix products; gradients for t are torchdiffeq's.

    Args:
        field: Right-hand side.
        y0: State at t[0].
        t: Output times.
        solver: Method and tolerances; the torchdiffeq or the compiled engine.
        parameters: Not used: autograd finds them.
        stats: Filled; `nfe_backward` stays None, because backward evaluates no field.
        norm: Size of an error; None is the RMS.

    Returns:
        The state at every output time.

    Raises:
        UnsupportedCombination: t requires gradients, and torchdiffeq does not have the method.
    """
    meter = Meter(solver.max_nfe)
    if t.requires_grad and solver.method in RUNGE_KUTTA:
        raise UnsupportedCombination(
            f"backprop leaves gradients for t to torchdiffeq, which has no {solver.method!r}; use checkpoint or adjoint"
        )
    if solver.engine != "compiled" or t.requires_grad:
        y = torchdiffeq_backend.integrate(field, y0, t, solver, meter=meter, norm=norm)
    elif isinstance(field, nn.Module) and not isinstance(native_kernel_of(field, y0), str):
        own = tuple(p for p in field.parameters() if p.requires_grad)
        return checkpoint(field, y0, t, solver, parameters=own, stats=stats, norm=norm, keep=True)
    else:
        y = compiled.integrate(field, y0, t, solver, meter=meter, norm=norm, differentiable=True)
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
