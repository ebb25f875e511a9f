"""Memory for large results of steps, which goes from one solve to the next.

The system clears fresh memory when it is first written to, which takes as long as a good part of a step.
"""

import math
import mmap
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LARGE = 1 << 20
"""Bytes of a tensor from which on the system gives it fresh memory."""
LIMIT = 1 << 30
"""Bytes that may wait for the next solve."""

_TYPES = {torch.float32: np.float32, torch.float64: np.float64}
_waiting: list[mmap.mmap] = []


def room(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor; its memory waits for the next one when nobody has it any more.

    Args:
        like: For dtype; on the CPU.
        shape: Its shape.
    """
    count = math.prod(shape)
    size = count * like.element_size()
    if size < LARGE:
        return like.new_empty(shape)
    memory = _taken(size)
    array = np.frombuffer(memory, _TYPES[like.dtype], count)
    weakref.finalize(array, _give_back, memory).atexit = False
    return torch.from_numpy(array).view(shape)


def _taken(size: int) -> mmap.mmap:
    """Memory of just about this size; where none waits, the work has changed, and what waits is let go."""
    for i, memory in enumerate(_waiting):
        if size <= len(memory) <= size + size // 8:
            return _waiting.pop(i)
    _waiting.clear()
    # private, or a process that is forked later would write here too
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _give_back(memory: mmap.mmap) -> None:
    if sum(map(len, _waiting)) + len(memory) <= LIMIT:
        _waiting.append(memory)


def empty_cache() -> None:
    """Give the system back what waits."""
    _waiting.clear()


def waiting() -> Sequence[int]:
    """Sizes of what waits, in bytes."""
    return [len(memory) for memory in _waiting]
