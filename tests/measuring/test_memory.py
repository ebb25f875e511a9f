"""The memory meter is right in all and by phase, whatever was measured before."""

from functools import partial
from pathlib import Path

import pytest
import torch

from repro import metrics
from repro.measuring.fresh import fresh
from repro.measuring.memory import PHASES, peak
from repro.measuring.step import Step
from repro.metrics import PeakMemory

CPU = torch.device("cpu")
MIB = 2**20


def keep(mib, leaf):
    """A loss whose graph keeps so many MiB: exp saves its result."""
    ones = torch.ones(mib * MIB // 4)
    return (leaf * ones).exp().sum()


def allocating(mib):
    leaf = torch.zeros((), requires_grad=True)
    return Step(lambda: keep(mib, leaf), (leaf,), warm=lambda: keep(1, leaf).backward())


def test_an_allocation_of_known_size_is_measured_within_5_percent():
    """ones, leaf * ones, its exp; backward the gradient of exp and that of the product: the sum's own is a view."""
    small, large = (fresh(partial(peak, partial(allocating, mib), CPU), threads=1) for mib in (64, 128))
    copies = (large["peak_bytes"] - small["peak_bytes"]) / (64 * MIB)
    assert copies == pytest.approx(round(copies), rel=0.05)
    assert small["peak_bytes"] == pytest.approx(copies * 64 * MIB, rel=0.05)
    assert small["meter"] == "bytes (VmHWM, reset before the step, over baseline)"
    assert small["seconds"] > 0


def test_phases_are_what_is_alive_in_them():
    """Between the passes two copies live, the ones and the result of exp; after the step nothing but a scalar."""
    found = fresh(partial(peak, partial(allocating, 128), CPU), threads=1)
    copies = {name: found[name] / (128 * MIB) for name in PHASES if name in found}
    assert copies["held_bytes"] == pytest.approx(2, rel=0.05)
    assert copies["left_bytes"] == pytest.approx(0, abs=0.05)
    assert copies["forward_peak_bytes"] == pytest.approx(3, rel=0.05)  # leaf * ones is freed only after its exp
    assert copies["held_bytes"] < copies["backward_peak_bytes"]
    assert found["peak_bytes"] == max(found["forward_peak_bytes"], found["backward_peak_bytes"])
    assert "reserved_bytes" not in found  # a GPU's alone


class Gpu:
    """torch's account of a GPU's memory, as its allocator keeps it: peaks since they were begun anew."""

    def __init__(self):
        self.there = self.reserved = self.top = self.top_reserved = 0

    def to(self, there, reserved):
        """Let so much be there, of so much that is reserved."""
        self.there, self.reserved = there, reserved
        self.top, self.top_reserved = max(self.top, there), max(self.top_reserved, reserved)

    def restart(self):
        self.top, self.top_reserved = self.there, self.reserved


def test_a_gpu_s_phases_are_read_from_its_allocator(monkeypatch):
    gpu, leaf = Gpu(), torch.ones((), requires_grad=True)
    gpu.to(100, 200)  # the model
    readings = {
        "synchronize": lambda: None,
        "reset_peak_memory_stats": gpu.restart,
        "memory_allocated": lambda: gpu.there,
        "max_memory_allocated": lambda: gpu.top,
        "max_memory_reserved": lambda: gpu.top_reserved,
    }
    for name, reading in readings.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, reading=reading: reading())

    def forward():
        gpu.to(190, 900)
        gpu.to(150, 600)
        return leaf * 1

    def backward(_):
        gpu.to(170, 800)
        gpu.to(110, 800)

    leaf.register_hook(backward)
    found = peak(lambda: Step(forward, (leaf,)), torch.device("cuda"))
    assert [found[name] for name in PHASES] == [90, 50, 70, 10, 900]
    assert (found["peak_bytes"], found["meter"]) == (90, "bytes (max_memory_allocated over baseline)")


def owning(mib):
    """A step whose one parameter, and hence gradient, has so many MiB."""
    weight = torch.zeros(mib * MIB // 4, requires_grad=True)
    few = torch.zeros(4, requires_grad=True)
    return Step(lambda: weight.sin().sum(), (weight, few), warm=lambda: few.sin().sum().backward())


def test_a_gradient_is_what_a_step_leaves():
    found = fresh(partial(peak, partial(owning, 64), CPU), threads=1)
    assert found["left_bytes"] == pytest.approx(64 * MIB, rel=0.05)
    assert found["held_bytes"] == pytest.approx(0, abs=0.05 * 64 * MIB)  # sin saves the weight, which lives anyway
    assert found["backward_peak_bytes"] >= found["left_bytes"]


def test_where_a_peak_cannot_be_begun_anew_it_is_not_split(monkeypatch):
    monkeypatch.setattr(PeakMemory, "restart", lambda self: False)
    found = peak(partial(allocating, 1), CPU)
    assert found["meter"] == "bytes (ru_maxrss over baseline)"
    assert {"held_bytes", "left_bytes", "peak_bytes"} <= set(found)
    assert not {"forward_peak_bytes", "backward_peak_bytes"} & set(found)
    monkeypatch.setattr(metrics, "STATM", Path("/nowhere"))  # as on systems that tell peaks alone
    assert not {"held_bytes", "left_bytes"} & set(peak(partial(allocating, 1), CPU))


def test_the_order_of_cells_changes_nothing():
    first = fresh(partial(peak, partial(allocating, 32), CPU), threads=1)["peak_bytes"]
    fresh(partial(peak, partial(allocating, 256), CPU), threads=1)
    assert fresh(partial(peak, partial(allocating, 32), CPU), threads=1)["peak_bytes"] == pytest.approx(first, rel=0.05)


def test_a_step_that_fails_is_a_status():
    def step():
        raise ValueError("no such field")

    assert fresh(partial(peak, step, CPU)) == {"status": "ValueError: no such field"}


def test_a_cell_beyond_the_machines_memory_is_a_status():
    assert fresh(partial(peak, partial(allocating, 2**24), CPU), threads=1) == {"status": "out of memory"}
