"""Where a step of this suite spends its time: by torch's operations, by native steps, and by Python between them."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.peers.protocol import Step
from benchmarks.settings import DEVICE
from repro.ode.kernels import steps

SHOWN = 5
"""Parts that are told; the rest is one."""
NATIVE, PYTHON, REST = "native steps", "Python", "other operations"


def shares(step: Step) -> list[tuple[str, float]]:
    """Parts of a step's time on the host, the largest first, in shares that add up to 1.

    The profiler's own cost falls mostly on small operations and on Python, whose shares are upper bounds.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if DEVICE.type == "cuda" else [])]
    step()
    with _named_kernel(), profile(activities=activities) as found, record_function(PYTHON):
        step()
    times = {event.key: event.self_cpu_time_total for event in found.key_averages() if event.self_cpu_time_total > 0}
    total = sum(times.values())
    parts = sorted(times.items(), key=lambda item: -item[1])
    rest = sum(time for _, time in parts[SHOWN:])
    return [(name, time / total) for name, time in [*parts[:SHOWN], *([(REST, rest)] if rest else [])]]


@contextmanager
def _named_kernel() -> Iterator[None]:
    """Let the profiler see the kernel's calls, which are none of torch's operations."""
    call = steps.on_all_rows

    def named(*given, **settings):
        with record_function(NATIVE):
            return call(*given, **settings)

    with mock.patch.object(steps, "on_all_rows", named):
        yield
