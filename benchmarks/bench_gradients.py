"""How exact gradients are and what that costs: every gradient method at many tolerances, against one reference.

The linear system's reference is its closed form, the others' a float64 solve at a tolerance far below all measured
ones. The cells of a workload take turns in one process; each peak of memory is read in a process of its own. Whether a
way is bound by overhead is found at the loosest tolerance, where it is the cheapest to find, and told of all of them.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from benchmarks import tasks
from benchmarks.recorded import CLOCK, measured, peak_of, record
from benchmarks.settings import DEVICE, QUICK, grid
from repro.measuring.meters import interleave, relative_error, start
from repro.measuring.overhead import Sized, doubling
from repro.measuring.step import Step
from repro.ode import Solver

WAYS = ("backprop", "checkpoint", "adjoint", "adjoint_seminorm")
COMPILED = tuple(f"{gradient}, compiled" for gradient in ("backprop", "checkpoint", "adjoint"))


@dataclass(frozen=True)
class Workload:
    """A training step whose solver and gradient method are chosen.

    Attributes:
        make: (solver, gradient, dtype) -> Step.
        exact: Makes the reference's step; takes none of these.
        reference: What the reference is, for readers.
        dtype: Of the measured steps.
        tolerances: rtol = atol, loosest first.
        ways: Gradient methods, with their engine.
        rounds: Timed steps of each cell.
    """

    make: Callable[..., Step]
    exact: Callable[[], Step]
    reference: str
    dtype: torch.dtype
    tolerances: tuple[float, ...]
    ways: tuple[str, ...]
    rounds: int


def _in_float64(make, tolerance):
    return partial(make, Solver(rtol=tolerance, atol=tolerance), "checkpoint", dtype=torch.float64)


DECADES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
WORKLOADS: Mapping[str, Workload] = {
    "linear system": Workload(
        tasks.linear,
        tasks.linear_closed_form,
        "the matrix exponential",
        torch.float64,
        grid((*DECADES, 1e-7, 1e-8, 1e-9), (1e-3, 1e-5)),
        WAYS,
        grid(9, 3),
    ),
    "trained toy CNF": Workload(
        tasks.trained_flow,
        _in_float64(tasks.trained_flow, 1e-10),
        "dopri5 in float64 at 1e-10",
        torch.float32,
        grid((*DECADES, 1e-7), (1e-3, 1e-5)),
        (*WAYS, *COMPILED),
        grid(9, 3),
    ),
    "trained ODE-Net": Workload(
        tasks.trained_classifier,
        _in_float64(tasks.trained_classifier, 1e-7),
        "dopri5 in float64 at 1e-7",
        torch.float32,
        DECADES[:4],
        WAYS,
        5,
    ),
}
NAMES = grid(tuple(WORKLOADS), ("linear system", "trained toy CNF"))
CELLS = [(name, way, tol) for name in NAMES for way in WORKLOADS[name].ways for tol in WORKLOADS[name].tolerances]


def maker(name, way, tolerance, **sizes):
    """What makes the step of a cell, of the task's own sizes by default."""
    gradient, _, engine = way.partition(", ")
    solver = Solver(rtol=tolerance, atol=tolerance, engine=engine or "torchdiffeq")
    return partial(WORKLOADS[name].make, solver, gradient, dtype=WORKLOADS[name].dtype, **sizes)


def measure(name):
    """All cells of a workload in turn; figures, seconds and errors by way and tolerance."""
    workload = WORKLOADS[name]
    exact = workload.exact()
    loss = float(exact.take())
    keys = [(way, tol) for way in workload.ways for tol in workload.tolerances]
    cells = {key: start(maker(name, *key), DEVICE) for key in keys}
    interleave(cells, workload.rounds, DEVICE)
    bound = (
        {} if QUICK else {way: overhead(name, way, cells[way, workload.tolerances[0]].step) for way in workload.ways}
    )
    return {
        key: _entry(cell, loss, exact.gradient()) | {"reference": workload.reference, **bound.get(key[0], {})}
        for key, cell in cells.items()
    }


def overhead(name, way, step):
    """Whether a way's step is bound by overhead, by the same of twice the batch; nothing where there is no step."""
    if step is None:
        return {}
    workload = WORKLOADS[name]
    batch = inspect.signature(workload.make).parameters["batch"].default

    def twice():
        other = maker(name, way, workload.tolerances[0], batch=2 * batch)()
        return Sized(other.take, other.stats)

    return doubling(Sized(step.take, step.stats), twice, DEVICE)


def _entry(cell, loss, gradient):
    known = {"status": cell.status, **cell.figures, "first_call": cell.first_call, "seconds": cell.seconds}
    if cell.gradient is None:
        return known
    errors = {"gradient_error": relative_error(cell.gradient, gradient), "loss_error": abs(known["loss"] - loss)}
    return known | errors


@pytest.mark.parametrize(("name", "way", "tolerance"), CELLS)
@pytest.mark.benchmark(group="accuracy of gradients", timer=CLOCK, disable_gc=False)
def test_gradient(name, way, tolerance, benchmark):
    """One gradient method at one tolerance."""
    found = measured(measure, name, timeout=1800)
    known = dict(found.get((way, tolerance), found))
    if known["status"] == "ok" and not QUICK:
        known |= peak_of(maker(name, way, tolerance))
    seconds = known.pop("seconds", [])
    record(benchmark, {"gradients": name, "way": way, "tolerance": tolerance} | known, seconds)
