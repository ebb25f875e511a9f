"""Differentiate a solve by the adjoint method: a second solve, backward in time, with memory constant in the steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from repro.ode.engines import integrate
from repro.ode.meter import Meter, Stats
from repro.ode.solvers import Solver
from repro.ode.torchdiffeq_backend import Norm
from repro.types import Scalar, State, Times, Trajectory, VectorField


def adjoint(
    field: VectorField, y0: State, t: Times, solver: Solver, parameters: tuple[Tensor, ...], stats: Stats
) -> Trajectory:
    """Solve, with gradients by Algorithm 1 (and Algorithm 2 when `t` requires grad).

    With a(t) = ∂L/∂y(t), one augmented system is solved backward over each interval between output times:

        d/dt [y, a, ∂L/∂θ, ∂L/∂t] = [f, −aᵀ ∂f/∂y, −aᵀ ∂f/∂θ, −aᵀ ∂f/∂t],

    a jumps by ∂L/∂y(t_i) at each output time, where y restarts from the stored forward value. ∂L/∂t_i = ∂L/∂y(t_i)ᵀ f(t_i,
    y_i) for i > 0, and ∂L/∂t_0 is the last component's end value. One evaluation of the augmented system costs one of
    the field and one vector-Jacobian product. The gradients carry the backward solve's own error, of about
    `adjoint_rtol`, `adjoint_atol`.

    The error norm is the largest of RMS(y), RMS(a) and the RMS of each parameter's gradient (and of ∂L/∂t), as in
    torchdiffeq. SciPy's VODE knows only the RMS over the whole augmented state, as the paper's own code did.

    Args:
        field: Right-hand side.
        y0: State at t[0].
        t: Output times.
        solver: Method, tolerances, engine.
        parameters: Tensors that the field closes over and that get gradients.
        stats: Filled now, and by `backward()`.

    Returns:
        The state at every output time.

    References:
        Chen et al. 2018 (arXiv 1806.07366), eq. 4 and 5, Algorithm 1, Algorithm 2 (Appendix C). Deviation from
        torchdiffeq 0.2.5: ∂L/∂t is integrated only when `t` requires grad; there it always is, because of an in-place
        `requires_grad_`, and costs backward evaluations when f depends on t.
    """
    return _apply(field, y0, t, solver, parameters, stats, seminorm=False)


def adjoint_seminorm(
    field: VectorField, y0: State, t: Times, solver: Solver, parameters: tuple[Tensor, ...], stats: Stats
) -> Trajectory:
    """Solve, with gradients as `adjoint`, but steps that are controlled by y and a alone.

    ∂L/∂θ and ∂L/∂t are integrals along the solution: their error does not feed back, so it need not limit the steps.

    Args:
        field: Right-hand side.
        y0: State at t[0].
        t: Output times.
        solver: Method and tolerances; the torchdiffeq engine.
        parameters: Tensors that the field closes over and that get gradients.
        stats: Filled now, and by `backward()`.

    Returns:
        The state at every output time.

    References:
        Kidger, Chen, Lyons 2021, "Hey, that's not an ODE" (arXiv 2009.09457), Sec. 3.
    """
    return _apply(field, y0, t, solver, parameters, stats, seminorm=True)


@dataclass(frozen=True)
class _Problem:
    """What the backward pass needs beside tensors."""

    field: VectorField
    solver: Solver
    stats: Stats
    seminorm: bool


def _apply(
    field: VectorField,
    y0: Tensor,
    t: Tensor,
    solver: Solver,
    parameters: tuple[Tensor, ...],
    stats: Stats,
    seminorm: bool,
) -> Tensor:
    stats.nfe_backward = 0
    return _Adjoint.apply(_Problem(field, solver, stats, seminorm), y0, t, *parameters)


class _Adjoint(torch.autograd.Function):
    """y0, t, parameters -> the state at every output time."""

    @staticmethod
    def forward(ctx: Any, problem: _Problem, y0: Tensor, t: Tensor, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        meter = Meter(problem.solver.max_nfe)
        y = integrate(problem.field, y0, t, problem.solver, meter)
        problem.stats.set_forward(meter)
        ctx.problem = problem
        ctx.save_for_backward(t, y, *parameters)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        t, y, *parameters = ctx.saved_tensors
        problem, (_, _, wants_t, *_) = ctx.problem, ctx.needs_input_grad
        solver = _backward_solver(problem.solver)
        meter = Meter(solver.max_nfe)
        system = _Augmented(problem.field, y[0], tuple(parameters), wants_t)
        try:
            grads, grad_t = _solve_backward(system, t, y, grad_y, solver, meter, problem.seminorm)
        finally:
            problem.stats.add_backward(meter)
        return None, grads[0], grad_t, *grads[1:]


def _backward_solver(solver: Solver) -> Solver:
    return replace(solver, rtol=solver.adjoint_rtol or solver.rtol, atol=solver.adjoint_atol or solver.atol)


class _Augmented:
    """The augmented system on one flat vector: y, a, each parameter's gradient, and ∂L/∂t if it is wanted.

    Args:
        field: Right-hand side.
        like: A state, for its shape.
        parameters: Tensors that get gradients.
        wants_t: Whether ∂L/∂t is integrated.
    """

    def __init__(self, field: VectorField, like: Tensor, parameters: tuple[Tensor, ...], wants_t: bool) -> None:
        self.field, self.parameters, self.wants_t = field, parameters, wants_t
        self.shapes = [like.shape, like.shape, *(p.shape for p in parameters), *([torch.Size()] if wants_t else [])]
        self.sizes = [shape.numel() for shape in self.shapes]

    def __call__(self, t: Scalar, state: Tensor) -> Tensor:
        """Return the derivative of the flat augmented state, by one vector-Jacobian product."""
        y, a = self.split(state)[:2]
        with torch.enable_grad():
            y, t = y.detach().requires_grad_(), t.detach().requires_grad_(self.wants_t)
            dy = self.field(t, y)
        inputs = [y, *self.parameters, *([t] if self.wants_t else [])]
        return self.join([dy.detach(), *_vector_jacobian_product(dy, inputs, -a)], like=state)

    def split(self, state: Tensor) -> list[Tensor]:
        """View the flat vector as its components."""
        return [part.view(shape) for part, shape in zip(state.split(self.sizes), self.shapes, strict=True)]

    def join(self, parts: Sequence[Tensor | None], like: Tensor) -> Tensor:
        """Copy components, zero where None, into a flat vector: the one copy that a step of a flat solver needs."""
        sized = zip(parts, self.sizes, strict=True)
        return torch.cat([like.new_zeros(size) if part is None else part.reshape(-1).to(like) for part, size in sized])

    def norm(self, seminorm: bool) -> Norm:
        """Return the largest RMS of a component; of y and a alone for the seminorm."""
        kept = 2 if seminorm else len(self.sizes)

        def largest_rms(state: Tensor) -> Tensor:
            parts = (part for part in state.split(self.sizes)[:kept] if part.numel())
            return torch.stack([part.square().mean() for part in parts]).max().sqrt()

        return largest_rms


def _vector_jacobian_product(dy: Tensor, inputs: list[Tensor], v: Tensor) -> Sequence[Tensor | None]:
    # A field that depends on none of its inputs has no graph.
    if not dy.requires_grad:
        return [None] * len(inputs)
    return torch.autograd.grad(dy, inputs, v, allow_unused=True)


def _solve_backward(
    system: _Augmented, t: Tensor, y: Tensor, grad_y: Tensor, solver: Solver, meter: Meter, seminorm: bool
) -> tuple[list[Tensor], Tensor | None]:
    """Return the gradients of y0 and of each parameter, and that of t or None."""
    # VODE has a norm of its own.
    norm = None if solver.engine == "scipy" else system.norm(seminorm)
    field = meter.watch(system.field)
    grad_t = torch.zeros_like(t) if system.wants_t else None
    state = system.join([y[-1], grad_y[-1], *[None] * (len(system.sizes) - 2)], like=y)
    for i in range(len(t) - 1, 0, -1):
        if grad_t is not None:
            grad_t[i] = (grad_y[i] * field(t[i], y[i])).sum()
            state[-1] -= grad_t[i]
        state = integrate(system, state, t[[i, i - 1]], solver, meter, norm)[-1]
        _restart(system.split(state), y[i - 1], grad_y[i - 1])
    _, *grads = system.split(state)
    if grad_t is not None:
        grad_t[0] = grads.pop()
    return grads, grad_t


def _restart(parts: list[Tensor], y: Tensor, grad_y: Tensor) -> None:
    """Replace the drifted y by the stored one; let a jump by the output's own gradient."""
    parts[0].copy_(y)
    parts[1].add_(grad_y)
