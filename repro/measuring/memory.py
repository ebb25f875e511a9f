"""The memory of a training step, in all and by its phases, to be read in a process of its own.

A step's peak alone does not say what made it: what the forward pass holds for the backward pass grows with depth, the
backward pass adds temporaries, and the gradients stay when both are over.
"""

import contextlib
import ctypes
import gc
from collections.abc import Callable
from typing import Any

import torch

from repro.measuring.fresh import Result
from repro.measuring.meters import status_of
from repro.measuring.step import Step
from repro.metrics import PeakMemory, timed
from repro.ode.kernels import empty_cache

PHASES = ("forward_peak_bytes", "held_bytes", "backward_peak_bytes", "left_bytes", "reserved_bytes")
"""What `peak` may say beside the peak of the whole step, in the order of time."""


def peak(make: Callable[[], Step], device: torch.device) -> Result:
    """Measure the memory of one step over what is there before it; to be called in a fresh process.

    The baseline is taken after the step's `warm` evaluation, so that it holds the model, the data and every library,
    but neither gradients nor graph. What a step adds for good, its parameters' gradients, counts; what an allocator
    keeps of freed memory does not, as far as it can be told to let go.

    Returns:
        peak_bytes; meter, that it was read from; seconds of the step; status. Where the system tells it, by the same
        meter and over the same baseline, held_bytes, what there is between the forward and the backward pass;
        left_bytes, what there is after the step, its gradients; and, where a peak can be begun anew,
        forward_peak_bytes and backward_peak_bytes, of which peak_bytes is the larger. On a GPU also reserved_bytes:
        the most that torch took from the device, the baseline included.
    """
    try:
        _return_at_once()
        step = make()
        if step.warm is not None:
            step.warm()
        step.clear()
        _let_go()
        return {"status": "ok", **_by_phase(step, PeakMemory(device))}
    except Exception as error:  # an out-of-memory cell is a result
        return {"status": status_of(error)}


def _by_phase(step: Step, memory: PeakMemory) -> dict[str, Any]:
    """Take a step and read the meter at its phases' ends; nothing is freed there that the step itself would keep."""
    apart = memory.restart()
    losses: list[torch.Tensor] = []
    seconds = timed(lambda: losses.append(step.loss()), memory.device)
    forward, reserved, held = _peak(memory), _reserved(memory.device), memory.now()
    memory.restart()
    seconds += timed(lambda: losses.pop().backward(), memory.device)  # popped: the graph is freed as it is used
    backward = _peak(memory)
    reserved = {name: max(value, reserved[name]) for name, value in _reserved(memory.device).items()}
    _let_go()
    peaks = {"forward_peak_bytes": forward, "backward_peak_bytes": backward} if apart else {}
    between = {"held_bytes": held, "left_bytes": memory.now()} if memory.knows_now else {}
    phases = {**peaks, **between, **reserved}
    return {"peak_bytes": max(forward, backward), **phases, "meter": _meter(memory, apart=apart), "seconds": seconds}


def _peak(memory: PeakMemory) -> int:
    """The peak so far; Linux brings it up to date at times of its own, so that what there is now may be above it."""
    return max(memory.read(), memory.now())


def _reserved(device: torch.device) -> dict[str, int]:
    """The most that torch took from a GPU since the peak was begun; a CPU's allocator keeps no such account."""
    return {"reserved_bytes": torch.cuda.max_memory_reserved(device)} if device.type == "cuda" else {}


def _meter(memory: PeakMemory, *, apart: bool) -> str:
    if memory.device.type == "cpu" and apart:
        return "bytes (VmHWM, reset before the step, over baseline)"
    return memory.unit


def _return_at_once() -> None:
    """Give every tensor above 64 KiB pages of its own, which go back to the system when it is freed (glibc).

    By itself glibc keeps freed blocks in a heap that fragments, and the resident set creeps up with the number of
    operations whatever is alive.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(-3, 64 * 1024)  # M_MMAP_THRESHOLD, which also ends its growing by itself


def _let_go() -> None:
    """Give freed memory back, where the system allows it (glibc)."""
    gc.collect()
    empty_cache()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
