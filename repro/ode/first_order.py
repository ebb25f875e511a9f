"""What solves' backward passes have in common: taken once, of the same parameters, in the forward pass's setting."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from repro.ode.errors import UnsupportedCombination
from repro.ode.field_state import compare_states, read_state
from repro.ode.guard import GuardedField
from repro.ode.problem import InitialValueProblem

Gradients = tuple[Tensor | None, ...]


def save_setting(ctx: Any, problem: InitialValueProblem) -> None:  # noqa: ANN401
    """Save, in a function's forward pass, the setting in which its backward pass must evaluate the field.

    What the forward pass itself changed of the field's state, as counts and running statistics, is left out.

    Args:
        ctx: The function's context.
        problem: Whose field the backward pass evaluates again.
    """
    if problem.state is None:  # no gradient is wanted
        return
    state = read_state(problem.field)
    for name in compare_states(problem.state, state):
        state.pop(name, None)
    if isinstance(problem.evaluate, GuardedField):
        problem.evaluate.release()
    kind = problem.y0.device.type
    ctx.setting = problem, state, kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)


def first_order(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """A backward pass that evaluates the field again and cannot be differentiated itself.

    Raises:
        UnsupportedCombination: The gradient of the gradient is asked for. Torch's own `once_differentiable` complains
            only where that goes through the solve's result, and is silently wrong beside it.
        RuntimeError: The field has another state than in the forward pass: other parameters, as after
            `functional_call`, another buffer, another number.
    """

    @functools.wraps(backward)
    def once(ctx: Any, *grads: Tensor) -> Gradients:  # noqa: ANN401
        _check_order()
        problem, state, kind, cast, dtype = ctx.setting
        after = read_state(problem.field)
        if names := [name for name in compare_states(state, after) if name in state]:
            raise RuntimeError(
                f"the field's {sorted(names)[0]!r} is not what it was in the forward pass, so that the field cannot be "
                "evaluated again: call backward() before it changes, give each context a field of its own, or use "
                "engine='torchdiffeq' with gradient='backprop'"
            )
        with torch.autocast(kind, dtype, enabled=cast), _without_hooks(problem.parameters):
            return backward(ctx, *grads)

    return once


@contextmanager
def _without_hooks(tensors: tuple[Tensor, ...]) -> Iterator[None]:
    """Keep tensors' hooks from the products inside a backward pass: they are for the gradient that comes out of it."""
    hooks = [(x._backward_hooks, dict(x._backward_hooks)) for x in tensors if x._backward_hooks]
    for live, _ in hooks:
        live.clear()
    try:
        yield
    finally:
        for live, saved in hooks:
            live.update(saved)


def _check_order() -> None:
    """Refuse to be differentiated.

    Raises:
        UnsupportedCombination: A backward pass is made with a graph.
    """
    if torch.is_grad_enabled():
        raise UnsupportedCombination(
            "this gradient has no gradient of its own (create_graph=True): use engine='torchdiffeq' and 'backprop'"
        )


def refuse_second_order(y: Tensor) -> Tensor:
    """Return y with a backward pass that refuses to be differentiated, as those of torch.compile cannot be."""
    return _FirstOrder.apply(y)  # pyright: ignore[reportReturnType]


class _FirstOrder(torch.autograd.Function):
    """The identity, differentiable once."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:  # noqa: ANN401
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # noqa: ANN401  # pyright: ignore[reportIncompatibleMethodOverride]
        _check_order()
        return grad
