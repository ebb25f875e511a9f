"""A field of a user's own: its value is a derivative or refused, and its memory and the solver's stay apart."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from repro.ode import GRADIENTS, SOLVERS, Solver, UnsupportedCombination, solve, supported

T = torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
START = torch.tensor([[1.0, 2.0], [0.5, -1.0], [0.2, 0.1]], dtype=torch.float64)
SUPPORTED = [(name, g) for name in SOLVERS for g in GRADIENTS if supported(SOLVERS[name], g) is None]


def turn(t, y):
    return torch.stack([y[:, 1], -y[:, 0]], 1)


def fill_tensor():
    memory = torch.zeros_like(START)

    def field(t, y):
        with torch.no_grad():
            memory[:, 0], memory[:, 1] = y[:, 1], -y[:, 0]
        return memory

    return field


def fill_array():
    memory = np.zeros(START.shape)

    def field(t, y):
        memory[:] = turn(t, y.detach()).numpy()
        return torch.from_numpy(memory)

    return field


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("make", [fill_tensor, fill_array])
def test_a_field_that_fills_one_memory_is_solved_as_one_that_makes_new_tensors(name, make):
    with torch.no_grad():
        expected, actual = (solve(field, START, T, SOLVERS[name]).y for field in (turn, make()))
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "gradient"), SUPPORTED)
def test_a_field_that_returns_its_state_is_solved_and_differentiated(name, gradient):
    y0 = START.clone().requires_grad_()
    results = []
    for field in (lambda t, y: y, lambda t, y: 1.0 * y):
        y = solve(field, y0, T, SOLVERS[name], gradient).y
        results.append((y.detach(), *torch.autograd.grad(y.square().sum(), y0)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-13, atol=1e-13)


VALUES = {
    "complex": (lambda t, y: -1j * y, TypeError, "floating numbers, as y's torch.float64; got torch.complex128"),
    "whole numbers": (lambda t, y: y.long(), TypeError, "floating numbers, as y's torch.float64; got torch.int64"),
    "nothing": (lambda t, y: None, TypeError, "a tensor, the derivative of y; got NoneType"),
    "tuple": (lambda t, y: (y,), TypeError, "a tensor, the derivative of y; got tuple"),
    "one column": (lambda t, y: y[:, :1], ValueError, r"y's shape, \(3, 2\); got \(3, 1\)"),
    "transposed": (lambda t, y: y.T, ValueError, r"y's shape, \(3, 2\); got \(2, 3\)"),
    "scalar": (lambda t, y: y.sum(), ValueError, r"y's shape, \(3, 2\); got \(\)"),
}


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("name", SOLVERS)
def test_a_value_that_is_no_derivative_is_refused_by_every_solver(name, kind):
    field, error, words = VALUES[kind]
    for gradient in (g for g in GRADIENTS if supported(SOLVERS[name], g) is None):
        with pytest.raises(error, match=f"the field must return {words}"):
            solve(field, START, T, SOLVERS[name], gradient)


@pytest.mark.parametrize(("name", "gradient"), SUPPORTED)
def test_a_value_of_another_precision_is_taken_in_the_states(name, gradient):
    y = solve(lambda t, y: -(y.float()), START, T, SOLVERS[name], gradient).y
    expected = solve(lambda t, y: -y, START, T, SOLVERS[name], gradient).y
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "gradient"), SUPPORTED)
@pytest.mark.parametrize("wanted", [False, True])
def test_a_write_into_the_state_is_refused_and_the_callers_state_kept(name, gradient, wanted):
    def limited(t, y):
        with torch.no_grad():
            y[:, 0].clamp_(max=0.9)
        return turn(t, y)

    y0 = START.clone().requires_grad_(wanted)
    with pytest.raises(ValueError, match="the field limited writes into its state y"):
        solve(limited, y0, T, SOLVERS[name], gradient)
    assert torch.equal(y0, START)


@pytest.mark.parametrize(("name", "gradient"), SUPPORTED)
def test_a_field_that_asks_for_gradients_of_its_state_leaves_the_callers_without(name, gradient):
    def field(t, y):
        with torch.enable_grad():
            return -y.requires_grad_()

    y0 = START.clone()
    y = solve(field, y0, T, SOLVERS[name], gradient).y
    assert not y0.requires_grad
    torch.testing.assert_close(y[-1], START * torch.e**-1, rtol=5e-2, atol=1e-3)


@pytest.mark.parametrize(("name", "gradient"), SUPPORTED)
def test_every_evaluation_is_counted_once(name, gradient):
    net, calls = nn.Linear(2, 2, dtype=torch.float64), []

    def field(t, y):
        calls.append(t)
        return net(y)

    solution = solve(field, START, T, SOLVERS[name], gradient)
    assert len(calls) == solution.stats.nfe_forward
    assert float(calls[0]) == 0.0
    calls.clear()
    if gradient != "backprop":
        solution.y[-1].sum().backward()
        assert len(calls) == solution.stats.nfe_backward


@pytest.mark.parametrize(("name", "gradient"), SUPPORTED)
@pytest.mark.parametrize("backward", [False, True])
def test_a_solve_that_is_dropped_leaves_nothing_to_the_collector(backward, name, gradient):
    net = nn.Linear(2, 2, dtype=torch.float64)
    gc.collect()
    gc.disable()
    try:
        y0 = START.clone().requires_grad_()
        y = solve(lambda t, y: net(y), y0, T, SOLVERS[name], gradient).y
        if backward:
            y.sum().backward()
        storages = [StorageWeakRef(x.untyped_storage()) for x in (y0, y)]
        del y0, y
        assert all(storage.expired() for storage in storages)
    finally:
        gc.enable()


# --- evaluations that leave something behind, and torch.compile ------------------------------------------------------


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.nfe = nn.Linear(2, 2), 0

    def forward(self, t, y):
        self.nfe += 1
        return self.net(y)


class Normalising(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))

    def forward(self, t, y):
        return self.net(y)


class Filling(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.memory = nn.Linear(2, 2), torch.zeros_like(START)

    def forward(self, t, y):
        with torch.no_grad():
            self.memory.copy_(self.net(y))
        return self.memory


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 2)

    def forward(self, t, y):
        return self.net(y)


@pytest.mark.parametrize("method", ["bosh3", "rk4"])
@pytest.mark.parametrize("gradient", ["backprop", "adjoint", "checkpoint"])
@pytest.mark.parametrize("make", [Counting, Normalising, Filling, Plain, "scripted"])
def test_what_cannot_be_one_graph_is_not_traced(make, gradient, method, monkeypatch):
    monkeypatch.setenv("REPRO_KERNELS", "1")
    torch.manual_seed(0)
    field = (torch.jit.script(Plain()) if make == "scripted" else make()).double()
    step = {"step_size": 0.2} if method == "rk4" else {}
    grads = []
    for engine in ("torchdiffeq", "compiled"):
        field.zero_grad()
        y0 = START.clone().requires_grad_()
        y = solve(field, y0, T, Solver(method, engine=engine, **step), gradient).y
        y.square().sum().backward()
        grads.append((y.detach(), y0.grad, *(p.grad for p in field.parameters() if p.grad is not None)))
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-4)


def test_a_second_derivative_of_traced_steps_is_refused_in_words(monkeypatch):
    monkeypatch.setenv("REPRO_KERNELS", "1")
    y0 = START.clone().requires_grad_()
    y = solve(Plain().double(), y0, T, Solver("bosh3", engine="compiled"), "backprop").y
    with pytest.raises(UnsupportedCombination, match="create_graph"):
        torch.autograd.grad(y.sum(), y0, create_graph=True)


# --- arguments -------------------------------------------------------------------------------------------------------

NET = nn.Linear(2, 2)
Y, TIMES = torch.ones(2), torch.tensor([0.0, 1.0])
ARGUMENTS = {
    "t must be a torch.Tensor; got list": {"t": [0.0, 1.0]},
    "y0 must be a torch.Tensor; got tuple": {"y0": (Y, Y)},
    "y0 must be a torch.Tensor; got ndarray": {"y0": np.ones(2)},
    "solver must be a Solver": {"solver": "rk4"},
    "parameters is a module, Linear, of which the field uses nothing": {"parameters": NET},
    "parameters must be tensors, as list": {"parameters": dict(NET.named_parameters())},
    "parameters must be tensors, as of module.parameters": {"parameters": NET.named_parameters()},
    "parameters must be several tensors": {"parameters": NET.weight},
}


@pytest.mark.parametrize("words", ARGUMENTS)
def test_an_argument_of_another_type_is_named(words, without_type_checks):
    with pytest.raises((TypeError, ValueError), match=words):
        solve(**({"field": lambda t, y: -y, "y0": Y, "t": TIMES} | ARGUMENTS[words]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SOLVERS)
def test_half_precision_is_right_or_named(name, dtype):
    solver, t = SOLVERS[name], TIMES.to(dtype)
    refused = solver.is_adaptive and solver.engine != "scipy"
    with torch.no_grad():
        if refused:
            with pytest.raises(ValueError, match=f"finer than {dtype} resolves"):
                solve(lambda t, y: -y, Y.to(dtype), t, solver)
            solver = replace(solver, rtol=1e-2, atol=1e-2)
        y = solve(lambda t, y: -y, Y.to(dtype), t, solver).y[-1]
    bound = 0.3 if name == "fehlberg2" else 0.02  # its error is some hundred times the tolerance
    torch.testing.assert_close(y.float(), Y * torch.e**-1, rtol=0.1, atol=bound)


@pytest.mark.parametrize("engine", ["torchdiffeq", "compiled"])
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("transform", ["vmap", "jvp", "jacrev"])
def test_transforms_are_right_or_refused_in_words(transform, gradient, engine):
    matrix = torch.tensor([[0.0, 1.0], [-1.0, -0.3]], dtype=torch.float64)

    def end(y):
        return solve(lambda t, y: matrix @ y, y, T, Solver(engine=engine, rtol=1e-9, atol=1e-9), gradient).y[-1]

    calls = {
        "vmap": lambda: torch.func.vmap(end)(START),
        "jvp": lambda: torch.func.jvp(end, (START[0],), (torch.tensor([1.0, 0.0]).double(),))[1],
        "jacrev": lambda: torch.func.jacrev(end)(START[0]),
    }
    whole = torch.linalg.matrix_exp(matrix)
    expected = {"jvp": whole[:, 0], "jacrev": whole}
    if (engine, gradient) == ("compiled", "backprop") and transform in expected:
        torch.testing.assert_close(calls[transform](), expected[transform], rtol=1e-7, atol=1e-7)
    else:
        with pytest.raises(UnsupportedCombination, match=r"torch\.autograd\.functional\.jacobian"):
            calls[transform]()


def test_vode_within_vode_is_refused_and_beside_it_works():
    vode = SOLVERS["vode_adams"]

    def nested(t, y):
        return solve(lambda s, z: -z, y, T, vode).y[-1]

    with torch.no_grad():
        with pytest.raises(UnsupportedCombination, match="SciPy's VODE cannot solve within a field"):
            solve(nested, START, T, vode)
        y = solve(nested, START, T, SOLVERS["rk4"]).y
        assert torch.isfinite(solve(lambda t, y: -y, START, T, vode).y).all()
    torch.testing.assert_close(y[-1], START * np.exp(np.exp(-1)), rtol=1e-4, atol=1e-4)
