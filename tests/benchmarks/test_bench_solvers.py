"""Errors are those against closed forms, counts those of a plain counter, orders those of theory."""

from functools import partial

import pytest
import torch
from torchdiffeq import odeint

from benchmarks import work_precision
from benchmarks.bench_solvers import has_its_order
from benchmarks.toys import points, toy_flow
from benchmarks.work_precision import cell_of, closed_form, flow_task, interleave, measure, order, solver_of
from repro.ode import PROBLEMS, SOLVERS

UNTRAINED = partial(toy_flow, "8gaussians", "at initialisation")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_error_and_evaluations_are_those_of_torchdiffeq_against_the_flow(problem):
    known = PROBLEMS[problem]
    calls = []

    def field(t, y):
        calls.append(t)
        return known.field(t, y)

    theirs = odeint(field, known.y0, known.times(), rtol=1e-5, atol=1e-5, method="dopri5")[-1]
    end = known.flow(known.y0, *known.times())
    cell = cell_of(problem, closed_form(known), "dopri5", 1e-5).known
    assert cell["nfe_forward"] == len(calls)
    assert cell["error"] == pytest.approx(float((theirs - end).norm() / end.norm()), rel=1e-9)
    assert (cell["engine"], cell["kind"], cell["nominal_order"]) == ("torchdiffeq", "tolerance", 5)


def test_a_fixed_step_method_takes_the_steps_it_is_told():
    task = closed_form(PROBLEMS["decay"])
    cell = cell_of("decay", task, "euler", 8).known
    assert (cell["nfe_forward"], cell["n_accepted"]) == (8, 8)
    exact = torch.tensor(-2.0).double().exp()
    assert cell["error"] == pytest.approx(float((0.75**8 - exact).abs() / exact))


@pytest.mark.parametrize("name", [name for name, solver in SOLVERS.items() if solver.is_fixed_step])
def test_orders_are_observed_on_a_closed_form(name):
    task = closed_form(PROBLEMS["oscillator"])
    found = order([cell_of("oscillator", task, name, steps).known for steps in (16, 32, 64, 128)])
    assert has_its_order(name, found)
    assert not has_its_order(name, found - 5)


def test_an_order_needs_three_errors_above_rounding():
    law = [
        {"status": "ok", "kind": "steps", "setting": n, "error": n**-3.0, "nfe_forward": 4 * n} for n in (32, 64, 128)
    ]
    assert order(law) == pytest.approx(3.0)
    assert order([point | {"kind": "tolerance"} for point in law]) == pytest.approx(3.0)
    assert order(law[1:]) is None
    assert order([*law[1:], law[0] | {"setting": 16}]) is None
    assert order([*law[1:], law[0] | {"error": 1e-15}]) is None
    assert not has_its_order("rk4", 4.6)
    assert has_its_order("implicit_adams", 6.0)
    assert has_its_order("rk4", None)


def test_a_flow_has_errors_of_state_and_log_density():
    x = points("8gaussians", 16)
    task = flow_task(UNTRAINED, x)
    with torch.no_grad():
        loose, tight = (cell_of("toy", task, "dopri5", tolerance).known for tolerance in (1e-3, 1e-8))
        log_prob = UNTRAINED(solver_of("dopri5", 1e-3, task.length), "adjoint").log_prob(x)
    assert loose["error_log_prob"] == pytest.approx(float((log_prob - task.exact_log_prob).abs().mean()))
    assert tight["error"] < 1e-7 < loose["error"]
    assert tight["error_log_prob"] < 1e-6


def test_what_is_beyond_the_budget_is_a_status_and_is_not_timed():
    task = closed_form(PROBLEMS["oscillator"])
    done, failed = (cell_of("oscillator", task, "adaptive_heun", tolerance) for tolerance in (1e-3, 1e-9))
    interleave([done, failed])
    assert failed.known["status"].startswith("failed: reached max_nfe")
    assert "error" not in failed.known
    assert (len(done.seconds) > 0, failed.seconds) == (True, [])


def test_a_problem_is_measured_with_every_setting(monkeypatch):
    monkeypatch.setattr(
        work_precision, "SOLVERS", {name: SOLVERS[name] for name in ("rk4", "rk4_compiled", "vode_adams")}
    )
    monkeypatch.setattr(work_precision, "STEPS", (32, 64, 128))
    monkeypatch.setattr(work_precision, "TOLERANCES", (1e-3, 1e-5))
    entries = measure("logistic")
    assert len(entries) == 8
    assert all(entry["known"]["status"] == "ok" and entry["seconds"] for entry in entries.values())
    assert {key[0]: entry["known"]["order"] for key, entry in entries.items()}["rk4"] == pytest.approx(4, abs=0.1)
    assert entries["rk4", 64]["known"]["error"] == pytest.approx(
        entries["rk4_compiled", 64]["known"]["error"], rel=1e-3
    )
    assert entries["vode_adams", 1e-5]["known"]["nfe_forward"] > 0
