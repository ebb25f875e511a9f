"""Differentiate a solve by the adjoint method: a second solve, backward in time, with memory constant in the steps."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from repro.ode.engines import integrate
from repro.ode.errors import BackwardDrift, BackwardDriftWarning
from repro.ode.first_order import first_order, save_setting
from repro.ode.kernels import OffersAdjoint, Steps, register_kernel
from repro.ode.meter import Meter, Stats
from repro.ode.norms import rms
from repro.ode.problem import InitialValueProblem
from repro.ode.solvers import Solver
from repro.types import Scalar, State, Times, Trajectory


def adjoint(problem: InitialValueProblem, solver: Solver, stats: Stats) -> Trajectory:
    """Solve, with gradients by Algorithm 1 (and Algorithm 2 when `t` requires grad).

    With a(t) = ∂L/∂y(t), one augmented system is solved backward over each interval between output times:

        d/dt [y, a, ∂L/∂θ, ∂L/∂t] = [f, −aᵀ ∂f/∂y, −aᵀ ∂f/∂θ, −aᵀ ∂f/∂t],

    a jumps by ∂L/∂y(t_i) at each output time, where y restarts from the stored forward value.
    ∂L/∂t_i = ∂L/∂y(t_i)ᵀ f(t_i, y_i) for i > 0, and ∂L/∂t_0 is the last component's end value. One evaluation of the
    augmented system costs one of the field and one vector-Jacobian product. The gradients carry the backward solve's
    own error, of about `adjoint_rtol`, `adjoint_atol`, as long as y is stable backward in time. Where a component
    relaxes forward at a rate λ, its error grows backward by exp(λ Δt) between two output times, and the gradients with
    it. The drift, the distance of the y that is solved back from the y that was stored, shows it:

        max over output times and rows of RMS(y back − y stored) / (atol + rtol RMS(y stored)).

    Above `DRIFT_WARNED` a warning names it; above `Solver.max_backward_drift` the backward pass fails. `checkpoint` and
    backprop do not solve y backward.

    The compiled engine takes a step of the whole augmented system in one native call, where the field's kernel offers
    that (perceptrons, planar fields, the ODE-Net's) and `t` requires no grad.

    The error norm is the largest of RMS(y), RMS(a) and the RMS of each parameter's gradient (and of ∂L/∂t), as in
    torchdiffeq. SciPy's VODE knows only the RMS over the whole augmented state, as the paper's own code did.

    Args:
        problem: Field, state at t[0], output times, the tensors that get gradients, and the norm of an error of y,
            backward also of a.
        solver: Method, tolerances, engine.
        stats: Filled now, and by `backward()`.

    Returns:
        The state at every output time.

    References:
        Chen et al. 2018 (arXiv 1806.07366), eq. 4 and 5, Algorithm 1, Algorithm 2 (Appendix C). Deviation from
        torchdiffeq 0.2.5: ∂L/∂t is integrated only when `t` requires grad; there it always is, because of an in-place
        `requires_grad_`, and costs backward evaluations when f depends on t.
    """
    stats.nfe_backward = 0
    return _Adjoint.apply(_Task(problem, solver, stats, False), problem.y0, problem.t, *problem.parameters)


def adjoint_seminorm(problem: InitialValueProblem, solver: Solver, stats: Stats) -> Trajectory:
    """Solve, with gradients as `adjoint`, but steps that are controlled by y and a alone.

    ∂L/∂θ and ∂L/∂t are integrals along the solution: their error does not feed back, so it need not limit the steps.

    Args:
        problem: Field, state at t[0], output times, the tensors that get gradients, and the norm of an error of y,
            backward also of a.
        solver: Method and tolerances; the torchdiffeq or the compiled engine.
        stats: Filled now, and by `backward()`.

    Returns:
        The state at every output time.

    References:
        Kidger, Chen, Lyons 2021, "Hey, that's not an ODE" (arXiv 2009.09457), Sec. 3.
    """
    stats.nfe_backward = 0
    return _Adjoint.apply(_Task(problem, solver, stats, True), problem.y0, problem.t, *problem.parameters)


@dataclass(frozen=True)
class _Task:
    """What the backward pass needs beside tensors."""

    problem: InitialValueProblem
    solver: Solver
    stats: Stats
    seminorm: bool


class _Adjoint(torch.autograd.Function):
    """y0, t, parameters -> the state at every output time."""

    @staticmethod
    def forward(ctx: Any, task: _Task, y0: Tensor, t: Tensor, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        meter = Meter(task.solver.max_nfe)
        y = integrate(task.problem, task.solver, meter=meter)
        task.stats.set_forward(meter)
        # y is kept, so that y0 need not be; a view of y here would be a cycle, which only the collector frees
        ctx.task = replace(task, problem=task.problem.replace(y0=y0.new_empty(0)))
        save_setting(ctx, task.problem)
        ctx.save_for_backward(t, y, *parameters)
        return y

    @staticmethod
    @first_order
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        grad_y: Tensor,
    ) -> tuple[Tensor | None, ...]:
        t, y, *parameters = ctx.saved_tensors
        task, (_, _, wants_t, *_) = ctx.task, ctx.needs_input_grad
        meter = Meter(task.solver.max_nfe)
        system = _Augmented(task, y[0], tuple(parameters), wants_t)
        try:
            grads, grad_t = system.solve(t, y, grad_y, solver=_backward_solver(task.solver), meter=meter)
        finally:
            task.stats.add_backward(meter)
        system.drift.check(task.solver.max_backward_drift)
        return None, grads[0], grad_t, *grads[1:]


def _backward_solver(solver: Solver) -> Solver:
    return replace(solver, rtol=solver.adjoint_rtol or solver.rtol, atol=solver.adjoint_atol or solver.atol)


DRIFT_WARNED = 100.0
"""Drift of a backward solve, in units of its tolerances, above which a warning says that gradients may be wrong."""
_DRIFT_TOLERANCE_OF_FIXED_STEPS = 1e-4
"""Stands for the tolerances of methods that have none: a drift of 1 % of the state is warned of."""


class _Drift:
    """The distance between the state that is solved back and the state that was stored, in units of the tolerances.

    Args:
        solver: Of the backward solve.
    """

    def __init__(self, solver: Solver) -> None:
        fixed = solver.is_fixed_step
        self._rtol = _DRIFT_TOLERANCE_OF_FIXED_STEPS if fixed else solver.rtol
        self._atol = _DRIFT_TOLERANCE_OF_FIXED_STEPS if fixed else solver.atol
        self._unit = "what is taken as tolerance of fixed steps" if fixed else "the tolerances"
        self._remedy = "a smaller step_size" if fixed else "tighter tolerances"
        self._ratios: list[Tensor] = []

    def measure(self, back: State, stored: State) -> None:
        """Take the largest drift of a row at one output time; a state of one axis is one row."""
        rows = len(stored) if stored.ndim > 1 else 1
        distance, size = (x.reshape(rows, -1).square().mean(1).sqrt() for x in (back - stored, stored))
        self._ratios.append((distance / (self._atol + self._rtol * size)).max())

    def check(self, bound: float | None) -> None:
        """Warn of a drift above `DRIFT_WARNED`, once.

        Raises:
            BackwardDrift: The drift is above the bound.
        """
        if not self._ratios:
            return
        drift = float(torch.stack(self._ratios).max())  # one synchronisation on a GPU
        scale = f"rtol = {self._rtol:g}, atol = {self._atol:g}"
        words = (
            f"adjoint: the state that is solved backward is {drift:.3g} times {self._unit} ({scale}) off the state of "
            "the forward solve"
        )
        if bound is not None and not drift <= bound:
            raise BackwardDrift(f"{words}, over max_backward_drift = {bound:g}")
        if not drift <= DRIFT_WARNED:
            warnings.warn(
                f"{words}: the gradients may be wrong, as where the field is unstable backward in time; use "
                f"'checkpoint' or 'backprop', {self._remedy}, or more output times",
                BackwardDriftWarning,
                stacklevel=2,
            )


@register_kernel
class _Augmented:
    """The augmented system on one flat vector: y, a, each parameter's gradient, and ∂L/∂t if it is wanted.

    Args:
        task: The problem, and whether the error norm is the seminorm.
        like: A state, for its shape.
        parameters: Tensors that get gradients.
        wants_t: Whether ∂L/∂t is integrated.
    """

    def __init__(self, task: _Task, like: Tensor, parameters: tuple[Tensor, ...], wants_t: bool) -> None:
        self._problem, self._field = task.problem, task.problem.evaluate
        self._parameters, self._wants_t = parameters, wants_t
        self._shapes = [like.shape, like.shape, *(p.shape for p in parameters), *([torch.Size()] if wants_t else [])]
        self._sizes = [shape.numel() for shape in self._shapes]
        self._like, self._seminorm = like, task.seminorm
        self._n_in_norm = 2 if task.seminorm else len(self._sizes)
        self._state_norm = task.problem.norm or rms
        self.drift = _Drift(_backward_solver(task.solver))
        self._kernel: Steps | str | None = None  # one for all intervals between output times

    def __call__(self, t: Scalar, state: Tensor) -> Tensor:
        """Return the derivative of the flat augmented state, by one vector-Jacobian product."""
        y, a = self._split(state)[:2]
        with torch.enable_grad():
            y, t = y.detach().requires_grad_(), t.detach().requires_grad_(self._wants_t)
            dy = self._field(t, y)
        inputs = [y, *self._parameters, *([t] if self._wants_t else [])]
        return self._join([dy.detach(), *_vector_jacobian_product(dy, inputs, -a)], like=state)

    def step_kernel(self, state: Tensor) -> Steps | str:
        """Native steps of the whole system, where the field's kernel offers them; or why there are none."""
        if self._kernel is None:
            self._kernel = self._make_kernel()
        return self._kernel

    def _make_kernel(self) -> Steps | str:
        if self._wants_t:
            return "it gives no gradient of times"
        kernel = self._problem.kernel
        if isinstance(kernel, str):
            return kernel
        if not isinstance(kernel, OffersAdjoint):
            return "the field's kernel does not take the adjoint's steps"
        return kernel.adjoint_kernel(self._parameters, len(self._like), controlled=not self._seminorm)

    def solve(
        self, t: Times, y: Trajectory, grad_y: Trajectory, *, solver: Solver, meter: Meter
    ) -> tuple[list[Tensor], Tensor | None]:
        """Solve from the last output time to the first; return the gradients of y0 and each parameter, and of t."""
        field, grad_t = meter.watch(self._field), torch.zeros_like(t) if self._wants_t else None
        # VODE has a norm of its own.
        norm = None if solver.engine == "scipy" else self._norm
        state = self._join([y[-1], grad_y[-1], *[None] * (len(self._sizes) - 2)], like=y)
        for i in range(len(t) - 1, 0, -1):
            if grad_t is not None:
                grad_t[i] = (grad_y[i] * field(t[i], y[i])).sum()
                state[-1] -= grad_t[i]
            problem = InitialValueProblem(self, state, t[[i, i - 1]], norm, (), self)
            state = integrate(problem, solver, meter=meter)[-1]
            self._restart(state, y[i - 1], grad_y[i - 1])
        _, *grads = self._split(state)
        if grad_t is not None:
            grad_t[0] = grads.pop()
        return grads, grad_t

    def _restart(self, state: Tensor, y: State, grad_y: State) -> None:
        """Replace the drifted y by the stored one; let a jump by the output's own gradient."""
        parts = self._split(state)
        self.drift.measure(parts[0], y)
        parts[0].copy_(y)
        parts[1].add_(grad_y)

    def _norm(self, state: Tensor) -> Tensor:
        """Return the largest RMS of a component that controls the steps."""
        y, a, *gradients = self._split(state)[: self._n_in_norm]
        sizes = [self._state_norm(y), self._state_norm(a), *(rms(part) for part in gradients if part.numel())]
        return torch.stack(sizes).max()

    def _split(self, state: Tensor) -> list[Tensor]:
        return [part.view(shape) for part, shape in zip(state.split(self._sizes), self._shapes, strict=True)]

    def _join(self, parts: Sequence[Tensor | None], like: Tensor) -> Tensor:
        """Copy the components, zero where None, into a flat vector: the only copy of the parameters' gradients."""
        sized = zip(parts, self._sizes, strict=True)
        return torch.cat([like.new_zeros(size) if part is None else part.reshape(-1).to(like) for part, size in sized])


def _vector_jacobian_product(dy: Tensor, inputs: list[Tensor], v: Tensor) -> Sequence[Tensor | None]:
    # A field that depends on none of its inputs has no graph.
    if not dy.requires_grad:
        return [None] * len(inputs)
    return torch.autograd.grad(dy, inputs, v, allow_unused=True)
