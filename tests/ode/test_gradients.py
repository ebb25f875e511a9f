from dataclasses import replace

import pytest
import torch
from torchdiffeq import odeint, odeint_adjoint

from repro.ode import GRADIENTS, PROBLEMS, SOLVERS, Solver, solve, supported
from repro.ode.runge_kutta import RUNGE_KUTTA

TIGHT = Solver(rtol=1e-9, atol=1e-9)
T = torch.tensor([0.1, 0.4, 1.0], dtype=torch.float64)
OWN = [name for name in SOLVERS if SOLVERS[name].method in RUNGE_KUTTA]  # torchdiffeq gives them no gradient of t
SUPPORTED = [(name, g) for name in SOLVERS for g in GRADIENTS if supported(SOLVERS[name], g) is None]
SUPPORTED = [(name, g) for name, g in SUPPORTED if not (name in OWN and g == "backprop")]
REPLAYED = [name for name in SOLVERS if supported(SOLVERS[name], "checkpoint") is None and name not in OWN]
REFERENCE = {}


def loss(y):
    weights = torch.sin(1 + torch.arange(y.numel(), dtype=y.dtype, device=y.device)).view_as(y)
    return (weights * y.square()).sum()


def gradients(field, y0, t, solver, gradient, parameters=None):
    """Return the gradients of y0, t, parameters as one vector, and the stats."""
    y0, t = y0.clone().requires_grad_(), t.clone().requires_grad_()
    parameters = list(field.parameters()) if parameters is None else parameters
    solution = solve(field, y0, t, solver, gradient, parameters)
    grads = torch.autograd.grad(loss(solution.y), [y0, t, *parameters])
    return torch.cat([grad.reshape(-1) for grad in grads]), solution.stats


def relative_error(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_of_y0_and_t_equal_the_closed_form(gradient, problem, reverse):
    t = problem.times(3)
    t = t.flip(0) if reverse else t
    start = problem.solution(t)[0]
    actual, _ = gradients(problem.field, start, t, TIGHT, gradient, [])
    y0, t = start.requires_grad_(), t.requires_grad_()
    exact = torch.stack([problem.flow(y0, t[0], time) for time in t])
    expected = torch.cat([grad.reshape(-1) for grad in torch.autograd.grad(loss(exact), [y0, t])])
    # backprop and checkpoint differentiate the quartic between two steps in t: one order less than the solution's.
    assert relative_error(actual, expected) < (1e-6 if gradient.startswith("adjoint") else 1e-4)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_algorithm_2_on_its_textbook_problem(gradient):
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.2, 1.3], dtype=torch.float64, requires_grad=True)
    y0 = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    y1 = solve(lambda t, y: a * y, y0, t, TIGHT, gradient, [a]).y[-1]
    actual = torch.autograd.grad(y1, [y0, a, t])
    growth = torch.exp(a * (t[1] - t[0])).detach()
    expected = (growth, 1.5 * 1.1 * growth, 1.5 * 0.7 * growth * torch.tensor([-1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "gradient"), SUPPORTED)
@pytest.mark.parametrize("direction", [1, -1])
def test_gradients_agree_with_tight_backprop(name, gradient, direction, net, y0):
    # One output: between the nodes of a fixed grid, linear dense output would spoil the gradient of t.
    t = direction * T[[0, 2]]
    if direction not in REFERENCE:  # the fixtures are the same for every test
        REFERENCE[direction], _ = gradients(net, y0, t, Solver(rtol=1e-12, atol=1e-12), "backprop")
    tolerance = 1e-4 if name == "adaptive_heun" else 1e-6
    actual, stats = gradients(net, y0, t, replace(SOLVERS[name], rtol=tolerance, atol=tolerance), gradient)
    assert relative_error(actual, REFERENCE[direction]) < (3e-2 if SOLVERS[name].method == "euler" else 3e-3)
    assert stats.nfe_backward is None if gradient == "backprop" else stats.nfe_backward > 0


@pytest.mark.parametrize("name", REPLAYED)
@pytest.mark.parametrize("direction", [1, -1])
def test_checkpoint_is_backprop_with_fixed_steps(name, direction, net, y0):
    solver = SOLVERS[name]
    settings = [{"step_size": step} for step in (None, 0.05, 0.07)] if solver.is_fixed_step else [{"first_step": 0.01}]
    for variant in (replace(solver, **setting) for setting in settings):
        # the compiled engine takes torchdiffeq's steps, so one backprop is the reference of both
        reference = replace(variant, engine="torchdiffeq")
        expected, _ = gradients(net, y0, direction * T, reference, "backprop")
        actual, stats = gradients(net, y0, direction * T, variant, "checkpoint")
        assert relative_error(actual, expected) < 1e-10
        assert stats.n_accepted_backward == stats.n_accepted


def test_backprop_differentiates_the_first_step_too(net, y0):
    differences = []
    for tol in (1e-3, 1e-8):
        solver = Solver(rtol=tol, atol=tol)
        (expected, _), (actual, _) = (gradients(net, y0, T[[0, 2]], solver, g) for g in ("backprop", "checkpoint"))
        differences.append(relative_error(actual, expected))
    assert differences[0] > 1e-10
    assert differences[1] < 1e-5


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_taylor_remainder_is_of_second_order(gradient, net, y0):
    torch.manual_seed(1)
    direction = torch.randn_like(y0)
    y = y0.clone().requires_grad_()
    value = loss(solve(net, y, T, TIGHT, gradient).y)
    (grad,) = torch.autograd.grad(value, y)

    def remainder(h):
        with torch.no_grad():
            return (loss(solve(net, y0 + h * direction, T, TIGHT).y) - value - h * (grad * direction).sum()).abs()

    ratio = remainder(1e-2) / remainder(5e-3)
    assert 3.8 < ratio < 4.2


@pytest.mark.parametrize("seminorm", [False, True])
def test_adjoint_equals_torchdiffeq(seminorm, net, y0):
    solver = Solver(rtol=1e-6, atol=1e-6)
    parameters = list(net.parameters())
    gradient = "adjoint_seminorm" if seminorm else "adjoint"
    y, evaluations = y0.clone().requires_grad_(), []

    # torchdiffeq integrates dL/dt even where nobody wants it: a detached time makes it nothing.
    def field(t, y):
        evaluations.append(1)
        return net(t.detach(), y)

    options = {"norm": "seminorm"} if seminorm else {}
    tolerances = {"rtol": 1e-6, "atol": 1e-6, "adjoint_rtol": 1e-6, "adjoint_atol": 1e-6}
    theirs = odeint_adjoint(field, y, T, **tolerances, adjoint_params=tuple(parameters), adjoint_options=options)
    evaluations.clear()
    expected = torch.autograd.grad(loss(theirs), [y, *parameters])
    solution = solve(field, y, T, solver, gradient, parameters)
    n_theirs = len(evaluations) - solution.stats.nfe_forward
    actual = torch.autograd.grad(loss(solution.y), [y, *parameters])
    assert solution.stats.nfe_backward == n_theirs
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


def test_time_costs_nothing_unless_it_wants_a_gradient():
    def nfe_backward(wants_t):
        y = torch.ones(2, dtype=torch.float64, requires_grad=True)
        t = T[[0, 2]].clone().requires_grad_(wants_t)
        # df/dt is 50 times f's own size, so dL/dt needs smaller steps than y and a do.
        solution = solve(lambda t, y: 0.1 * y + torch.sin(50 * t), y, t)
        solution.y[-1].sum().backward()
        return solution.stats.nfe_backward

    # One more evaluation would be that of dL/dt1; here the steps differ too.
    assert nfe_backward(True) > nfe_backward(False) + 6


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("of", ["y0", "t", "parameters"])
def test_each_gradient_alone(gradient, of, net, y0):
    net.requires_grad_(of == "parameters")
    y, t = y0.clone().requires_grad_(of == "y0"), T.clone().requires_grad_(of == "t")
    inputs = {"y0": [y], "t": [t], "parameters": list(net.parameters())}[of]
    alone = torch.autograd.grad(loss(solve(net, y, t, TIGHT, gradient).y), inputs)
    net.requires_grad_()
    y, t = y0.clone().requires_grad_(), T.clone().requires_grad_()
    inputs = {"y0": [y], "t": [t], "parameters": list(net.parameters())}[of]
    expected = torch.autograd.grad(loss(odeint(net, y, t, rtol=1e-11, atol=1e-11)), inputs)
    torch.testing.assert_close(alone, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_an_unused_parameter_gets_no_or_zero_gradient(gradient, net, y0):
    spare = torch.ones(3, dtype=torch.float64, requires_grad=True)
    y = solve(net, y0, T, gradient=gradient, parameters=[*net.parameters(), spare]).y
    loss(y).backward()
    assert spare.grad is None or not spare.grad.any()
    assert all(p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_constant_field(gradient):
    y0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    solve(lambda t, y: torch.ones_like(y), y0, T, gradient=gradient).y[-1].sum().backward()
    torch.testing.assert_close(y0.grad, torch.ones_like(y0))


@pytest.mark.parametrize("gradient", ["adjoint", "adjoint_seminorm", "checkpoint"])
def test_a_parameter_changed_before_backward_is_noticed(gradient, net, y0):
    y = solve(net, y0, T, gradient=gradient).y
    with torch.no_grad():
        net.last.bias.add_(1)
    with pytest.raises(RuntimeError, match="is not what it was in the forward pass"):
        loss(y).backward()


def saved_bytes(field, y0, solver, gradient):
    """Bytes that autograd keeps for the backward pass; a shared storage counts once."""
    storages = {}

    def pack(x):
        # Holding the storage keeps its address from being given to another.
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        solution = solve(field, y0, T[[0, 2]], solver, gradient)
    return sum(storage.nbytes() for storage in storages.values()), solution.stats.n_accepted


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_saved_bytes(method, net, y0):
    y0 = y0.repeat(50, 1).requires_grad_()
    if method == "rk4":
        solvers = [Solver(method, step_size=step) for step in (0.09, 0.045)]
    else:
        solvers = [Solver(rtol=tol, atol=tol, first_step=0.05) for tol in (1e-6, 1e-10)]
    growth = {}
    for gradient in GRADIENTS:
        (few, n_few), (many, n_many) = (saved_bytes(net, y0, solver, gradient) for solver in solvers)
        assert n_many >= n_few + 5
        growth[gradient] = (many - few) / (n_many - n_few)
    assert growth["adjoint"] == growth["adjoint_seminorm"] == 0
    assert growth["checkpoint"] == y0.untyped_storage().nbytes()
    assert growth["backprop"] > 10 * growth["checkpoint"]
