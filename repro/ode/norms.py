"""Sizes of errors."""

from torch import Tensor


def rms(error: Tensor) -> Tensor:
    """Root mean square over all elements: the norm of an error where none is given."""
    return error.square().mean().sqrt()
