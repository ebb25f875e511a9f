"""How often a training step evaluates its field, forward and backward, against everything that it may depend on.

Counts are deterministic, so every cell is counted once, in float64, where tight tolerances can be reached. Steps are
those of FFJORD's toy flow on 8gaussians at initialisation and trained, of its field between many output times, and of
flows of more dimensions at initialisation: hidden layers stay 64 wide and nothing is trained there, so that axis says
what the dimension alone does, while FFJORD's Figure 5 is about trained flows.

dopri5 without `first_step` evaluates 2 + 6 k times in a solve of k attempted steps, kept or not: f at the start, one
more to choose the first step, six new stages an attempt, since its last stage is the next step's first. The adjoint
solves once per interval between output times, so its backward count is 2 a interval + 6 k. Checkpoint solves nothing
backward: it replays the kept steps, seven stages each where an output lies inside and six elsewhere, so the identity
is not applicable; backprop evaluates no field at all.
"""

from dataclasses import asdict
from functools import partial

import pytest
import torch

from benchmarks import tasks
from benchmarks.recorded import CLOCK, record
from benchmarks.settings import DEVICE, grid
from benchmarks.toys import STATES, points, toy_flow
from repro.measuring.meters import status_of
from repro.measuring.step import flow_step, solve_step
from repro.metrics import timed
from repro.ode import GRADIENTS, SOLVERS, Solver

CELL, BATCH, TOLERANCE = "8gaussians", 128, 1e-5
TOLERANCES = grid((1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8), (1e-3, 1e-5, 1e-7))
METHODS = grid(tuple(name for name, solver in SOLVERS.items() if solver.is_adaptive), ("dopri5", "bosh3", "vode_adams"))
TIMES = grid((2, 3, 5, 11, 21, 101), (2, 3, 11))
DIMENSIONS = grid((2, 4, 8, 16, 32, 64, 128, 256), (2, 16, 128))
WIDTH = 64
TOY, FIELD, FLOW = f"CNF, {CELL}", f"field, {CELL}", f"CNF of width {WIDTH}"
"""Workloads."""


def _solver(name="dopri5", tolerance=TOLERANCE):
    known = SOLVERS[name]
    return Solver(known.method, rtol=tolerance, atol=tolerance, engine=known.engine)


def toy(state, solver, gradient):
    """A step of the toy flow by its data's likelihood."""
    return flow_step(toy_flow(CELL, state, solver, gradient), points(CELL, BATCH))


def visited(state, solver, gradient, times):
    """A step of the toy flow's field, without the density, whose loss sees its state at so many times."""
    flow = toy_flow(CELL, state, solver, gradient)
    t = torch.linspace(0, flow.t1, times, device=DEVICE, dtype=torch.float64)
    return solve_step(flow.field, points(CELL, BATCH), t, solver, gradient, tasks.over_all)


def _cells():
    """Axis, workload, value, gradient, state, solver, and what makes the step."""
    for state in STATES:
        for gradient in GRADIENTS:
            for tolerance in TOLERANCES:
                solver = _solver(tolerance=tolerance)
                yield "tolerance", TOY, tolerance, gradient, state, solver, partial(toy, state, solver, gradient)
            for name in METHODS:
                solver = _solver(name)
                yield "solver", TOY, name, gradient, state, solver, partial(toy, state, solver, gradient)
            for times in TIMES:
                solver = _solver()
                make = partial(visited, state, solver, gradient, times)
                yield "output times", FIELD, times, gradient, state, solver, make
    for gradient in GRADIENTS:
        for dim in DIMENSIONS:
            solver = _solver()
            make = partial(tasks.flow, solver, gradient, dim=dim, width=WIDTH, batch=BATCH, dtype=torch.float64)
            yield "dimension", FLOW, dim, gradient, STATES[0], solver, make


def counted(make):
    """Take a step and give its counts and seconds, or a status that says why there are none."""
    try:
        step = make()
        seconds = timed(step.take, DEVICE)
    except Exception as error:  # what cannot be done is a result
        return {"status": status_of(error)}
    return {"status": "ok", "seconds": seconds, **asdict(step.stats())}


def identity(found, solver, gradient, intervals=1):
    """Whether the counts are those of dopri5's steps, forward and backward; "n/a" where there is no such law."""
    if found["status"] != "ok" or solver.method != "dopri5" or solver.first_step is not None:
        return {"identity": "n/a", "identity_backward": "n/a"}
    forward = found["nfe_forward"] == 2 + 6 * (found["n_accepted"] + found["n_rejected"])
    if not gradient.startswith("adjoint"):
        return {"identity": forward, "identity_backward": "n/a"}
    attempts = found["n_accepted_backward"] + found["n_rejected_backward"]
    return {"identity": forward, "identity_backward": found["nfe_backward"] == 2 * intervals + 6 * attempts}


CELLS = {"-".join(map(str, cell[:5])): cell for cell in _cells()}


@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.benchmark(group="evaluations of a training step", timer=CLOCK, disable_gc=False)
def test_evaluations(cell, benchmark):
    """The counts of a cell, which follow the identity where there is one; the recorded time is the counted step's."""
    axis, workload, value, gradient, state, solver, make = CELLS[cell]
    torch.set_num_threads(1)
    known = {"nfe": axis, "workload": workload, "value": value, "way": gradient, "state": state, "timing": "cold"}
    found = counted(make)
    seconds = [found.pop("seconds")] if "seconds" in found else []
    held = identity(found, solver, gradient, value - 1 if axis == "output times" else 1)
    record(benchmark, known | {"tolerance": solver.rtol} | found | held, seconds)
    assert False not in held.values()
