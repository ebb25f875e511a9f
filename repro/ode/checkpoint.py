"""Differentiate a solve by replaying its steps: the exact gradient of the discretisation, one state kept per step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from repro.ode import compiled, torchdiffeq_backend
from repro.ode.first_order import first_order, save_setting
from repro.ode.kernels import Kept, StepKernel, TracedKernel
from repro.ode.meter import Meter, Stats
from repro.ode.native_sweep import NativeSweep
from repro.ode.problem import InitialValueProblem
from repro.ode.replay import Grid, replay
from repro.ode.solvers import Solver
from repro.ode.steppers import why_not_traced
from repro.ode.torchdiffeq_backend import runge_kutta_tableau
from repro.types import Scalar, Trajectory


def checkpoint(problem: InitialValueProblem, solver: Solver, stats: Stats, *, keep: bool = False) -> Trajectory:
    """Solve, with the exact gradient of the discrete solution for the steps that the solver took.

    The forward pass keeps the state at the start of each accepted step (for adaptive_heun and fehlberg2 also the
    derivative that torchdiffeq carries from step to step). The backward pass evaluates the steps once more, last one
    first, and takes one vector-Jacobian product through each; these evaluations count as backward. Memory: one state
    per step, and the graph of a single step.

    The sequence of steps is held constant, as in `backprop` with `first_step` given; the two then agree to rounding.
    Without `first_step`, `backprop` also differentiates the estimate of the first step, and differs by about the
    truncation error. In a fixed grid the ends of the steps follow t as torchdiffeq's do.

    Args:
        problem: Field, state at t[0], output times, norm, and the tensors that get gradients.
        solver: An explicit Runge-Kutta method of the torchdiffeq or the compiled engine; under the latter a field with
            a kernel is replayed and differentiated by it, unless `t` requires grad.
        stats: Filled now, and by `backward()`.
        keep: Keep the matrix products of a wide field's accepted steps until the backward pass, instead of making them
            again; for a field whose own kernel takes the steps. A small field's steps are replayed all the same, since
            that takes no longer. `stats` then has no backward part, as for `backprop`.

    Returns:
        The state at every output time.

    References:
        Zhuang et al. 2020, "Adaptive checkpoint adjoint" (arXiv 2006.02493), Algorithm 2. Deviations: the initial step
        and the step sizes carry no gradient (as there), and output times inside a step use torchdiffeq's dense output.
    """
    if not keep:
        stats.nfe_backward = 0
    inputs = (problem.y0, problem.t, *problem.parameters)
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
    return _Checkpoint.apply(_Task(problem, solver, stats, wanted, keep and wanted), *inputs)


_INTEGRATE = {"torchdiffeq": torchdiffeq_backend.integrate, "compiled": compiled.integrate}
"""Engines that report their steps."""


@dataclass(frozen=True)
class _Task:
    """What the passes need beside tensors.

    Attributes:
        problem: The initial value problem.
        solver: Method and tolerances.
        stats: What the passes cost; they fill it.
        wanted: Whether a backward pass may follow.
        keep: Whether the steps leave their products for it.
    """

    problem: InitialValueProblem
    solver: Solver
    stats: Stats
    wanted: bool
    keep: bool

    @property
    def carries_derivative(self) -> bool:
        """Whether a step starts from the last stage of the one before, which is not f at its own start.

        torchdiffeq treats every adaptive method as FSAL, though adaptive_heun and fehlberg2 are not.
        """
        return self.solver.is_adaptive and not runge_kutta_tableau(self.solver.method).is_fsal


class _Recorder:
    """Keep the start of each accepted step."""

    def __init__(self, meter: Meter, carries_derivative: bool) -> None:
        self.starts: list[Tensor] = []
        self.sizes: list[Tensor] = []
        self.states: list[Tensor] = []
        self.derivatives: list[Tensor] = []
        self._meter, self._carries = meter, carries_derivative

    def __call__(self, t: Scalar, y: Tensor, dt: Scalar) -> None:
        self.starts.append(t)
        self.sizes.append(dt)
        self.states.append(y)
        # The step is complete, so the field's last value is its last stage.
        if self._carries and self._meter.last_derivative is not None:
            self.derivatives.append(self._meter.last_derivative)


class _Checkpoint(torch.autograd.Function):
    """y0, t, parameters -> the state at every output time."""

    @staticmethod
    def forward(ctx: Any, task: _Task, y0: Tensor, t: Tensor, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        meter = Meter(task.solver.max_nfe)
        recorder = _Recorder(meter, task.carries_derivative) if task.wanted else None
        kept: list[Kept] = []
        settings = {"keep": kept} if task.keep else {}
        y = _INTEGRATE[task.solver.engine](task.problem, task.solver, meter=meter, record=recorder, **settings)
        task.stats.set_forward(meter)
        if recorder is not None:
            ctx.task, ctx.n_parameters, ctx.n_steps = task, len(parameters), len(recorder.states)
            ctx.grid = Grid(task.solver, recorder.starts, recorder.sizes, t)
            ctx.parts = [entry.parts for entry in kept]
            numbers = [entry.numbers for entry in kept]
            ctx.save_for_backward(t, *parameters, *recorder.states, *recorder.derivatives, *numbers)
            save_setting(ctx, task.problem)
        return y

    @staticmethod
    @first_order
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        grad_y: Tensor,
    ) -> tuple[Tensor | None, ...]:
        t, *saved = ctx.saved_tensors
        parameters, saved = saved[: ctx.n_parameters], saved[ctx.n_parameters :]
        task, (_, _, wants_t, *_) = ctx.task, ctx.needs_input_grad
        meter = Meter(task.solver.max_nfe)
        states, derivatives = saved[: ctx.n_steps], saved[ctx.n_steps : len(saved) - len(ctx.parts)]
        kept = [Kept(*pair) for pair in zip(saved[len(saved) - len(ctx.parts) :], ctx.parts, strict=True)]
        kernel = None if wants_t or task.solver.engine != "compiled" else _choose_kernel(task.problem, parameters)
        if kernel is not None:
            sweep = NativeSweep(kernel, task.solver.method, meter, t, parameters, kept)
        else:
            sweep = _Sweep(task, meter, t.detach().requires_grad_(wants_t), parameters)
        try:
            grad_y0 = sweep.run(ctx.grid, states, derivatives, grad_y)
        finally:
            if not task.keep:
                task.stats.add_backward(meter)
        return None, grad_y0, sweep.grad_t if wants_t else None, *sweep.grad_parameters


def _choose_kernel(problem: InitialValueProblem, parameters: list[Tensor]) -> StepKernel | None:
    """Choose the kernel that replays the steps: the one that took them, or a traced one; None replays eagerly."""
    if isinstance(problem.kernel, StepKernel):
        return problem.kernel
    return TracedKernel(problem.field, tuple(parameters)) if why_not_traced(problem) is None else None


class _Sweep:
    """Go back through the steps and add up the gradients."""

    def __init__(self, task: _Task, meter: Meter, t: Tensor, parameters: list[Tensor]) -> None:
        self._field, self._tableau = meter.watch(task.problem.evaluate), runge_kutta_tableau(task.solver.method)
        self._meter, self._t, self._parameters = meter, t, parameters
        self.grad_t = torch.zeros_like(t)
        self.grad_parameters = [torch.zeros_like(p) for p in parameters]

    def run(self, grid: Grid, states: list[Tensor], derivatives: list[Tensor], grad_y: Tensor) -> Tensor:
        """Return the gradient of y0; `derivatives[n]` is step n's last stage, if step n + 1 starts with it."""
        grads: tuple[Tensor | None, Tensor | None] = (None, None)
        for n in reversed(range(len(grid))):
            y = states[n].detach().requires_grad_()
            f = derivatives[n - 1].detach().requires_grad_() if derivatives and n > 0 else None
            results = self._replay(grid, n, y, f)
            grads = self._pull_back(results, (grads[0], grads[1], grad_y[grid.outputs(n)]), y, f)
        return grad_y[0] if grads[0] is None else grad_y[0] + grads[0]

    def _replay(self, grid: Grid, n: int, y: Tensor, f: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            step = grid.step(n, self._t)
            results = replay(self._field, step, y, f, self._tableau)
        self._meter.step(step.start, step.size, accepted=True)
        return results

    def _pull_back(
        self,
        results: tuple[Tensor, Tensor, Tensor],
        cotangents: tuple[Tensor | None, Tensor | None, Tensor],
        y: Tensor,
        f: Tensor | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        """Take the one vector-Jacobian product through a step; return the gradients of y and f."""
        pairs = zip(results, cotangents, strict=True)
        used = [(x, v) for x, v in pairs if v is not None and v.numel() and x.requires_grad]
        wanted = [x for x in (y, f, self._t) if x is not None and x.requires_grad]
        if not used:
            return None, None
        outputs, vectors = zip(*used, strict=True)
        grads = torch.autograd.grad(outputs, [*wanted, *self._parameters], vectors, allow_unused=True)
        by_input = dict(zip(map(id, wanted), grads, strict=False))
        _accumulate([self.grad_t, *self.grad_parameters], [by_input.get(id(self._t)), *grads[len(wanted) :]])
        return by_input[id(y)], by_input.get(id(f))


def _accumulate(totals: list[Tensor], more: list[Tensor | None]) -> None:
    for total, grad in zip(totals, more, strict=True):
        if grad is not None:
            total.add_(grad)
