"""A user's own field is measured: errors against closed forms, counts, pictures, and pairs that do not work."""

import math
import threading

import pandas as pd
import pytest
import torch
from torch import nn

import repro
from repro.measuring.measure import COLUMNS
from repro.ode import Solver

T = torch.tensor([0.0, 1.0], dtype=torch.float64)


class Decay(nn.Module):
    """dy/dt = -a y, whose loss ½ mean y(1)² and gradients are known."""

    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def forward(self, t, y):
        return -self.rate * y


@pytest.fixture(scope="module")
def measured():
    y0 = torch.ones(4, 2, dtype=torch.float64)
    solvers = {"loose": Solver(rtol=1e-3, atol=1e-3), "vode": Solver("adams", engine="scipy")}
    return repro.measure(Decay(), y0, T, solvers=solvers, rounds=2)


def test_the_table_has_a_line_for_each_pair(measured):
    table = measured.table
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 8
    done = table[table["status"] == "ok"]
    assert list(done["gradient"]) == ["backprop", "adjoint", "adjoint_seminorm", "checkpoint", "adjoint"]
    assert (done[["time_ms", "peak_mib", "first_call_s"]] > 0).all().all()
    refused = table[table["status"] != "ok"]
    assert refused["status"].str.startswith("not supported: ").all()
    assert refused["nfe_forward"].isna().all()


def test_counts_that_do_not_apply_are_missing(measured):
    table = measured.table.set_index(["solver", "gradient"])
    assert pd.isna(table.loc[("loose", "backprop"), "nfe_backward"])
    assert pd.isna(table.loc[("vode", "adjoint"), "n_rejected"])
    assert table.loc[("loose", "adjoint"), "nfe_backward"] >= 8


def test_errors_are_those_of_the_closed_form():
    """L = ½ e^{-2a}: ∂L/∂a = -e^{-2a}, ∂L/∂y0 = e^{-2a} / n for each of the n numbers; a step of Euler is 1 - a."""
    y0, a, n = torch.ones(4, 2, dtype=torch.float64), 0.7, 8
    euler = {"one step": Solver("euler", step_size=1.0)}
    table = repro.measure(Decay(), y0, T, solvers=euler, gradients=["backprop"], rounds=1, peak_memory=False).table
    exact = [math.exp(-2 * a) / n] * n + [-math.exp(-2 * a)]
    found = [(1 - a) ** 2 / n] * n + [-(1 - a)]
    error = math.dist(found, exact) / math.hypot(*exact)
    assert table["gradient_error"].item() == pytest.approx(error, rel=1e-8)
    assert table["loss_error"].item() == pytest.approx(1 - (1 - a) ** 2 / math.exp(-2 * a), rel=1e-8)
    assert pd.isna(table["peak_mib"].item())


def test_a_function_in_float32_has_no_reference_and_says_why():
    weight = torch.ones(2, requires_grad=True)
    found = repro.measure(
        lambda t, y: weight * y,
        torch.ones(2),
        T.float(),
        gradients=["adjoint"],
        parameters=[weight],
        rounds=1,
        peak_memory=False,
    )
    assert found.reference.startswith("no reference: ")
    assert pd.isna(found.table["gradient_error"].item())
    assert found.table["status"].item() == "ok"


def test_a_loss_may_see_every_output_time():
    target, t = torch.ones(5, 1, 2, dtype=torch.float64), torch.linspace(0, 1, 5, dtype=torch.float64)
    found = repro.measure(
        Decay(),
        target[0],
        t,
        gradients=["adjoint"],
        loss=lambda y: (y - target).square().mean(),
        rounds=1,
    )
    assert found.table["status"].item() == "ok"
    assert found.table["peak_mib"].item() > 0


def test_named_parameters_of_a_module_are_those_of_its_copy():
    field = Decay()
    settings = {"gradients": ["checkpoint"], "rounds": 1, "peak_memory": False, "parameters": [field.rate]}
    found = repro.measure(field, torch.ones(1, 2, dtype=torch.float64), T, **settings)
    assert found.table["gradient_error"].item() < 1e-4


def test_a_field_that_cannot_be_copied_has_times_all_the_same():
    field = Decay()
    field.lock = threading.Lock()
    found = repro.measure(field, torch.ones(1, 2, dtype=torch.float64), T, gradients=["adjoint"], rounds=1)
    assert found.table["time_ms"].item() > 0
    assert found.table["status"].item().startswith("peak memory: TypeError")
    assert found.reference.startswith("no reference: TypeError")


def test_a_failing_pair_leaves_the_others():
    solvers = {"cut": Solver(max_nfe=3), "whole": Solver()}
    y0 = torch.ones(1, 2, dtype=torch.float64)
    table = repro.measure(Decay(), y0, T, solvers=solvers, gradients=["adjoint"], rounds=1, peak_memory=False).table
    assert table["status"].iloc[0].startswith("failed: reached max_nfe = 3")
    assert table["status"].iloc[1] == "ok"


def test_the_field_keeps_its_weights_and_device():
    field = Decay()
    repro.measure(field, torch.ones(1, 2, dtype=torch.float64), T, gradients=["adjoint"], rounds=1, peak_memory=False)
    assert (field.rate.item(), field.rate.dtype) == (0.7, torch.float64)


def test_it_is_shown_and_saved(measured, tmp_path):
    measured.save(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["measure.csv", "measure.png", "measure.svg"]
    assert len(pd.read_csv(tmp_path / "new" / "measure.csv")) == 8
    assert "adjoint_seminorm" in str(measured)
    assert "<table" in measured._repr_html_()
    figure = measured.draw()
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert "adjoint, vode" in labels
    assert "peak" in figure.axes[1].get_xlabel()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"solvers": "dopri5"}, "solvers"),
        ({"solvers": ["rk5"]}, "solvers"),
        ({"gradients": ["magic"]}, "gradients"),
        ({"rounds": 0}, "rounds"),
        ({"y0": torch.ones(2, dtype=torch.float32)}, "t must have"),
    ],
)
def test_bad_arguments_are_named(settings, name):
    arguments = {"y0": torch.ones(2, dtype=torch.float64), "t": T} | settings
    with pytest.raises((ValueError, TypeError), match=name):
        repro.measure(Decay(), **arguments)


def test_the_package_has_no_other_attributes():
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = repro.nothing_like_this


def test_parameters_that_solve_would_miss_are_refused_and_foreign_ones_leave_no_reference():
    net = nn.Linear(2, 2)
    y0, t = torch.ones(3, 2), torch.tensor([0.0, 1.0])
    with pytest.raises(ValueError, match="parameters must be given"):
        repro.measure(lambda t, y: net(y), y0, t, rounds=1, peak_memory=False)
    context = torch.ones(2, requires_grad=True)

    class Field(nn.Module):
        def forward(self, t, y):
            return y * context

    found = repro.measure(Field(), y0, t, gradients=["adjoint"], rounds=1, peak_memory=False, parameters=[context])
    assert "holds a tensor that is no parameter of the module" in found.reference
