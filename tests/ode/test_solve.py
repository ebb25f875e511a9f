from dataclasses import replace

import pytest
import torch
from torchdiffeq import odeint

from repro.ode import GRADIENTS, SOLVERS, Solver, UnsupportedCombination, solve, supported
from repro.ode.parameters import list_tensors
from repro.ode.solve import check_problem

PAIRS = [(name, gradient) for name in SOLVERS for gradient in GRADIENTS]
SUPPORTED = [(name, gradient) for name, gradient in PAIRS if supported(SOLVERS[name], gradient) is None]
UNSUPPORTED = sorted(set(PAIRS) - set(SUPPORTED))
T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)


def test_the_unsupported_pairs_are_the_known_ones():
    adams = {("explicit_adams", "checkpoint"), ("implicit_adams", "checkpoint")}
    vode = {("vode_adams", gradient) for gradient in ("backprop", "adjoint_seminorm", "checkpoint")}
    assert set(UNSUPPORTED) == adams | vode


@pytest.mark.parametrize(("name", "gradient"), UNSUPPORTED)
def test_an_unsupported_pair_raises_its_reason(name, gradient, net, y0):
    with pytest.raises(UnsupportedCombination) as caught:
        solve(net, y0, T, SOLVERS[name], gradient)
    assert str(caught.value) == supported(SOLVERS[name], gradient)


def test_an_unknown_gradient_is_named(net, y0):
    with pytest.raises(ValueError, match="gradient must be one of: backprop, adjoint"):
        solve(net, y0, T, gradient="adjiont")


@pytest.mark.parametrize(("name", "gradient"), SUPPORTED)
@pytest.mark.parametrize("direction", [1, -1])
def test_the_counter_does_not_change_the_values(name, gradient, direction, net, y0):
    solver, t = SOLVERS[name], direction * T
    solution = solve(net, y0, t, solver, gradient)
    assert torch.equal(solution.y[0], y0)
    assert solution.stats.nfe_forward > 0
    assert solution.stats.nfe_backward == (None if gradient == "backprop" else 0)
    if solver.engine == "torchdiffeq":
        options = {"step_size": solver.step_size} if solver.is_fixed_step else {}
        if name == "explicit_adams":
            options["max_order"] = 5
        if solver.ends_steps_on_outputs:
            options["step_t"] = t[1:]
        expected = odeint(net, y0, t, rtol=solver.rtol, atol=solver.atol, method=solver.method, options=options)
        assert torch.equal(solution.y, expected)


@pytest.mark.parametrize(("shape", "dtype"), [((), torch.float64), ((2, 3, 4), torch.float32)])
@pytest.mark.parametrize(("name", "gradient"), SUPPORTED)
def test_any_shape_and_dtype(name, gradient, shape, dtype):
    y0 = torch.ones(shape, dtype=dtype, requires_grad=True)
    solution = solve(lambda t, y: -y, y0, T.to(dtype), SOLVERS[name], gradient)
    solution.y[-1].sum().backward()
    assert solution.y.dtype == dtype
    assert solution.y.shape == (3, *shape)
    bound = 3e-2 if SOLVERS[name].method == "euler" else 2e-3
    torch.testing.assert_close(y0.grad, torch.full(shape, torch.e**-1, dtype=dtype), rtol=0, atol=bound)


@pytest.mark.parametrize(("name", "gradient"), SUPPORTED)
def test_no_grad_gives_the_same_values(name, gradient, net, y0):
    with torch.no_grad():
        values = solve(net, y0, T, SOLVERS[name], gradient).y
    assert not values.requires_grad
    assert torch.equal(values, solve(net, y0, T, SOLVERS[name], gradient).y.detach())


@pytest.mark.parametrize("n_times", [2, 4])
@pytest.mark.parametrize("gradient", ["adjoint", "adjoint_seminorm"])
def test_nfe_identity_of_dopri5(gradient, n_times, net, y0):
    t = torch.linspace(0, 3, n_times, dtype=torch.float64)
    solver = Solver(rtol=1e-9, atol=1e-9)
    solution = solve(lambda t, y: 5 * net(t, 3 * y), y0, t, solver, gradient, net.parameters())
    solution.y.square().sum().backward()
    stats = solution.stats
    assert stats.n_rejected > 0
    assert stats.nfe_forward == 2 + 6 * (stats.n_accepted + stats.n_rejected)
    attempted = stats.n_accepted_backward + stats.n_rejected_backward
    assert stats.nfe_backward == 2 * (n_times - 1) + 6 * attempted


def test_first_step_saves_one_evaluation(net, y0):
    stats = solve(net, y0, T, Solver(first_step=0.01)).stats
    assert stats.nfe_forward == 1 + 6 * (stats.n_accepted + stats.n_rejected)


@pytest.mark.parametrize(("method", "stages"), [("euler", 1), ("midpoint", 2), ("heun2", 2), ("heun3", 3), ("rk4", 4)])
def test_nfe_of_fixed_steps(method, stages, net, y0):
    stats = solve(net, y0, T, Solver(method, step_size=0.125)).stats
    assert (stats.n_accepted, stats.n_rejected, stats.nfe_forward) == (8, 0, 8 * stages)


def test_nfe_of_a_second_backward_is_added(net, y0):
    solution = solve(net, y0, T)
    solution.y.sum().backward(retain_graph=True)
    once = solution.stats.nfe_backward
    solution.y.sum().backward()
    assert solution.stats.nfe_backward == 2 * once > 0


def test_adjoint_tolerance_changes_the_backward_pass_alone(net, y0):
    def stats(**settings):
        solution = solve(net, y0, T, Solver(**settings))
        solution.y.square().sum().backward()
        return solution.stats

    for loose, tight in (
        ({"rtol": 1e-3, "atol": 1e-12}, "adjoint_rtol"),
        ({"rtol": 1e-12, "atol": 1e-3}, "adjoint_atol"),
    ):
        default, changed = stats(**loose), stats(**loose, **{tight: 1e-9})
        assert changed.nfe_forward == default.nfe_forward
        assert changed.nfe_backward > default.nfe_backward


@pytest.mark.parametrize(
    ("change", "kind", "argument"),
    [
        ({"y0": torch.tensor([1, 2])}, TypeError, "y0"),
        ({"y0": torch.empty(0, 2, dtype=torch.float64)}, ValueError, "y0"),
        ({"t": torch.tensor([0, 1])}, TypeError, "t"),
        ({"t": T.float()}, TypeError, "t"),
        ({"t": T.to("meta")}, TypeError, "t"),
        ({"t": T[:1]}, ValueError, "t"),
        ({"t": T.reshape(1, 3)}, ValueError, "t"),
        ({"t": T[[0, 0, 1]]}, ValueError, "t"),
        ({"t": T[[0, 2, 1]]}, ValueError, "t"),
        ({"t": T * torch.nan}, ValueError, "t"),
        ({"t": T / T}, ValueError, "t"),
    ],
)
def test_a_bad_problem_is_named(change, kind, argument, y0):
    with pytest.raises(kind, match=f"^{argument} must"):
        check_problem(**{"y0": y0, "t": T, **change})


def test_solve_checks_its_problem(net, y0):
    with pytest.raises(TypeError, match=r"^t must have y0's dtype"):
        solve(net, y0, T.float())


def test_solvers_are_values():
    assert replace(SOLVERS["dopri5"], rtol=1e-3) == Solver(rtol=1e-3)


class Holder:
    def __init__(self, module):
        self.module = module

    def __call__(self, t, y):
        return self.module(y) if isinstance(self.module, torch.nn.Linear) else self.module(t, y)

    def method(self, t, y):
        return self.module(y)


# --- parameters ------------------------------------------------------------------------------------------------------

TRAINABLE = [(name, gradient) for name, gradient in SUPPORTED if name in ("dopri5", "rk4", "tsit5", "vode_adams")]


@pytest.mark.parametrize(("name", "gradient"), TRAINABLE)
def test_a_parameter_that_is_named_twice_has_its_gradient_once(name, gradient, net, y0):
    def gradients(parameters):
        net.zero_grad()
        solve(Holder(net), y0, T, SOLVERS[name], gradient, parameters).y.square().sum().backward()
        return [parameter.grad.clone() for parameter in net.parameters()]

    once = gradients(net.parameters())
    for parameters in ([*net.parameters(), *net.parameters()], net):
        for expected, gradient_again in zip(once, gradients(parameters), strict=True):
            assert torch.equal(expected, gradient_again)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda net: next(net.parameters()), "got one tensor"),
        (lambda net: dict(net.named_parameters()), "got a mapping"),
        (lambda net: net.named_parameters(), r"got pairs, as of named_parameters\(\)"),
        (lambda net: [1.0], "got float"),
        (lambda net: 3, "got int"),
    ],
)
def test_parameters_that_are_no_tensors_are_named(make, words, net):
    with pytest.raises(TypeError, match=f"^parameters must be .*{words}"):
        list_tensors(make(net))


def test_one_tensor_in_place_of_several_is_refused(net, y0):
    with pytest.raises(TypeError, match=r"^parameters must be several tensors"):
        solve(Holder(net), y0, T, parameters=next(net.parameters()))


# --- inference mode --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "gradient"), SUPPORTED)
def test_inference_mode_gives_the_values_of_no_grad(name, gradient, net):
    start = torch.ones(3, 2, dtype=torch.float64)
    with torch.no_grad():
        expected = solve(net, start, T, SOLVERS[name], gradient).y
    with torch.inference_mode():
        values = solve(net, start + 0, T + 0, SOLVERS[name], gradient).y
    assert torch.equal(values, expected)
    assert not values.requires_grad


@pytest.mark.parametrize("name", ["dopri5", "tsit5"])
def test_a_field_that_differentiates_works_in_inference_mode(name):
    """A potential's gradient, y' = -y, by autograd inside of the field."""

    def field(t, y):
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            return torch.autograd.grad(-0.5 * y.square().sum(), y)[0]

    solver = replace(SOLVERS[name], rtol=1e-9, atol=1e-9)
    with torch.inference_mode():
        end = solve(field, torch.ones(2, dtype=torch.float64), T + 0, solver).y[-1]
    torch.testing.assert_close(end, torch.full((2,), torch.e**-1, dtype=torch.float64), rtol=1e-7, atol=0)
