"""Find tensors in the parameters that they are views of, by where they lie in memory."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor


def places_of(views: Sequence[Tensor], parameters: Sequence[Tensor]) -> Int[Tensor, " numbers"] | None:
    """Where each of the parameters' numbers lies among those of the views, both laid one after the other.

    Args:
        views: With gradients, or constants.
        parameters: What the views with gradients are of.

    Returns:
        The places, the first one behind the end for numbers that no view with gradients shows; None where such a tensor
        is no view of one parameter, or shows what another one shows too.
    """
    if not all(map(_only_views, views)):
        return None
    return _places(tuple(map(_layout, views)), tuple(map(_layout, parameters)))


VIEWS = frozenset(
    {"AccumulateGrad", "ViewBackward0", "SliceBackward0", "SelectBackward0", "TBackward0", "AliasBackward0"}
)
"""What may lie between a parameter and a tensor that shows its numbers, for their gradients to be the same numbers."""


def _only_views(x: Tensor) -> bool:
    """Whether a tensor comes from leaves by nothing but views, whose gradients are moved and not computed."""
    ahead = [x.grad_fn] if x.grad_fn is not None else []
    while ahead:
        node = ahead.pop()
        if node.name().rpartition("::")[2] not in VIEWS:
            return False
        ahead.extend(other for other, _ in node.next_functions if other is not None)
    return True


class _Layout(NamedTuple):
    """Where a tensor's numbers lie in memory."""

    storage: int
    offset: int
    shape: torch.Size
    stride: tuple[int, ...]
    differentiable: bool


def _layout(x: Tensor) -> _Layout:
    return _Layout(x.untyped_storage().data_ptr(), int(x.storage_offset()), x.shape, x.stride(), x.requires_grad)


@functools.lru_cache(maxsize=16)
def _places(numbers: tuple[_Layout, ...], parameters: tuple[_Layout, ...]) -> Tensor | None:
    """See `places_of`; the same for every solve of a field."""
    total = sum(x.shape.numel() for x in numbers)
    found = [torch.full((p.shape.numel(),), total) for p in parameters]
    begin = 0
    for x in numbers:
        within = [n for n, p in enumerate(parameters) if _is_view(x, p)]
        if x.differentiable and len(within) != 1:
            return None
        if x.differentiable:
            shown, first = found[within[0]], x.offset - parameters[within[0]].offset
            at = torch.arange(len(shown)).as_strided(x.shape, x.stride, first).flatten()
            if len(at.unique()) < len(at) or (shown[at] < total).any():
                return None
            shown[at] = torch.arange(begin, begin + len(at))
        begin += x.shape.numel()
    return torch.cat(found) if found else torch.empty(0, dtype=torch.long)


def _is_view(x: _Layout, parameter: _Layout) -> bool:
    """Whether x's numbers are all among those of a parameter that lies in one piece."""
    stride = torch.empty(parameter.shape, device="meta").stride()
    steps = sum((size - 1) * step for size, step in zip(x.shape, x.stride, strict=True))
    first = x.offset - parameter.offset
    within = first >= 0 and first + steps < parameter.shape.numel()
    return x.storage == parameter.storage and within and parameter.stride == stride
