"""Entries of pytest-benchmark's file for what another process measured: times, and figures that are no times."""

import functools
from collections.abc import Iterator
from functools import partial

from benchmarks.settings import DEVICE
from repro.measuring.fresh import fresh
from repro.measuring.memory import peak


class Recorded:
    """A clock whose readings reproduce given durations, each from 0."""

    __name__ = "recorded, perf_counter"

    def __init__(self):
        self._readings: Iterator[float] = iter(())

    def load(self, seconds):
        """Take the durations that come next."""
        self._readings = iter([reading for duration in seconds for reading in (0.0, duration)])

    def __call__(self):
        """The next reading."""
        return next(self._readings)


CLOCK = Recorded()


def peak_of(make):
    """The peak memory of a step in a fresh process; or why there is none, which leaves its times and counts alone."""
    found = fresh(partial(peak, make, DEVICE), threads=1)
    if found["status"] != "ok":
        return {"peak_status": found["status"]}
    return {"peak_bytes": found["peak_bytes"], "meter": found["meter"]}


@functools.cache
def measured(measure, name, timeout=600.0):
    """What `measure(name)` gives, from one fresh process on one thread, made when it is first asked for."""
    return fresh(partial(measure, name), threads=1, timeout=timeout)


def record(benchmark, known, seconds=()):
    """Write an entry.

    Args:
        benchmark: pytest-benchmark's fixture, in a test whose mark has `timer=CLOCK`.
        known: Everything that is no time; goes into `extra_info`.
        seconds: Durations; an entry without any has a single one of 0 s, and its `status` says why.
    """
    benchmark.extra_info |= known
    CLOCK.load(durations := list(seconds) or [0.0])
    benchmark.pedantic(lambda: None, rounds=len(durations), iterations=1)
