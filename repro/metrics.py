"""What is measured of a model or a process; every function's unit is in its name.

Likelihood metrics are in nats or bits per dimension, errors in percent, memory in bytes with a named meter.
"""

import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import stdev

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F


def are_correct(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
    """Compare each example's largest logit with its label."""
    return logits.argmax(dim=1) == labels


def error_percent(errors: int, total: int) -> float:
    """Turn a count of errors into percent of the examples.

    Raises:
        ValueError: if there are no examples.
    """
    if total < 1:
        raise ValueError(f"total must be at least 1, got {total}")
    return 100.0 * errors / total


def standard_error(values: Sequence[float] | Float[Tensor, " n"]) -> float:
    """Standard error of the mean of independent values, in their unit.

    Raises:
        ValueError: if there are fewer than two.
    """
    if len(values) < 2:
        raise ValueError(f"values must be at least 2, for a deviation; got {len(values)}")
    spread = float(values.std()) if isinstance(values, Tensor) else stdev(values)
    return spread / len(values) ** 0.5


def nll_nats(logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the labels, -log softmax(logits)[label], in nats."""
    return F.cross_entropy(logits, labels)


@dataclass
class SavedBytes:
    """Bytes that autograd kept for the backward pass; see `saved_bytes`."""

    total: int = 0


@contextmanager
def saved_bytes(exclude: Iterator[Tensor] | None = None) -> Iterator[SavedBytes]:
    """Count the bytes that autograd saved inside the block and that are there at its end, every storage once.

    Exact, deterministic and the same on every device: the meter that the suite's checks rely on. What was saved for a
    graph that is gone by then, as of a solver's rejected steps, does not count. It does not see temporaries; the peaks
    of `PeakMemory` do.

    Args:
        exclude: tensors that live anyway (parameters), whose storage is not counted.
    """
    excluded = [StorageWeakRef(tensor.untyped_storage()) for tensor in (exclude or ())]
    living = {reference.cdata for reference in excluded}
    saved: dict[int, tuple[StorageWeakRef, int]] = {}  # a weak reference keeps an address from being given out twice
    meter = SavedBytes()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        if reference.cdata not in living:
            saved.setdefault(reference.cdata, (reference, storage.nbytes()))
        return tensor.detach()  # a result that its own graph saves would keep that graph, and so itself, alive

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield meter
    meter.total = sum(size for reference, size in saved.values() if not reference.expired())


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Wall-clock seconds of one call, with the device idle before and after."""
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked to; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


STATM = Path("/proc/self/statm")
"""Where Linux tells a process's resident set."""


class PeakMemory:
    """Peak memory of this process over a baseline that is taken at construction.

    On CUDA: `torch.cuda.max_memory_allocated` over what is allocated now. On a CPU: the process's largest resident
    set (`ru_maxrss`) over its resident set now. The latter never falls during a process's life, so it means something
    only in a process that does nothing else: the runner starts one per cell.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.baseline = torch.cuda.memory_allocated(device)
        else:
            self.baseline = _resident_bytes()

    @property
    def unit(self) -> str:
        """The unit, with the meter's name."""
        return f"bytes ({'max_memory_allocated' if self.device.type == 'cuda' else 'ru_maxrss'} over baseline)"

    def read(self) -> int:
        """The peak so far, in bytes over the baseline."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.baseline
        return _peak_resident_bytes() - self.baseline

    def now(self) -> int:
        """What there is at this moment, in bytes over the baseline; by the same meter as the peak's."""
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device) - self.baseline
        return _resident_bytes() - self.baseline

    @property
    def knows_now(self) -> bool:
        """Whether `now` is what there is; systems that only tell peaks, as all but Linux, give the peak so far."""
        return self.device.type == "cuda" or STATM.exists()

    def restart(self) -> bool:
        """Begin the peak anew, over the same baseline; False where the system cannot, as all but Linux."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return True
        try:
            Path("/proc/self/clear_refs").write_text("5")  # 5: the peak of the resident set
        except OSError:
            return False
        return True


def _peak_resident_bytes() -> int:
    """`ru_maxrss`; from /proc where there is one, because on Linux a child inherits its parent's `ru_maxrss`."""
    status = Path("/proc/self/status")
    peak = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    if peak:
        return int(peak.group(1)) * 1024
    scale = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _resident_bytes() -> int:
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * resource.getpagesize()
    return _peak_resident_bytes()
