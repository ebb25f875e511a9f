import pytest
import torch

from repro.ode import (
    GRADIENTS,
    MaxNFEExceeded,
    NonFiniteState,
    SolveError,
    Solver,
    StepSizeUnderflow,
    solve,
)

T = torch.tensor([0.0, 1.0], dtype=torch.float64)
ONE = torch.ones(1, dtype=torch.float64)
VODE = Solver("adams", engine="scipy")


POLES = [(Solver(method), gradient) for method in ("dopri5", "dopri8", "bosh3") for gradient in GRADIENTS]
POLES += [(Solver(engine="compiled"), gradient) for gradient in GRADIENTS]


@pytest.mark.parametrize(("solver", "gradient"), POLES)
def test_a_pole_stops_the_solve_near_it(solver, gradient):
    with pytest.raises((StepSizeUnderflow, NonFiniteState)) as caught:
        solve(lambda t, y: y**2, ONE, 2 * T, solver, gradient)
    error = caught.value
    assert error.status == "diverged"
    assert error.history[-1].t == pytest.approx(1, abs=0.02)
    assert not error.history[-1].accepted
    assert "\n" not in str(error)
    assert f"after {error.nfe} evaluations" in str(error)
    assert f"t = {error.history[-1].t:.6g}" in str(error)


@pytest.mark.parametrize("engine", ["torchdiffeq", "compiled"])
def test_history_is_in_the_users_time(engine):
    with pytest.raises(SolveError) as caught:
        solve(lambda t, y: -(y**2), ONE, -2 * T, Solver(engine=engine))
    assert caught.value.history[-1].t == pytest.approx(-1, abs=0.02)


def test_vode_stops_at_a_pole():
    with pytest.raises((StepSizeUnderflow, NonFiniteState), match="after"):
        solve(lambda t, y: y**2, ONE, 2 * T, VODE)


EVERY = [Solver(), Solver("rk4", step_size=0.1), VODE]
EVERY += [Solver(engine="compiled"), Solver("rk4", engine="compiled", step_size=0.1)]


@pytest.mark.parametrize("solver", EVERY)
@pytest.mark.parametrize("after", [-1.0, 0.55])
def test_a_field_that_becomes_nan(solver, after):
    with pytest.raises(NonFiniteState, match="not finite"):
        solve(lambda t, y: -y if t < after else y * torch.nan, ONE, T, solver)


@pytest.mark.parametrize("engine", ["torchdiffeq", "compiled"])
def test_a_fixed_step_overflow(engine):
    with pytest.raises(NonFiniteState, match="the state is not finite"):
        solve(lambda t, y: y**3, 10 * ONE, 2 * T, Solver("euler", step_size=0.1, engine=engine))


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_max_nfe_stops_the_forward_pass(gradient):
    calls = []

    def field(t, y):
        calls.append(1)
        return torch.cos(30 * t) * y

    with pytest.raises(MaxNFEExceeded, match="max_nfe = 40") as caught:
        solve(field, ONE, T, Solver(max_nfe=40, rtol=1e-8, atol=1e-8), gradient)
    assert caught.value.status == "budget"
    assert len(calls) == caught.value.nfe == 40
    # 2 evaluations to start, 6 for each whole step, 2 in the broken one.
    assert len(caught.value.history) == 6
    assert all(a.t <= b.t for a, b in zip(caught.value.history, caught.value.history[1:], strict=False))


def test_max_nfe_of_vode():
    with pytest.raises(MaxNFEExceeded, match="max_nfe = 7"):
        solve(lambda t, y: torch.cos(30 * t) * y, ONE, T, Solver("adams", engine="scipy", max_nfe=7))


def test_max_nfe_is_enough_when_it_is_just_enough():
    needed = solve(lambda t, y: -y, ONE, T).stats.nfe_forward
    assert solve(lambda t, y: -y, ONE, T, Solver(max_nfe=needed)).stats.nfe_forward == needed
    with pytest.raises(MaxNFEExceeded):
        solve(lambda t, y: -y, ONE, T, Solver(max_nfe=needed - 1))


@pytest.mark.parametrize(
    ("solver", "gradient"), [(Solver(), "adjoint"), (Solver(), "adjoint_seminorm"), (VODE, "adjoint")]
)
def test_max_nfe_stops_the_backward_pass(gradient, solver):
    y0 = ONE.clone().requires_grad_()
    tight = {"adjoint_rtol": 1e-12, "adjoint_atol": 1e-12, "max_nfe": 60}
    solution = solve(
        lambda t, y: torch.sin(9 * y), y0, T, Solver(solver.method, engine=solver.engine, **tight), gradient
    )
    with pytest.raises(MaxNFEExceeded) as caught:
        solution.y[-1].sum().backward()
    assert solution.stats.nfe_forward < caught.value.nfe == solution.stats.nfe_backward == 60


@pytest.mark.parametrize(("solver", "gradient"), [*((Solver(), gradient) for gradient in GRADIENTS), (VODE, "adjoint")])
def test_an_error_of_the_field_keeps_its_type(gradient, solver):
    broken = []

    def field(t, y):
        if broken:
            raise AssertionError("my own")
        return -y

    y = solve(field, ONE.clone().requires_grad_(), T, solver, gradient).y
    broken.append(1)
    if gradient != "backprop":
        with pytest.raises(AssertionError, match="my own"):
            y.sum().backward()
    with pytest.raises(AssertionError, match="my own"):
        solve(field, ONE, T, solver, gradient)


def test_a_nan_gradient_is_an_error_of_the_backward_solve():
    solution = solve(lambda t, y: -y, ONE.clone().requires_grad_(), T)
    with pytest.raises(SolveError):
        solution.y.backward(torch.full_like(solution.y, torch.nan))
