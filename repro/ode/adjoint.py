"""Differentiate a solve by the adjoint method: a second solve, backward in time, with memory constant in the steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from repro.ode.engines import integrate
from repro.ode.first_order import first_order, remember
from repro.ode.kernels import OffersAdjoint, Steps
from repro.ode.meter import Meter, Stats
from repro.ode.norms import rms
from repro.ode.solvers import Solver
from repro.ode.steppers import native_kernel_of
from repro.types import Norm, Scalar, State, Times, Trajectory, VectorField


def adjoint(
    field: VectorField,
    y0: State,
    t: Times,
    solver: Solver,
    *,
    parameters: tuple[Tensor, ...],
    stats: Stats,
    norm: Norm | None = None,
) -> Trajectory:
    """Solve, with gradients by Algorithm 1 (and Algorithm 2 when `t` requires grad).

    With a(t) = ∂L/∂y(t), one augmented system is solved backward over each interval between output times:

        d/dt [y, a, ∂L/∂θ, ∂L/∂t] = [f, −aᵀ ∂f/∂y, −aᵀ ∂f/∂θ, −aᵀ ∂f/∂t],

    a jumps by ∂L/∂y(t_i) at each output time, where y restarts from the stored forward value.
    ∂L/∂t_i = ∂L/∂y(t_i)ᵀ f(t_i, y_i) for i > 0, and ∂L/∂t_0 is the last component's end value. One evaluation of the
    augmented system costs one of the field and one vector-Jacobian product. The gradients carry the backward solve's
    own error, of about `adjoint_rtol`, `adjoint_atol`.

    The compiled engine takes a step of the whole augmented system in one native call, where the field's kernel offers
    that (perceptrons, planar fields, the ODE-Net's) and `t` requires no grad.

    The error norm is the largest of RMS(y), RMS(a) and the RMS of each parameter's gradient (and of ∂L/∂t), as in
    torchdiffeq. SciPy's VODE knows only the RMS over the whole augmented state, as the paper's own code did.

    Args:
        field: Right-hand side.
        y0: State at t[0].
        t: Output times.
        solver: Method, tolerances, engine.
        parameters: Tensors that the field closes over and that get gradients.
        stats: Filled now, and by `backward()`.
        norm: Size of an error of y, and backward also of a; None is the RMS.

    Returns:
        The state at every output time.

    References:
        Chen et al. 2018 (arXiv 1806.07366), eq. 4 and 5, Algorithm 1, Algorithm 2 (Appendix C). Deviation from
        torchdiffeq 0.2.5: ∂L/∂t is integrated only when `t` requires grad; there it always is, because of an in-place
        `requires_grad_`, and costs backward evaluations when f depends on t.
    """
    stats.nfe_backward = 0
    return _Adjoint.apply(_Problem(field, solver, stats, norm, seminorm=False), y0, t, *parameters)


def adjoint_seminorm(
    field: VectorField,
    y0: State,
    t: Times,
    solver: Solver,
    *,
    parameters: tuple[Tensor, ...],
    stats: Stats,
    norm: Norm | None = None,
) -> Trajectory:
    """Solve, with gradients as `adjoint`, but steps that are controlled by y and a alone.

    ∂L/∂θ and ∂L/∂t are integrals along the solution: their error does not feed back, so it need not limit the steps.

    Args:
        field: Right-hand side.
        y0: State at t[0].
        t: Output times.
        solver: Method and tolerances; the torchdiffeq or the compiled engine.
        parameters: Tensors that the field closes over and that get gradients.
        stats: Filled now, and by `backward()`.
        norm: Size of an error of y, and backward also of a; None is the RMS.

    Returns:
        The state at every output time.

    References:
        Kidger, Chen, Lyons 2021, "Hey, that's not an ODE" (arXiv 2009.09457), Sec. 3.
    """
    stats.nfe_backward = 0
    return _Adjoint.apply(_Problem(field, solver, stats, norm, seminorm=True), y0, t, *parameters)


@dataclass(frozen=True)
class _Problem:
    """What the backward pass needs beside tensors."""

    field: VectorField
    solver: Solver
    stats: Stats
    norm: Norm | None
    seminorm: bool


class _Adjoint(torch.autograd.Function):
    """y0, t, parameters -> the state at every output time."""

    @staticmethod
    def forward(ctx: Any, problem: _Problem, y0: Tensor, t: Tensor, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        meter = Meter(problem.solver.max_nfe)
        y = integrate(problem.field, y0, t, problem.solver, meter=meter, norm=problem.norm)
        problem.stats.set_forward(meter)
        ctx.problem = problem
        remember(ctx, problem.field, y0)
        ctx.save_for_backward(t, y, *parameters)
        return y

    @staticmethod
    @first_order
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,  # noqa: ANN401
        grad_y: Tensor,
    ) -> tuple[Tensor | None, ...]:
        t, y, *parameters = ctx.saved_tensors
        problem, (_, _, wants_t, *_) = ctx.problem, ctx.needs_input_grad
        meter = Meter(problem.solver.max_nfe)
        system = _Augmented(problem, y[0], tuple(parameters), wants_t)
        try:
            grads, grad_t = system.solve(t, y, grad_y, solver=_backward_solver(problem.solver), meter=meter)
        finally:
            problem.stats.add_backward(meter)
        return None, grads[0], grad_t, *grads[1:]


def _backward_solver(solver: Solver) -> Solver:
    return replace(solver, rtol=solver.adjoint_rtol or solver.rtol, atol=solver.adjoint_atol or solver.atol)


class _Augmented:
    """The augmented system on one flat vector: y, a, each parameter's gradient, and ∂L/∂t if it is wanted.

    Args:
        problem: The field, and whether the error norm is the seminorm.
        like: A state, for its shape.
        parameters: Tensors that get gradients.
        wants_t: Whether ∂L/∂t is integrated.
    """

    def __init__(self, problem: _Problem, like: Tensor, parameters: tuple[Tensor, ...], wants_t: bool) -> None:
        self._field, self._parameters, self._wants_t = problem.field, parameters, wants_t
        self._shapes = [like.shape, like.shape, *(p.shape for p in parameters), *([torch.Size()] if wants_t else [])]
        self._sizes = [shape.numel() for shape in self._shapes]
        self._like, self._seminorm = like, problem.seminorm
        self._n_in_norm = 2 if problem.seminorm else len(self._sizes)
        self._state_norm = problem.norm or rms
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
        kernel = native_kernel_of(self._field, self._like)
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
            state = integrate(self, state, t[[i, i - 1]], solver, meter=meter, norm=norm)[-1]
            self._restart(state, y[i - 1], grad_y[i - 1])
        _, *grads = self._split(state)
        if grad_t is not None:
            grad_t[0] = grads.pop()
        return grads, grad_t

    def _restart(self, state: Tensor, y: State, grad_y: State) -> None:
        """Replace the drifted y by the stored one; let a jump by the output's own gradient."""
        parts = self._split(state)
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
