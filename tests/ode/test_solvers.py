import math
from dataclasses import replace

import pytest
import torch

from repro.ode import PROBLEMS, SOLVERS, Solver, solve
from repro.ode.solvers import METHODS

FIXED = {name: solver for name, solver in SOLVERS.items() if solver.is_fixed_step}
ADAPTIVE = {name: solver for name, solver in SOLVERS.items() if solver.is_adaptive}
ALL_PROBLEMS = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


def error(problem, solver, n_times=2):
    t = problem.times(n_times)
    with torch.no_grad():
        return (solve(problem.field, problem.y0, t, solver).y - problem.solution(t)).abs().max().item()


def test_every_method_is_offered():
    offered = {(solver.engine, solver.method) for solver in SOLVERS.values()}
    assert offered == {(engine, method) for engine, methods in METHODS.items() for method in methods}


@ALL_PROBLEMS
def test_the_closed_form_solves_its_equation(problem):
    t = torch.tensor(0.5 * (problem.t0 + problem.t1), dtype=torch.float64)
    t0 = torch.tensor(problem.t0, dtype=torch.float64)
    y, dy = torch.func.jvp(lambda t: problem.flow(problem.y0, t0, t), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(dy, problem.field(t, y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(problem.flow(problem.y0, t0, t0), problem.y0)


@pytest.mark.parametrize("name", FIXED)
@ALL_PROBLEMS
def test_slope_of_log_error_is_the_order(name, problem):
    solver, length = FIXED[name], problem.t1 - problem.t0
    coarse, fine = (error(problem, replace(solver, step_size=length / n, rtol=1e-9, atol=1e-9)) for n in (64, 128))
    slope = math.log2(coarse / fine)
    # Three Runge-Kutta steps of local order 5 start implicit_adams; all later ones are of higher order.
    upper = 1.35 if name == "implicit_adams" else 0.35
    assert solver.order - 0.2 < slope < solver.order + upper


@pytest.mark.parametrize("name", ADAPTIVE)
@ALL_PROBLEMS
def test_error_follows_the_tolerance(name, problem):
    fine = 1e-5 if ADAPTIVE[name].order == 2 else 1e-6
    at_coarse, at_fine = (error(problem, replace(ADAPTIVE[name], rtol=tol, atol=tol)) for tol in (1e-3, fine))
    # Dense output of low order, not the steps, limits bosh3 and dopri8 at the last time, which lies inside a step.
    assert at_coarse > 25 * at_fine
    assert at_fine < 700 * fine


@pytest.mark.parametrize("name", SOLVERS)
@ALL_PROBLEMS
def test_forward_then_backward_returns(name, problem):
    tolerance = {"adaptive_heun": 1e-4, "dopri8": 1e-8}.get(name, 1e-6)
    solver = replace(SOLVERS[name], rtol=tolerance, atol=tolerance)
    t = problem.times()
    with torch.no_grad():
        there = solve(problem.field, problem.y0, t, solver).y[-1]
        back = solve(problem.field, there, t.flip(0), solver).y[-1]
    bound = 2e-2 if solver.is_adaptive else {1: 0.3, 2: 0.05}.get(solver.order, 2e-3)
    assert (back - problem.y0).abs().max() < bound
    assert (there - problem.y0).abs().max() > 0.4


@pytest.mark.parametrize("name", SOLVERS)
def test_several_output_times(name):
    problem = PROBLEMS["rational"]
    # Linear dense output limits the fixed-step methods to second order between their nodes.
    bound = 5e-2 if SOLVERS[name].method == "euler" else 2e-3
    assert error(problem, SOLVERS[name], n_times=7) < bound


@pytest.mark.parametrize(
    ("settings", "argument"),
    [
        ({"method": "dopri6"}, "method"),
        ({"method": "adams"}, "method"),
        ({"method": "dopri5", "engine": "scipy"}, "method"),
        ({"engine": "jax"}, "engine"),
        ({"rtol": 0.0}, "rtol"),
        ({"atol": -1.0}, "atol"),
        ({"atol": math.nan}, "atol"),
        ({"method": "rk4", "step_size": 0.0}, "step_size"),
        ({"step_size": 0.1}, "step_size"),
        ({"method": "rk4", "first_step": 0.1}, "first_step"),
        ({"first_step": -0.1}, "first_step"),
        ({"max_nfe": 0}, "max_nfe"),
        ({"adjoint_rtol": 0.0}, "adjoint_rtol"),
        ({"adjoint_atol": 0.0}, "adjoint_atol"),
    ],
)
def test_a_bad_setting_is_named(settings, argument):
    with pytest.raises(ValueError, match=f"^{argument}"):
        Solver(**settings)
