"""What all benchmarks share: provenance without names of hosts or people, and honest pairing."""

import statistics
import time

import pytest
import torch

from benchmarks.settings import DEVICE, QUICK
from repro.provenance import provenance

torch.backends.cudnn.allow_tf32 = False  # as the suite's commands have it, and the flags that are recorded say
PRIVATE = ("node", "user", "hostname")


def pytest_benchmark_update_machine_info(config, machine_info):
    """Scrub the host's name and add what a reader needs to compare machines."""
    for key in PRIVATE:
        machine_info.pop(key, None)
    machine_info["suite"] = {**provenance(DEVICE), "quick": QUICK}


@pytest.fixture
def against(benchmark):
    """Time `ours` and `theirs` in turn, A B A B, so that a drift of the machine's speed hits both.

    The benchmark's own figures are those of `ours`; `extra_info` holds the other's median and the ratio of medians.
    """

    def run(ours, theirs, rounds=15):
        seconds = []

        def other():
            start = time.perf_counter()
            theirs()
            seconds.append(time.perf_counter() - start)

        benchmark.pedantic(ours, setup=other, rounds=rounds, warmup_rounds=2, iterations=1)
        other_median = statistics.median(seconds[2:])
        benchmark.extra_info["other_median"] = other_median
        benchmark.extra_info["ratio"] = other_median / benchmark.stats.stats.median
        return benchmark.extra_info["ratio"]

    return run


@pytest.fixture
def all_threads():
    """Give torch its threads back after a test that took some away."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
