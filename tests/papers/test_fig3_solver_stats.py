"""Figure 3's sweep on a real, untrained ODE-Net: counts obey the solver's identity, errors follow the tolerance."""

from dataclasses import replace

import pytest
import torch

from repro.experiment import Context
from repro.papers.neural_ode import fig3_solver_stats, table1_mnist
from repro.papers.neural_ode.fig3_solver_stats import CELLS
from repro.results import COST_METRICS

TOLERANCES = (1e-1, 1e-2, 1e-3)


def sweep(folder, cell, **settings):
    config = replace(CELLS[cell], tolerances=TOLERANCES, reference_tolerance=1e-5, batch=4, repeats=1, **settings)
    context = Context(torch.device("cpu"), folder)
    weights = table1_mnist.build(table1_mnist.CELLS["odenet"]).state_dict()
    context.find_weights = lambda experiment, name, of_cell, seed: weights
    rows = list(fig3_solver_stats.measure(config, context))
    assert len(context.inputs) == 4, "the data files"
    return rows


def column(rows, metric):
    return [row.value for row in sorted(rows, key=lambda row: row.step) if row.metric == metric]


@pytest.mark.parametrize("cell", CELLS)
def test_errors_and_evaluations_follow_the_tolerance(tmp_path, cell):
    rows = sweep(tmp_path, cell)
    errors, forward = column(rows, "error"), column(rows, "nfe_forward")
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01
    assert forward == sorted(forward)
    assert column(rows, "gradient_error")[-1] < column(rows, "gradient_error")[0]
    assert len(column(rows, "forward_time")) == len(TOLERANCES)
    backward = column(rows, "nfe_backward")
    if cell.startswith("dopri5"):
        assert all((count - 2) % 6 == 0 for count in forward + backward), "2 + 6 k per solve"
        assert len(column(rows, "n_rejected")) == len(TOLERANCES)
    else:
        assert column(rows, "n_rejected") == [], "SciPy does not report them"


def test_the_size_of_the_loss_decides_how_hard_the_backward_solve_is(tmp_path):
    mean, total = (sweep(tmp_path, cell) for cell in ("dopri5", "dopri5_sum"))
    ratio = [b / a for a, b in zip(column(mean, "adjoint_rms"), column(total, "adjoint_rms"), strict=True)]
    assert ratio == pytest.approx([4.0] * 3, rel=1e-3), "four images"
    assert column(total, "nfe_backward") >= column(mean, "nfe_backward")
    assert column(total, "nfe_forward") == column(mean, "nfe_forward")


def test_the_same_seed_gives_the_same_rows(tmp_path):
    first, second = ([row for row in sweep(tmp_path, "vode_adams") if row.metric not in COST_METRICS] for _ in "ab")
    assert first == second
