"""Checks of arguments that many functions share: one message for one mistake, and it names the argument."""

from collections.abc import Iterable

import torch
from torch import Tensor


def check_name(argument: str, value: str, allowed: Iterable[str]) -> None:
    """Check that a setting is one of the known names.

    Raises:
        ValueError: It is not; the message names the argument and what is allowed.
    """
    if value not in allowed:
        raise ValueError(f"{argument} must be one of: {', '.join(allowed)}; got {value!r}")


def check_positive_counts(**counts: int) -> None:
    """Check that counts and sizes, given by their arguments' names, are at least 1.

    Raises:
        ValueError: One is not; the message names it.
    """
    for argument, value in counts.items():
        if value < 1:
            raise ValueError(f"{argument} must be at least 1; got {value}")


def check_finite(points: Tensor, argument: str) -> None:
    """Check that a tensor holds neither infinities nor NaN.

    Raises:
        ValueError: It does; the message names the argument and counts them.
    """
    finite = torch.isfinite(points.detach())
    if not finite.all():
        raise ValueError(f"{argument} must be finite; {int((~finite).sum())} of its numbers are not")
