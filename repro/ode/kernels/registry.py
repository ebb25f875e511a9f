"""Kernels by the exact type of the field whose steps they take."""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor, nn

from repro.ode.kernels.plain import autocast, changed, transformed
from repro.ode.kernels.protocol import Steps

KERNELS: dict[type, Callable[..., Steps | str]] = {}
"""Makers of kernels: field and state in, a kernel or the reason why there is none out. A type that is not a key, as a
subclass, has no kernel: what it changes is not in the native code."""

K = TypeVar("K", bound=type)


def register_kernel(kind: K) -> K:
    """Register a class's method `step_kernel` as the maker of kernels for fields of exactly this class."""
    KERNELS[kind] = kind.step_kernel  # pyright: ignore[reportAttributeAccessIssue]
    return kind


def choose_kernel(field: object, y: Tensor) -> Steps | str:
    """Choose the kernel for steps of a field from states like y, or say why there is none.

    A field that is not what its type says, by a hook or a part that was exchanged, has none.

    Args:
        field: Right-hand side.
        y: A state.
    """
    make = KERNELS.get(type(field))
    if make is None:
        return f"{type(field).__name__} has no kernel"
    reason = autocast(y.device) or transformed(y) or (changed(field) if isinstance(field, nn.Module) else None)
    return reason or make(field, y)
