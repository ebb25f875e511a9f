"""What a tolerance promises: at every output time, in the backward solve, and of short pulses."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from repro.flows.planar_field import PlanarField
from repro.ode import SOLVERS, BackwardDrift, BackwardDriftWarning, MaxNFEExceeded, Solver, solve

ADAPTIVE = [name for name, solver in SOLVERS.items() if solver.is_adaptive]
TIMES = [[0.0, 1.0], [0.0, 0.3, 0.61, 2.0], [2.0, 0.9, 0.0]]
WORST = {"fehlberg2": 400.0}
"""torchdiffeq begins its steps with the last stage of the one before, which is not the field at their start."""


def turn(t, y):
    return torch.stack([y[1], -y[0]])


@pytest.mark.parametrize("tolerance", [1e-5, 1e-7, 1e-9])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_error_at_output_times_is_of_the_order_of_the_tolerance(name, tolerance):
    for times in TIMES:
        t = torch.tensor(times, dtype=torch.float64)
        solver = replace(SOLVERS[name], rtol=tolerance, atol=tolerance)
        with torch.no_grad():
            y = solve(turn, torch.stack([t[0].cos(), -t[0].sin()]), t, solver).y
        assert (y[:, 0] - t.cos()).abs().max() < WORST.get(name, 50.0) * tolerance


COARSE = [name for name in ADAPTIVE if SOLVERS[name].ends_steps_on_outputs]


@pytest.mark.parametrize("name", COARSE)
@pytest.mark.parametrize("times", [[0.0, 0.25, 0.5, 0.6, 0.8, 1.0], [1.0, 0.75, 0.5, 0.4, 0.1]])
def test_a_step_that_ends_on_an_output_by_itself_is_followed_by_cut_ones(name, times):
    t = torch.tensor(times, dtype=torch.float64)
    solver = replace(SOLVERS[name], max_step=0.25, first_step=0.25, rtol=1e-4, atol=1e-4)
    gradients = []
    for gradient in ("backprop", "checkpoint"):
        y0 = torch.stack([t[0].cos(), -t[0].sin()]).requires_grad_()
        y = solve(turn, y0, t, solver, gradient).y
        assert (y[:, 0] - t.cos()).abs().max() < WORST.get(name, 50.0) * 1e-4
        gradients.append(torch.autograd.grad((y * torch.arange(1.0, 1 + len(t)).view(-1, 1)).sum(), y0)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_steps_are_no_longer_than_max_step_and_meet_a_pulse(name):
    def pulse(t, y):
        return torch.where((t > 5) & (t < 5.1), 1.0, 0.0).to(y) * torch.ones_like(y)

    y0, t = torch.zeros(1, dtype=torch.float64), torch.tensor([0.0, 10.0], dtype=torch.float64)
    with torch.no_grad():
        assert float(solve(pulse, y0, t, SOLVERS[name]).y[-1]) == 0.0  # stepped over
        end = float(solve(pulse, y0, t, replace(SOLVERS[name], max_step=0.05)).y[-1])
    assert end == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("setting", ["rtol", "step_size", "max_step", "first_step", "max_nfe", "max_backward_drift"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", torch.tensor([1.0, 2.0])])
def test_settings_that_are_no_positive_numbers_are_named(setting, value):
    method = "rk4" if setting == "step_size" else "dopri5"
    with pytest.raises((TypeError, ValueError), match=setting):
        Solver(method, **{setting: value})


@pytest.mark.parametrize("engine", ["torchdiffeq", "compiled"])
def test_more_steps_than_the_budget_are_refused_before_they_are_listed(engine):
    y0, t = torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    tiny = Solver("euler", step_size=1e-9, engine=engine, max_nfe=1000)
    with pytest.raises(MaxNFEExceeded, match=r"1e\+09 steps of step_size are more than max_nfe = 1000 allows"):
        solve(lambda t, y: -y, y0, t, tiny)
    with pytest.raises(ValueError, match=r"step_size makes 1e\+09 steps, over the bound"):
        solve(lambda t, y: -y, y0, t, replace(tiny, max_nfe=None))


def test_a_budget_is_a_whole_number(without_type_checks):
    with pytest.raises(ValueError, match="max_nfe must be a whole number"):
        Solver(max_nfe=2.5)


# --- the drift of the backward solve ---------------------------------------------------------------------------------


class Relaxing(nn.Module):
    """y1 follows cos t at a rate, and y2 collects θ y1: dL/dθ of y2(1) is the integral of y1."""

    def __init__(self, rate):
        super().__init__()
        self.rate, self.theta = rate, nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, t, y):
        return torch.stack([-self.rate * (y[0] - t.cos()), self.theta * y[0]])


def differentiate(rate, gradient, **settings):
    field = Relaxing(rate)
    y0, t = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([0.0, 1.0], dtype=torch.float64)
    solve(field, y0, t, Solver(**{"rtol": 1e-6, "atol": 1e-6} | settings), gradient).y[-1, 1].backward()
    return float(field.theta.grad)


def integral(rate):
    """∫ y1 dt over [0, 1], in closed form."""
    r, one = torch.tensor(rate, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    particular = (r * r * one.sin() - r * (one.cos() - 1)) / (r * r + 1)
    transient = (1 - r * r / (r * r + 1)) * (1 - torch.exp(-r)) / r
    return float(particular + transient)


ENGINES = [{"engine": "torchdiffeq"}, {"engine": "compiled"}, {"engine": "scipy", "method": "adams"}]


@pytest.mark.parametrize("gradient", ["adjoint", "adjoint_seminorm"])
@pytest.mark.parametrize("settings", ENGINES)
def test_an_unstable_backward_solve_is_warned_of_or_refused(settings, gradient):
    if settings["engine"] == "scipy" and gradient != "adjoint":
        pytest.skip("VODE has no seminorm")
    with pytest.warns(BackwardDriftWarning, match="adjoint: the state that is solved backward is") as caught:
        differentiate(20.0, gradient, **settings)
    assert len(caught) == 1
    with pytest.raises(BackwardDrift, match="over max_backward_drift = 1000"):
        differentiate(20.0, gradient, max_backward_drift=1000.0, **settings)


@pytest.mark.parametrize("settings", ENGINES)
@pytest.mark.parametrize("gradient", ["adjoint", "checkpoint", "backprop"])
def test_a_stable_one_is_right_and_silent(settings, gradient):
    if settings["engine"] == "scipy" and gradient != "adjoint":
        pytest.skip("VODE is differentiated by the adjoint method alone")
    with warnings.catch_warnings():
        warnings.simplefilter("error", BackwardDriftWarning)
        value = differentiate(1.0, gradient, max_backward_drift=100.0, **settings)
    assert value == pytest.approx(integral(1.0), abs=1e-4)


@pytest.mark.parametrize("gradient", ["checkpoint", "backprop"])
@pytest.mark.parametrize("engine", ["torchdiffeq", "compiled"])
def test_methods_that_do_not_solve_backward_are_right_where_the_adjoint_is_not(engine, gradient):
    assert differentiate(20.0, gradient, engine=engine) == pytest.approx(integral(20.0), rel=1e-5)


@pytest.mark.parametrize("engine", ["torchdiffeq", "compiled"])
def test_the_drift_of_a_field_with_a_kernel_is_measured_too(engine):
    torch.manual_seed(0)
    field = PlanarField(2, 8).double()
    y0, t = torch.randn(3, 2, dtype=torch.float64), torch.tensor([0.0, 0.2], dtype=torch.float64)
    y = solve(field, y0, t, Solver(engine=engine, max_backward_drift=1e-12), "adjoint").y
    with pytest.raises(BackwardDrift):
        y.sum().backward()
