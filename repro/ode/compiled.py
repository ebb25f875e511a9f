"""The compiled engine: torchdiffeq's explicit Runge-Kutta methods with a controller of Python numbers.

A field that offers a kernel takes each step in one native call, any other module with a flat state in one that
torch.compile has made; the rest is stepped eagerly. Step control, starting step, error norm and dense output are
torchdiffeq's (0.2.5), so that both engines take the same steps up to rounding.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch

from repro.ode.errors import NonFiniteState, StepSizeUnderflow
from repro.ode.kernels import Kept, StageTimes, StepResult
from repro.ode.meter import Meter
from repro.ode.norms import rms
from repro.ode.problem import InitialValueProblem
from repro.ode.replay import dense_weights
from repro.ode.solvers import ORDERS, Solver
from repro.ode.steppers import Stepper, choose_stepper
from repro.ode.tableau import EVALUATION
from repro.ode.torchdiffeq_backend import Recorder, runge_kutta_tableau
from repro.types import Norm, State, Trajectory

SAFETY, GROW, SHRINK = 0.9, 10.0, 0.2
"""Of the step control: torchdiffeq's defaults."""


def integrate(
    problem: InitialValueProblem,
    solver: Solver,
    *,
    meter: Meter,
    record: Recorder | None = None,
    keep: list[Kept] | None = None,
    differentiable: bool = False,
) -> Trajectory:
    """Solve dy/dt = f(t, y), y(t[0]) = y0.

    Args:
        problem: Its steps are native where the type of its field has a kernel.
        solver: Method and tolerances.
        meter: Counts evaluations and steps.
        record: Called at every kept step.
        keep: Gets what a native kernel leaves for the gradient: of every kept step, and before them of the first
            evaluation where a step starts with the last stage of the one before.
        differentiable: Let autograd go through the kept steps, whose sizes are constants to it; native kernels are then
            left alone, and rejected steps leave no graph. Else the result is values only.

    Returns:
        The state at every output time; the first is y0.

    Raises:
        StepSizeUnderflow: The step size fell below the resolution of time.
        NonFiniteState: The state or the field's value became infinite or not a number.
        MaxNFEExceeded: The meter's budget is spent.
    """
    with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        stepper = choose_stepper(problem, meter, native=not differentiable)
        walk = _Walk(stepper, solver, meter, problem.norm or rms, record, keep)
        y0, times = problem.y0 if differentiable else problem.y0.detach(), problem.t.detach().tolist()
        run = walk.fixed if solver.is_fixed_step else walk.adaptive
        y = torch.stack([y0, *run(y0, times)])
    if not torch.isfinite(y[-1].detach()).all():
        raise meter.error(NonFiniteState, "the state is not finite")
    return y


class _Walk:
    """Go from the first output time to the last."""

    def __init__(
        self,
        stepper: Stepper,
        solver: Solver,
        meter: Meter,
        norm: Norm,
        record: Recorder | None,
        kept: list[Kept] | None,
    ) -> None:
        self._stepper, self._solver, self._meter, self._record = stepper, solver, meter, record
        self._kept, self._keep = kept, kept is not None
        self._tableau, self._norm = runge_kutta_tableau(solver.method), norm
        self._tolerances = (solver.rtol, solver.atol)

    def fixed(self, y: State, times: list[float]) -> Iterator[State]:
        """Steps of a given size; outputs between two nodes by linear interpolation."""
        sign, upcoming = _sign(times), 1
        if self._solver.step_size is not None:
            self._meter.check_grid(times[0], times[-1], self._solver.step_size)
        for start, end in pairwise(_nodes(times, self._solver.step_size, y.dtype)):
            at = StageTimes(start, end - start, end)
            result = self._stepper.step(self._tableau, at, y, None, None, keep=self._keep)
            self._note(at, y, result, accepted=True)
            while upcoming < len(times) and sign * times[upcoming] <= sign * end:
                share = (times[upcoming] - start) / at.size
                yield result.end if times[upcoming] == end else torch.lerp(y, result.end, share)
                upcoming += 1
            y = result.end

    def adaptive(self, y: State, times: list[float]) -> Iterator[State]:
        """Steps under control of the error; outputs inside a step by its quartic."""
        if not torch.isfinite(y.detach()).all():
            raise self._meter.error(NonFiniteState, "the state is not finite")
        sign, start, upcoming = _sign(times), times[0], 1
        first = self._stepper.step(EVALUATION, StageTimes(start, 0.0, start), y, None, None, keep=self._keep)
        self._hold(first)
        f = first.last
        longest = self._solver.max_step or math.inf
        size = min(self._solver.first_step or self._first_step(start, y, f, sign), longest)
        while upcoming < len(times):
            at = self._cut(self._checked(start, size, sign), times[upcoming], sign)
            result = self._stepper.step(self._tableau, at, y, f, self._tolerances, keep=self._keep)
            ratio = self._ratio(result)
            self._note(at, y, result, accepted=ratio <= 1)
            if ratio <= 1:
                while upcoming < len(times) and sign * times[upcoming] <= sign * at.end:
                    yield interpolated(at, y, f, result, times[upcoming])
                    upcoming += 1
                start, y, f = at.end, result.end, result.last
            size = min(abs(at.size) * _factor(ratio, ORDERS[self._solver.method] or 1), longest)

    def _checked(self, start: float, size: float, sign: float) -> StageTimes:
        end = start + sign * size
        if not sign * end > sign * start:
            raise self._meter.error(StepSizeUnderflow, "the step size underflowed")
        return StageTimes(start, sign * size, end)

    def _cut(self, at: StageTimes, output: float, sign: float) -> StageTimes:
        """End a step on the next output where the method has no interpolant of its order."""
        if not self._solver.ends_steps_on_outputs or sign * at.end <= sign * output:
            return at
        return StageTimes(at.start, output - at.start, output)

    def _ratio(self, result: StepResult) -> float:
        """Size of the step's error; the one number that is read per step, so it tells of the state's end too."""
        assert result.error is not None
        largest = torch.linalg.vector_norm(result.end.detach(), math.inf)
        ratio = float(self._norm(result.error.detach()) + 0 * largest)
        if math.isnan(ratio):
            raise self._meter.error(NonFiniteState, "the state or the field's value is not finite")
        return ratio

    def _hold(self, result: StepResult) -> None:
        if self._kept is not None and result.kept is not None:
            self._kept.append(result.kept)

    def _note(self, at: StageTimes, y: State, result: StepResult, *, accepted: bool) -> None:
        self._meter.step(at.start, abs(at.size), accepted)
        if accepted:
            self._hold(result)
        if accepted and self._record is not None:
            time = torch.tensor([at.start, abs(at.size)], dtype=torch.float64 if self._solver.is_adaptive else y.dtype)
            self._record(time[0], y, time[1])

    def _first_step(self, start: float, y: State, f: State, sign: float) -> float:
        """Starting step of Hairer, Norsett and Wanner (II.4) as torchdiffeq has it: one more evaluation."""
        y, f = y.detach(), f.detach()
        scale = y.abs().mul_(self._solver.rtol).add_(self._solver.atol)
        order = ORDERS[self._solver.method] or 1
        d0, d1 = float(self._norm(y / scale)), float(self._norm(f / scale))
        if not math.isfinite(d1):
            raise self._meter.error(NonFiniteState, "the field's value is not finite")
        h0 = 1e-6 if min(d0, d1) < 1e-5 else 0.01 * d0 / d1
        with torch.no_grad():
            ahead = self._stepper.evaluate(start + sign * h0, torch.add(y, f, alpha=sign * h0)).detach()
        d2 = float(self._norm((ahead - f).div_(scale))) / h0
        h1 = max(1e-6, h0 * 1e-3) if max(d1, d2) <= 1e-15 else (0.01 / max(d1, d2)) ** (1 / order)
        return min(100 * h0, h1)


def interpolated(at: StageTimes, y: State, f: State, result: StepResult, time: float) -> State:
    """The step's quartic at a time inside it."""
    assert result.mid is not None
    parts = (y, result.mid, result.end, at.size * f, at.size * result.last)
    weights = dense_weights((time - at.start) / at.size)
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum(0)


def _sign(times: list[float]) -> float:
    return 1.0 if times[-1] > times[0] else -1.0


def _factor(ratio: float, order: int) -> float:
    """By how much the next step is longer."""
    if ratio == 0:
        return GROW
    return min(GROW, max(SAFETY / ratio ** (1 / order), 1.0 if ratio < 1 else SHRINK))


def _nodes(times: list[float], step_size: float | None, dtype: torch.dtype) -> list[float]:
    """Ends of the fixed steps, as torchdiffeq rounds them; the last one is the last output time."""
    if step_size is None:
        return times
    sign = _sign(times)
    ends = torch.tensor([sign * times[0], sign * times[-1]], dtype=dtype)
    count = int(torch.ceil((ends[1] - ends[0]) / step_size + 1).item())
    nodes = torch.arange(0, count, dtype=dtype) * step_size + ends[0]
    nodes[-1] = ends[1]
    return (sign * nodes).tolist()
