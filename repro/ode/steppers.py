"""Who takes a compiled engine's steps: the field's own kernel, a traced one, or torch's operations one by one."""

import logging

import torch
from torch import Tensor

from repro.ode.field_state import compare_states, read_state
from repro.ode.guard import GuardedField
from repro.ode.kernels import StageTimes, StepResult, Steps, TracedKernel
from repro.ode.meter import Meter
from repro.ode.problem import InitialValueProblem
from repro.ode.tableau import Tableau
from repro.types import VectorField

_log = logging.getLogger(__name__)


def why_not_traced(problem: InitialValueProblem) -> str | None:
    """Say why a problem's steps cannot be traced; None if they can.

    A graph stands for all evaluations, so that an evaluation must leave nothing behind: no running statistics, no
    counts, no memory that the next one writes to. What one of them leaves, shows after the first.
    """
    if reason := TracedKernel.why_not(problem.field, problem.y0):
        return reason
    evaluate = problem.evaluate
    if isinstance(evaluate, GuardedField) and evaluate.side_effect is not None:
        return evaluate.side_effect
    return None


_LOGGED: set[str] = set()


def _log_eager(*reasons: str) -> None:
    reason = "; ".join(reasons)
    if reason not in _LOGGED:
        _LOGGED.add(reason)
        _log.info("the compiled engine steps eagerly: %s", reason)


class _Counted:
    """A kernel whose evaluations are counted; nothing of a step is computed beyond the budget."""

    def __init__(self, kernel: Steps, meter: Meter) -> None:
        self._kernel, self._meter = kernel, meter

    def step(
        self,
        tableau: Tableau,
        at: StageTimes,
        y: Tensor,
        f: Tensor | None,
        tolerances: tuple[float, float] | None,
        *,
        keep: bool = False,
    ) -> StepResult:
        self._meter.spend(len(tableau.alpha) - (f is not None))
        return self._kernel.step(tableau, at, y, f, tolerances, keep=keep)

    def evaluate(self, t: float, y: Tensor) -> Tensor:
        self._meter.spend(1)
        return self._kernel.evaluate(t, y)


class _Eager:
    """Steps of any field by torch's own operations."""

    def __init__(self, field: VectorField, meter: Meter) -> None:
        self._field = meter.watch(field)

    def step(
        self,
        tableau: Tableau,
        at: StageTimes,
        y: Tensor,
        f: Tensor | None,
        tolerances: tuple[float, float] | None,
        *,
        keep: bool = False,
    ) -> StepResult:
        k = [self.evaluate(at.start, y) if f is None else f]
        for time, row in zip(at.of(tableau)[1:], tableau.beta[1:], strict=True):
            k.append(self.evaluate(time, _combined(y, at.size, row, k)))
        end = _combined(y, at.size, tableau.weights, k)
        if tolerances is None or tableau.mid is None or tableau.error is None:
            return StepResult(end, k[-1], None, None)
        rtol, atol = tolerances
        with torch.no_grad():
            error = _combined(None, at.size, tableau.error, k) / (torch.maximum(y.abs(), end.abs()) * rtol + atol)
        return StepResult(end, k[-1], _combined(y, at.size, tableau.mid, k), error)

    def evaluate(self, t: float, y: Tensor) -> Tensor:
        return self._field(torch.tensor(t, dtype=y.dtype, device=y.device), y)


class _Traced:
    """Steps by torch's own operations at first, by a traced kernel once these have left nothing behind.

    Args:
        problem: Whose field is evaluated.
        meter: Counts the evaluations.
        native: Why there is no native kernel.
    """

    def __init__(self, problem: InitialValueProblem, meter: Meter, native: str) -> None:
        assert isinstance(problem.evaluate, GuardedField)  # only modules are traced, which are users'
        self._problem, self._guard, self._meter, self._native = problem, problem.evaluate, meter, native
        self._eager = _Eager(problem.evaluate, meter)
        self._steps: _Eager | _Counted | None = None

    def step(
        self,
        tableau: Tableau,
        at: StageTimes,
        y: Tensor,
        f: Tensor | None,
        tolerances: tuple[float, float] | None,
        *,
        keep: bool = False,
    ) -> StepResult:
        if self._steps is not None:
            return self._steps.step(tableau, at, y, f, tolerances, keep=keep)
        # Where the problem has a state, it is from before its first evaluation, which may have been made already.
        before = self._problem.state or read_state(self._problem.field)
        result = self._eager.step(tableau, at, y, f, tolerances, keep=keep)
        if compare_states(before, read_state(self._problem.field)):
            self._guard.side_effect = "an evaluation of the field changes its state"
        if self._guard.fills_memory and self._guard.n_evaluations < 2:
            return result
        if self._guard.side_effect is None:
            self._steps = _Counted(TracedKernel(self._problem.field), self._meter)
        else:
            _log_eager(self._native, self._guard.side_effect)
            self._steps = self._eager
        return result

    def evaluate(self, t: float, y: Tensor) -> Tensor:
        return self._eager.evaluate(t, y)


def _combined(y: Tensor | None, size: float, weights: tuple[float, ...], k: list[Tensor]) -> Tensor:
    total = y
    for weight, slope in zip(weights, k, strict=False):
        if weight != 0:
            total = slope * (size * weight) if total is None else torch.add(total, slope, alpha=size * weight)
    return torch.zeros_like(k[0]) if total is None else total


Stepper = _Counted | _Eager | _Traced


def choose_stepper(problem: InitialValueProblem, meter: Meter, *, native: bool = True) -> Stepper:
    """Choose who takes a problem's steps: by the field's own kernel only if `native`."""
    kernel = problem.kernel if native else "autograd does not go through native code"
    if not isinstance(kernel, str):
        return _Counted(kernel, meter)
    untraced = TracedKernel.why_not(problem.field, problem.y0)
    if untraced is None:
        return _Traced(problem, meter, kernel)
    _log_eager(kernel, untraced)
    return _Eager(problem.evaluate, meter)
