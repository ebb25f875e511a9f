"""What a training step costs: exact counts of kept bytes by depth, and the same counts twice."""

from dataclasses import replace

import pytest
import torch

from repro.experiment import Context
from repro.papers.neural_ode import table1_cost
from repro.papers.neural_ode.table1_cost import CELLS
from repro.results import COST_METRICS

BATCH = 4
STATE_BYTES = BATCH * 64 * 6 * 6 * 4


def measured(folder, cell):
    config = replace(CELLS[cell], batch=BATCH, depths=(2, 4, 8), repeats=2)
    return list(table1_cost.measure(config, Context(torch.device("cpu"), folder)))


def kept(rows):
    return {int(row.step): row.value for row in rows if row.metric == "saved_bytes"}


@pytest.mark.parametrize(
    ("cell", "per_step"), [("depth_adjoint", 0), ("depth_adjoint_seminorm", 0), ("depth_checkpoint", STATE_BYTES)]
)
def test_kept_bytes_per_solver_step_are_what_the_method_says(tmp_path, cell, per_step):
    found = kept(measured(tmp_path, cell))
    assert found[4] - found[2] == 2 * per_step
    assert found[8] - found[4] == 4 * per_step


@pytest.mark.parametrize("cell", ["depth_backprop", "depth_resnet"])
def test_backpropagation_keeps_every_layer(tmp_path, cell):
    found = kept(measured(tmp_path, cell))
    assert found[8] - found[4] == 2 * (found[4] - found[2]) > 4 * STATE_BYTES


@pytest.mark.parametrize("cell", ["odenet", "rknet", "odenet_checkpoint", "no_block"])
def test_a_step_is_counted_the_same_twice_and_timed(tmp_path, cell):
    first, second = measured(tmp_path, cell), measured(tmp_path, cell)
    exact = [[row for row in rows if row.metric not in COST_METRICS] for rows in (first, second)]
    assert exact[0] == exact[1] != []
    values = {row.metric: row.value for row in first}
    assert 0 < values["step_time_low"] <= values["step_time"] <= values["step_time_high"]
    assert ("nfe_forward" in values) == (cell != "no_block")
    assert ("nfe_backward" in values) == (cell in ("odenet", "odenet_checkpoint")), "n/a for backprop"
