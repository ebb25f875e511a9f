"""Inference mode: solves that need derivatives leave it, since it builds no graph, not even where one is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def leave_inference_mode() -> Iterator[None]:
    """Replace `torch.inference_mode` by `torch.no_grad` within a block; do nothing outside of it.

    In inference mode `torch.enable_grad` has no effect: a vector-Jacobian product would come out as zero.
    """
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def as_normal(tensor: Tensor) -> Tensor:
    """Copy a tensor that was made in inference mode, which no graph may hold; give any other one as it is.

    To be called outside of inference mode, whose copies are of its own kind.
    """
    return tensor.clone() if tensor.is_inference() else tensor


def count_writes(tensor: Tensor) -> int:
    """Count the writes into a tensor's memory so far; 0 for tensors of inference mode, which count none."""
    return 0 if tensor.is_inference() else tensor._version
