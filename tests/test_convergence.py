"""Reconstruction against closed forms, failures as inf, and the drift of a metric."""

import math
import re

import pytest
import torch

from repro.convergence import (
    MAX_POINTS,
    carry_to_base,
    carry_to_data,
    drift_row,
    flow_reconstruction_rows,
    reconstruction_rows,
)
from repro.flows import CNF, Stack
from repro.ode import NonFiniteState, Solver, StepSizeUnderflow, solve

X = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.6, 0.8]], dtype=torch.float64)


def values(rows):
    return {row.metric: row.value for row in rows}


def solves(field, solver, t1=1.0):
    """Forward and inverse of a field over [0, t1]."""

    def carry(y, *times):
        return solve(field, y, torch.tensor(times, dtype=y.dtype), solver, "backprop").y[-1]

    return lambda y: carry(y, 0.0, t1), lambda y: carry(y, t1, 0.0)


def test_the_error_is_relative_to_the_row_and_to_the_rms_of_all_rows():
    """By hand: norms 5, 0 and 1, their root mean square (26 / 3)^½; every row is moved by a distance of 0.1."""
    rows = list(reconstruction_rows(lambda x: x, lambda z: z + torch.tensor([0.06, 0.08]), X))
    assert [row.metric for row in rows] == ["reconstruction_error", "reconstruction_error_p99"]
    assert {row.unit for row in rows} == {"relative, 3 points"}
    assert rows[0].value == pytest.approx(0.1 / math.sqrt(26 / 3))
    assert rows[0].step is None


def test_states_of_any_shape_are_measured_by_all_their_numbers():
    x = torch.arange(24.0).reshape(2, 3, 2, 2)
    flat = values(reconstruction_rows(lambda y: y, lambda y: 1.1 * y, x.flatten(1)))
    assert values(reconstruction_rows(lambda y: y, lambda y: 1.1 * y, x)) == flat


def test_the_quantile_leaves_out_the_worst_hundredth():
    x = torch.ones(1000, 1)
    moved = torch.zeros(1000, 1)
    moved[:5] = 7.0
    found = values(reconstruction_rows(lambda y: y, lambda y: y + moved, x))
    assert found == {"reconstruction_error": 3.5, "reconstruction_error_p99": 0.0}
    moved[:5] = torch.inf
    assert values(reconstruction_rows(lambda y: y, lambda y: y + moved, x))["reconstruction_error_p99"] == 0
    moved[:20] = torch.nan
    assert set(values(reconstruction_rows(lambda y: y, lambda y: y + moved, x)).values()) == {torch.inf}


def test_starts_at_zero_that_come_back_have_no_error():
    assert set(values(reconstruction_rows(lambda y: y, lambda y: y, torch.zeros(4, 2))).values()) == {0.0}


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8])
def test_a_linear_field_is_reconstructed_to_its_tolerance(rtol):
    """A rotation contracts and expands nothing: the error is that of two solves."""
    rotation = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    found = values(reconstruction_rows(*solves(lambda t, y: y @ rotation, Solver(rtol=rtol, atol=rtol)), X))
    assert 0 < found["reconstruction_error_p99"] <= found["reconstruction_error"] < 20 * rtol


@pytest.mark.parametrize("n", [4, 16])
def test_the_error_of_a_linear_field_has_a_closed_form_with_fixed_steps(n):
    """Euler's steps forward and back multiply every row by 1 − h²λ² each: the longest row has the largest error."""
    rate, solver = -0.5, Solver("euler", step_size=1 / n)
    found = values(reconstruction_rows(*solves(lambda t, y: rate * y, solver), X))
    lost = 1 - (1 - (rate / n) ** 2) ** n
    assert found["reconstruction_error"] == pytest.approx(5 * lost / (5 + math.sqrt(26 / 3)))


def test_a_stiff_contracting_field_loses_its_start():
    """All starts end next to sin t; on the way back e^30 multiplies what the tolerance let pass."""
    field = lambda t, y: -30.0 * (y - torch.sin(t))  # noqa: E731
    found = values(reconstruction_rows(*solves(field, Solver(rtol=1e-5, atol=1e-5)), X))
    assert 1 < found["reconstruction_error"] < torch.inf


@pytest.mark.parametrize("solver", [Solver(), Solver("rk4", step_size=0.05), Solver(engine="compiled")])
def test_a_field_that_overflows_on_its_inverse_gives_inf(solver):
    """dy/dt = −y³ contracts forward; back from y it ends in infinity at time 1 / (2 y²) before the end."""
    forward, inverse = solves(lambda t, y: -(y**3), solver)
    found = values(reconstruction_rows(forward, lambda y: inverse(100 * y), X))
    assert set(found.values()) == {torch.inf}


@pytest.mark.parametrize("error", [StepSizeUnderflow("stiff"), NonFiniteState("overflow")])
@pytest.mark.parametrize("fails", ["forward", "inverse"])
def test_a_solve_that_fails_gives_inf_and_both_rows(fails, error):
    def fail(y):
        raise error

    maps = {"forward": lambda y: y, "inverse": lambda y: y} | {fails: fail}
    assert values(reconstruction_rows(maps["forward"], maps["inverse"], X)) == {
        "reconstruction_error": torch.inf,
        "reconstruction_error_p99": torch.inf,
    }


def test_an_end_that_is_not_finite_is_not_carried_back():
    called = []
    found = values(reconstruction_rows(lambda y: y / 0, called.append, X))
    assert set(found.values()) == {torch.inf}
    assert not called


def test_other_errors_are_not_hidden():
    def mistake(y):
        raise ValueError("no such shape")

    with pytest.raises(ValueError, match="no such shape"):
        list(reconstruction_rows(mistake, mistake, X))


@pytest.fixture
def stack(make_field):
    solver = Solver(rtol=1e-6, atol=1e-6)
    flows = [CNF(make_field(2), 2, t1, "closed_form", solver) for t1 in (0.5, 0.25)]
    for parameter in flows[1].parameters():
        parameter.data.mul_(2)  # another flow than the first
    return Stack(flows)


def test_a_stack_is_carried_through_all_its_flows_and_back(stack):
    x = torch.randn(20, 2, dtype=torch.float64)
    with torch.no_grad():
        z = carry_to_base(stack, x)
        first, _ = stack.cnfs[0].transform(x)
        last, _ = stack.cnfs[1].transform(first)
        back = carry_to_data(stack, z)
    torch.testing.assert_close(z, last, rtol=1e-4, atol=1e-5)
    errors = (x - back).norm(dim=1) / (x.norm(dim=1) + x.square().sum(1).mean().sqrt())
    found = values(flow_reconstruction_rows(stack, x))
    assert found["reconstruction_error"] == pytest.approx(float(errors.max()), rel=1e-9)
    assert 0 < found["reconstruction_error"] < 1e-4
    one = values(flow_reconstruction_rows(stack.cnfs[0], x))
    assert 0 < one["reconstruction_error"] < found["reconstruction_error"] * 10


def test_so_many_points_are_reconstructed_at_most(stack):
    rows = list(flow_reconstruction_rows(stack.cnfs[0], torch.randn(MAX_POINTS + 5, 2, dtype=torch.float64)))
    assert {int(re.findall(r"\d+", row.unit)[0]) for row in rows} == {MAX_POINTS}


def test_a_flow_that_overflows_in_a_fixed_step_gives_inf():
    """Without an error control nothing fails: the numbers themselves tell."""
    flow = CNF(lambda t, y: y**3, 1, solver=Solver("euler", step_size=0.1))
    assert set(values(flow_reconstruction_rows(flow, torch.full((3, 1), 1e4))).values()) == {torch.inf}


def test_the_drift_is_the_tight_value_minus_the_value():
    row = drift_row(0.5, lambda: 0.25, "nats")
    assert (row.metric, row.value, row.unit, row.step) == ("value_drift", -0.25, "nats", None)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_drift_that_is_not_finite_is_inf(value):
    assert drift_row(0.5, lambda: value, "%").value == math.inf
    assert drift_row(value, lambda: 0.5, "%").value == math.inf


def test_a_tight_solve_that_fails_gives_a_drift_of_inf():
    def fail():
        raise StepSizeUnderflow("stiff")

    assert drift_row(0.5, fail, "nats").value == math.inf


def test_a_tighter_solver_has_a_tenth_of_the_tolerances_or_of_the_step():
    tight = Solver(rtol=1e-5, atol=1e-7).tighten()
    assert (tight.rtol, tight.atol) == (pytest.approx(1e-6), pytest.approx(1e-8))
    assert Solver("rk4", step_size=0.05).tighten().step_size == pytest.approx(0.005)
