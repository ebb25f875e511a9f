"""What solves' backward passes have in common: taken once, of the same parameters, in the forward pass's setting."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from repro.ode.errors import UnsupportedCombination
from repro.types import VectorField

Gradients = tuple[Tensor | None, ...]


def remember(ctx: Any, field: VectorField, y: Tensor) -> None:  # noqa: ANN401
    """Note, in a function's forward pass, what its backward pass must find again.

    Args:
        ctx: The function's context.
        field: Right-hand side, which the backward pass evaluates again.
        y: A state.
    """
    kind = y.device.type
    ctx.setting = field, _identities(field), kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)


def first_order(backward: Callable[..., Gradients]) -> Callable[..., Gradients]:
    """A backward pass that evaluates the field again and cannot be differentiated itself.

    Raises:
        UnsupportedCombination: The gradient of the gradient is asked for. Torch's own `once_differentiable` complains
            only where that goes through the solve's result, and is silently wrong beside it.
        RuntimeError: The field has other parameters than in the forward pass, as after `functional_call`.
    """

    @functools.wraps(backward)
    def once(ctx: Any, *grads: Tensor) -> Gradients:  # noqa: ANN401
        if torch.is_grad_enabled():
            raise UnsupportedCombination(
                "this gradient has no gradient of its own (create_graph=True): use engine='torchdiffeq' and 'backprop'"
            )
        field, identities, kind, cast, dtype = ctx.setting
        if _identities(field) != identities:
            raise RuntimeError(
                "the field has other parameters than in the forward pass, so its steps cannot be taken back; with "
                "functional_call or weights that are no parameters use engine='torchdiffeq' and gradient='backprop'"
            )
        with torch.autocast(kind, dtype, enabled=cast):
            return backward(ctx, *grads)

    return once


def _identities(field: VectorField) -> tuple[int, ...]:
    return tuple(map(id, field.parameters())) if isinstance(field, nn.Module) else ()
