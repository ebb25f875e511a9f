"""Integrate with torchdiffeq; the only module that imports it."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torchdiffeq import odeint
from torchdiffeq._impl.odeint import SOLVERS as _TORCHDIFFEQ_SOLVERS
from torchdiffeq._impl.rk_common import RKAdaptiveStepsizeODESolver, _RungeKuttaState

from repro.ode.errors import NonFiniteState, StepSizeUnderflow
from repro.ode.meter import Meter
from repro.ode.problem import InitialValueProblem
from repro.ode.runge_kutta import RUNGE_KUTTA
from repro.ode.solvers import Solver
from repro.ode.tableau import FIXED_TABLEAUS, Tableau
from repro.types import Scalar, Trajectory, VectorField

Recorder = Callable[[Tensor, Tensor, Tensor], None]
"""Called with (t, y, dt) of each kept step; dt > 0 also when time decreases."""


def integrate(
    problem: InitialValueProblem,
    solver: Solver,
    *,
    meter: Meter,
    record: Recorder | None = None,
) -> Trajectory:
    """Solve dy/dt = f(t, y), y(t[0]) = y0; autograd can go through it.

    Args:
        problem: Field, state at t[0], output times, norm. Where a norm is given, the sizes of the steps are constants
            to autograd: a norm has kinks, where its derivative may be no number.
        solver: Method and tolerances.
        meter: Counts evaluations and steps.
        record: Called at every kept step.

    Returns:
        The state at every output time; the first is y0.

    Raises:
        StepSizeUnderflow: The step size fell below the resolution of time.
        NonFiniteState: The state or the field's value became infinite or not a number.
        MaxNFEExceeded: The meter's budget is spent.
    """
    kind = _WatchedAdaptive if solver.is_adaptive else _WatchedFixed
    watched = kind(meter.watch(problem.evaluate), meter, record)
    if solver.step_size is not None:
        meter.check_grid(float(problem.t[0]), float(problem.t[-1]), solver.step_size)
    tolerances = {"rtol": solver.rtol, "atol": solver.atol}
    try:
        y = odeint(
            watched, problem.y0, problem.t, method=solver.method, options=_options(solver, problem), **tolerances
        )
    except AssertionError as error:
        # torchdiffeq reports failure by assertions; a field may have assertions of its own, which pass through.
        raise _typed(error, meter) from None
    assert isinstance(y, Tensor)
    # Fixed-step methods never look at the state, and no method looks at the last one.
    if not torch.isfinite(y.detach()[-1]).all():
        raise meter.error(NonFiniteState, "the state is not finite")
    return y


@functools.cache
def runge_kutta_tableau(method: str) -> Tableau:
    """Return the coefficients of an explicit Runge-Kutta `method`: torchdiffeq's, or those of one that it lacks."""
    if method in RUNGE_KUTTA:
        return RUNGE_KUTTA[method].tableau
    if method in FIXED_TABLEAUS:
        return FIXED_TABLEAUS[method]
    solver = _TORCHDIFFEQ_SOLVERS[method]
    alpha, beta, c_sol, c_error = solver.tableau
    return Tableau(
        alpha=(0.0, *alpha.tolist()),
        beta=((), *(tuple(row.tolist()) for row in beta)),
        weights=tuple(c_sol.tolist()),
        mid=tuple(solver.mid.tolist()),
        error=tuple(c_error.tolist()),
    )


class _Watched:
    """The field, and what becomes of the steps that torchdiffeq reports."""

    def __init__(self, field: VectorField, meter: Meter, record: Recorder | None) -> None:
        self._field, self._meter, self._record = field, meter, record

    def __call__(self, t: Scalar, y: Tensor) -> Tensor:
        return self._field(t, y)

    def _step(self, t: Scalar, y: Tensor, dt: Scalar, *, accepted: bool) -> None:
        self._meter.step(t.detach(), dt.detach(), accepted)
        if accepted and self._record is not None:
            self._record(t.detach(), y.detach(), dt.detach())


def _pass_outputs(step: Callable[..., _RungeKuttaState]) -> Callable[..., _RungeKuttaState]:
    """Let a step that happens to end on a time of `step_t` count as one that was cut there.

    torchdiffeq 0.2.5 goes on to the next time only after a cut; without one it waits for that time for ever, and cuts
    no later step.
    """

    @functools.wraps(step)
    def stepped(solver: RKAdaptiveStepsizeODESolver, state: _RungeKuttaState) -> _RungeKuttaState:
        after = step(solver, state)
        times = solver.step_t
        assert times is not None  # made before the first step, empty where there are none
        while solver.next_step_index < len(times) - 1 and times[solver.next_step_index] <= after.t1:
            solver.next_step_index += 1
        return after

    return stepped


RKAdaptiveStepsizeODESolver._adaptive_step = _pass_outputs(RKAdaptiveStepsizeODESolver._adaptive_step)


# Methods of classes: as attributes that hold bound methods they would be cycles, and the states that are recorded would
# wait for the collector.
class _WatchedAdaptive(_Watched):
    """With the callbacks of methods that may reject a step."""

    def callback_accept_step(self, t: Scalar, y: Tensor, dt: Scalar) -> None:
        self._step(t, y, dt, accepted=True)

    def callback_reject_step(self, t: Scalar, y: Tensor, dt: Scalar) -> None:
        self._step(t, y, dt, accepted=False)


class _WatchedFixed(_Watched):
    """With the callback of methods that keep every step."""

    def callback_step(self, t: Scalar, y: Tensor, dt: Scalar) -> None:
        self._step(t, y, dt, accepted=True)


# torchdiffeq's explicit Adams method goes up to order 11 by default, where its region of stability is next to nothing:
# y' = -y over [0, 2] in 128 steps ends with an error of 1e9. An order of n needs max_order = n + 1 there.
_FOURTH_ORDER_ADAMS = 5


def _options(solver: Solver, problem: InitialValueProblem) -> dict[str, object]:
    norm = problem.norm
    given: dict[str, object] = {
        "step_size": solver.step_size,
        "first_step": solver.first_step,
        "max_step": solver.max_step,
    }
    if norm is not None and solver.is_adaptive:  # without it there is no error estimate to measure
        given["norm"] = lambda error: norm(error.detach())
    if solver.ends_steps_on_outputs:
        given["step_t"] = problem.t[1:]
    if solver.method == "explicit_adams":
        given["max_order"] = _FOURTH_ORDER_ADAMS
    return {name: value for name, value in given.items() if value is not None}


def _typed(error: AssertionError, meter: Meter) -> Exception:
    message = str(error)
    if message.startswith("non-finite values in state"):
        return meter.error(NonFiniteState, "the state is not finite")
    if not message.startswith("underflow in dt"):
        return error
    # A NaN error estimate makes torchdiffeq's next step 0: the field is to blame, not the step size.
    if not meter.derivative_is_finite:
        return meter.error(NonFiniteState, "the field's value is not finite")
    return meter.error(StepSizeUnderflow, "the step size underflowed")
