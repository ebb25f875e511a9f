"""Integrate with SciPy's VODE: the implicit Adams method, on the CPU in float64."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.integrate import ode
from scipy.integrate._ode import vode
from torch import Tensor

from repro.ode.errors import NonFiniteState, SolveError, StepSizeUnderflow, UnsupportedCombination
from repro.ode.meter import Meter
from repro.ode.problem import InitialValueProblem
from repro.ode.solvers import Solver
from repro.types import Trajectory, VectorField

_NO_LIMIT = 10**9
_N_STEPS = 10  # positions in VODE's work arrays of the number of steps, the last step's size, the time reached
_LAST_DT = 10
_TIME = 12

_FAILURES = {
    -1: "VODE did too much work",
    -2: "the tolerances are too small for float64",
    -3: "VODE refused its input",
    -4: "the step size underflowed: repeated failures of the error test",
    -5: "the step size underflowed: repeated failures of the corrector",
    -6: "an error weight became zero",
}


def integrate(problem: InitialValueProblem, solver: Solver, *, meter: Meter) -> Trajectory:
    """Solve dy/dt = f(t, y), y(t[0]) = y0 by VODE's variable-order Adams-Moulton method with functional iteration.

    Values only: autograd cannot go through it. The state travels to the CPU and to float64 at every evaluation; the
    field sees its own dtype and device. VODE holds 16 copies of the state and no Jacobian.

    Args:
        problem: Field, state at t[0], output times; its norm must be None: VODE always uses the RMS over all elements.
        solver: Tolerances.
        meter: Counts evaluations and steps.

    Returns:
        The state at every output time, in y0's dtype and device.

    Raises:
        StepSizeUnderflow: VODE gave up on a step.
        NonFiniteState: The field's value became infinite or not a number.
        MaxNFEExceeded: The meter's budget is spent.
        ValueError: A norm was given.
        UnsupportedCombination: The field itself solves by VODE, which holds one problem at a time.

    References:
        Brown, Byrne, Hindmarsh 1989, VODE. Chen et al. 2018, Sec. 3 used the implicit Adams code of LSODE and VODE
        through `scipy.integrate`; deviation: `with_jacobian=False`, so that memory is linear in the state.
    """
    if problem.norm is not None:
        raise ValueError("norm must be None for the scipy engine: VODE measures errors by its own")
    call = _Field(meter.watch(problem.evaluate), problem.y0, meter)
    meter.n_rejected = None
    n_before = meter.n_accepted or 0
    outputs = [problem.y0.detach()]
    with _refuse_nesting():
        integrator = _vode(call, problem.y0, problem.t[0].item(), solver)
        for time in problem.t[1:].tolist():
            outputs.append(call.to_tensor(_advance(integrator, time, call, meter)))
            meter.n_accepted = n_before + int(_work(integrator).iwork[_N_STEPS])
    return torch.stack(outputs)


_running = threading.local()


@contextmanager
def _refuse_nesting() -> Iterator[None]:
    """Refuse a solve inside a solve of this thread."""
    if getattr(_running, "vode", False):
        raise UnsupportedCombination(
            "SciPy's VODE cannot solve within a field that it is solving: use another engine for one of the two"
        )
    _running.vode = True
    try:
        yield
    finally:
        _running.vode = False


class _Field:
    """The field as a function of NumPy arrays."""

    def __init__(self, field: VectorField, y0: Tensor, meter: Meter) -> None:
        self._field, self._like, self._meter = field, y0, meter
        self.failure: BaseException | None = None

    def __call__(self, t: float, y: np.ndarray) -> np.ndarray:
        # SciPy drops exceptions and goes on calling; a zero derivative lets VODE reach the end at once.
        if self.failure is not None:
            return np.zeros_like(y)
        try:
            return self._evaluate(t, y)
        except BaseException as failure:  # KeyboardInterrupt too
            self.failure = failure
            return np.zeros_like(y)

    def _evaluate(self, t: float, y: np.ndarray) -> np.ndarray:
        like = self._like
        with torch.no_grad():
            dy = self._field(torch.tensor(t, dtype=like.dtype, device=like.device), self.to_tensor(y))
        values = dy.detach().reshape(-1).to("cpu", torch.float64).numpy()
        # VODE has no notion of NaN and would iterate on it.
        if not np.isfinite(values).all():
            raise self._meter.error(NonFiniteState, f"the field's value is not finite at t = {t:.6g}")
        return values

    def to_tensor(self, y: np.ndarray) -> Tensor:
        """Copy: VODE overwrites its arrays."""
        return torch.tensor(y, dtype=self._like.dtype, device=self._like.device).view(self._like.shape)


def _vode(call: _Field, y0: Tensor, t0: float, solver: Solver) -> ode:
    integrator = ode(call).set_integrator(
        "vode",
        method="adams",
        with_jacobian=False,
        nsteps=_NO_LIMIT,
        rtol=solver.rtol,
        atol=solver.atol,
        first_step=solver.first_step or 0.0,
        max_step=solver.max_step or 0.0,  # 0 is no limit
    )
    start = y0.detach().reshape(-1).to("cpu", torch.float64).numpy()
    return integrator.set_initial_value(start, t0)


def _advance(integrator: ode, time: float, call: _Field, meter: Meter) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the failure codes below say the same
        y = integrator.integrate(time)
    if call.failure is not None:
        raise call.failure
    if not integrator.successful():
        raise _failure(integrator, meter)
    return y


def _work(integrator: ode) -> vode:
    # SciPy offers no public way to VODE's statistics.
    return integrator._integrator  # pyright: ignore[reportAttributeAccessIssue]


def _failure(integrator: ode, meter: Meter) -> SolveError:
    code, work = integrator.get_return_code(), _work(integrator).rwork
    where = f" at t = {work[_TIME]:.6g}, dt = {work[_LAST_DT]:.3g}"
    return meter.error(StepSizeUnderflow, _FAILURES.get(code, f"VODE failed with code {code}") + where)
