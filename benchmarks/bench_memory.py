"""Peak memory of one training step, by gradient method, against everything that it may depend on.

Every cell runs in a fresh process and has two meters: the peak of the process's resident set (on a GPU, of the memory
that torch allocated) over what was there before the step, and the bytes that autograd keeps for backward. The first is
also read at the ends of the step's phases: what is held after the forward pass, the peaks of both passes, what is left
after the step; on a GPU there is also what torch reserved. Steps are those of RK4, whose number is what it is told; all
solves but those of the axis "output times" have two of them.
"""

from functools import partial

import pytest

from benchmarks import tasks
from benchmarks.recorded import CLOCK, record
from benchmarks.settings import DEVICE, grid
from repro.measuring.fresh import fresh
from repro.measuring.memory import peak
from repro.measuring.meters import counted
from repro.ode import SOLVERS, Solver
from repro.ode.gradients import supported

GRADIENTS = ("backprop", "checkpoint", "adjoint", "adjoint_seminorm")
DEPTHS = grid((2, 4, 8, 16, 32), (2, 4, 8))
TIMES = grid((2, 3, 5, 9, 17), ())
WIDTHS = grid((32, 64, 128, 256, 512, 1024, 2048), (64, 256, 1024))
BATCHES = grid((128, 256, 512, 1024, 2048), ())
METHODS = grid(("euler", "midpoint", "rk4", "implicit_adams", "bosh3", "dopri5", "dopri8"), ())
STEPS = 16


def _solver(method):
    return Solver(method, step_size=1 / STEPS) if SOLVERS[method].is_fixed_step else Solver(method)


def _cells():
    """Workload, axis, value, way, and what makes the step."""
    for steps in DEPTHS:
        yield "ODE-Net", "solver steps", steps, "ResNet", partial(tasks.classifier, blocks=steps)
        for gradient in GRADIENTS:
            yield "ODE-Net", "solver steps", steps, gradient, partial(tasks.classifier, tasks.fixed(steps), gradient)
            yield "CNF", "solver steps", steps, gradient, partial(tasks.flow, tasks.fixed(steps), gradient)
        for gradient in ("backprop", "checkpoint"):
            own = tasks.fixed(steps, "compiled")
            yield "CNF", "solver steps", steps, f"{gradient}, compiled", partial(tasks.flow, own, gradient)
    for batch in BATCHES:
        fast = partial(tasks.flow, tasks.fixed(4, "compiled"), "checkpoint", batch=batch)
        yield "CNF", "batch", batch, "checkpoint, compiled", fast
    for gradient in GRADIENTS:
        four, many = tasks.fixed(4), tasks.fixed(STEPS)
        for times in TIMES:
            yield "field", "output times", times, gradient, partial(tasks.trajectory, many, gradient, times=times)
        for width in WIDTHS:
            make = partial(tasks.trajectory, four, gradient, dim=16, width=width, batch=16)
            yield "field", "width", width, gradient, make
        for batch in BATCHES:
            yield "CNF", "batch", batch, gradient, partial(tasks.flow, four, gradient, batch=batch)
        for method in METHODS:
            if supported(_solver(method), gradient) is None:
                yield "CNF", "solver", method, gradient, partial(tasks.flow, _solver(method), gradient)


def _measured(make):
    """Peak first, as long as the process is fresh; then the counts."""
    found = peak(make, DEVICE)
    return found | counted(make()) if found["status"] == "ok" else found


CELLS = {"-".join(map(str, cell[:4])): cell for cell in _cells()}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.benchmark(group="memory of a training step", timer=CLOCK, disable_gc=False)
def test_memory(cell, benchmark):
    """A cell that runs out of memory is a result with that status; its one step is timed cold, for orientation."""
    workload, axis, value, way, make = CELLS[cell]
    found = fresh(partial(_measured, make), threads=1)  # a second thread would add its own scratch memory
    seconds = [found.pop("seconds")] if "seconds" in found else []
    record(
        benchmark, {"memory": axis, "workload": workload, "value": value, "way": way, "timing": "cold"} | found, seconds
    )
