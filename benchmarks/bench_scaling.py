"""What a CNF's training step costs against the evaluations, the batch and the dimension, by two engines."""

import pytest
import torch

from benchmarks.steps import likelihood_step
from repro.flows import CNF
from repro.nets.fields import ConcatSquashField
from repro.ode import Solver

AXES = {
    "evaluations": (8, 16, 32, 64, 128),
    "batch": (128, 256, 512, 1024, 2048, 4096),
    "dimension": (2, 32, 64, 128, 256, 512),
}
"""What is varied, and its values; the other two stand at `BASE`."""
BASE = {"evaluations": 16, "batch": 512, "dimension": 2}
STAGES = 4
"""Evaluations of a step of rk4, which takes as many steps as it is told."""
WAYS = {"torchdiffeq, adjoint": ("torchdiffeq", "adjoint"), "compiled, checkpoint": ("compiled", "checkpoint")}


@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("axis", "value"), [(axis, value) for axis, values in AXES.items() for value in values])
@pytest.mark.benchmark(group="CNF training step of FFJORD's toy field, one probe, one thread")
def test_step(axis, value, way, benchmark):
    """One likelihood and its gradient by fixed steps; the field's width stays at 64."""
    sizes = BASE | {axis: value}
    torch.manual_seed(0)
    field = ConcatSquashField(sizes["dimension"], 64, 3)
    engine, gradient = WAYS[way]
    solver = Solver("rk4", step_size=STAGES / sizes["evaluations"], engine=engine)
    flow = CNF(field, sizes["dimension"], 1.0, "hutchinson", solver, gradient)
    x, noise = torch.randn(2, sizes["batch"], sizes["dimension"])
    torch.set_num_threads(1)
    benchmark.pedantic(likelihood_step(flow, x, noise), rounds=9, warmup_rounds=2, iterations=1)
    assert flow.stats.nfe_forward == sizes["evaluations"]
    benchmark.extra_info |= {"scaling": axis, "value": value, "way": way}
