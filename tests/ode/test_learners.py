"""Gradients reach what a field learns, wherever it holds it, or the solve says that they do not."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

from repro.flows import CNF
from repro.ode import GRADIENTS, SOLVERS, Solver, solve, supported
from repro.ode.parameters import collect_parameters

T = torch.tensor([0.0, 0.6], dtype=torch.float64)
START = torch.tensor([[1.0, 2.0], [0.5, -1.0], [0.2, 0.1]], dtype=torch.float64)
SUPPORTED = [
    (name, gradient)
    for name in ("dopri5", "dopri5_compiled", "rk4_compiled", "vode_adams")
    for gradient in GRADIENTS
    if supported(SOLVERS[name], gradient) is None
]


class Scaled(nn.Module):
    """A module with a tensor that is no parameter."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, t, y):
        return self.factor * y


class Calling:
    def __init__(self, net):
        self.net = net

    def __call__(self, t, y):
        return self.net(y)


class Holding:
    def __init__(self, factor):
        self.factor = factor

    def apply(self, t, y):
        return self.factor * y


def hide(kind):
    """Return a field and what it learns."""
    torch.manual_seed(0)
    net = nn.Linear(2, 2, dtype=torch.float64)
    factor = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    encoder = nn.Linear(1, 1, dtype=torch.float64)
    code = encoder(torch.ones(1, dtype=torch.float64))

    def help_out(y):
        return net(y)

    return {
        "closure": (lambda t, y: net(y), list(net.parameters())),
        "partial function": (functools.partial(lambda net, t, y: net(y), net), list(net.parameters())),
        "default argument": (lambda t, y, n=net: n(y), list(net.parameters())),
        "dictionary": (lambda t, y, d={"a": net}: d["a"](y), list(net.parameters())),
        "function that it calls": (lambda t, y: help_out(y), list(net.parameters())),
        "object": (Calling(net), list(net.parameters())),
        "tensor of a closure": (lambda t, y: factor * y, [factor]),
        "tensor of a module": (Scaled(factor), [factor]),
        "computed tensor of a closure": (lambda t, y: code * y, list(encoder.parameters())),
        "computed tensor of a module": (Scaled(code), list(encoder.parameters())),
        "computed tensor in a list": (lambda t, y, c=[code]: c[0] * y, list(encoder.parameters())),
        "computed tensor of a bound method": (Holding(code).apply, list(encoder.parameters())),
        "computed tensor of a partial function": (
            functools.partial(lambda c, t, y: c * y, code),
            list(encoder.parameters()),
        ),
    }[kind]


KINDS = [
    "closure",
    "partial function",
    "default argument",
    "dictionary",
    "function that it calls",
    "object",
    "tensor of a closure",
    "tensor of a module",
    "computed tensor of a closure",
    "computed tensor of a module",
    "computed tensor of a partial function",
    "computed tensor in a list",
    "computed tensor of a bound method",
]


@functools.cache
def expected_gradients(kind):
    field, learnt = hide(kind)
    y = solve(field, START, T, SOLVERS["dopri5"], "backprop").y
    return torch.autograd.grad(y.square().sum(), learnt)


@pytest.mark.parametrize(("name", "gradient"), SUPPORTED)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_arrive_wherever_the_learner_is_held(kind, name, gradient):
    field, learnt = hide(kind)
    y = solve(field, START, T, SOLVERS[name], gradient).y
    actual = torch.autograd.grad(y.square().sum(), learnt)
    torch.testing.assert_close(actual, expected_gradients(kind), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_initial_state_may_also_be_held_by_the_field(gradient):
    y0 = START.clone().requires_grad_()
    y = solve(lambda t, y: y0 - 2 * y, y0, T, SOLVERS["dopri5"], gradient).y[-1]
    weight = 0.5 + 0.5 * torch.exp(-2 * T[-1])  # y(t) = y0/2 + (y0 - y0/2) e^(-2t)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), y0)[0], weight.expand(3, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gradient", ["adjoint", "adjoint_seminorm", "checkpoint"])
@pytest.mark.parametrize("engine", ["dopri5", "dopri5_compiled"])
def test_a_learner_that_is_left_out_is_refused_unless_none_is_wanted(engine, gradient):
    net = nn.Linear(2, 2, dtype=torch.float64)
    used_up = net.parameters()
    list(used_up)
    for parameters in ([net.weight], used_up, []):
        with pytest.raises(ValueError, match="parameters leaves out a tensor of shape"):
            solve(lambda t, y: net(y), START, T, SOLVERS[engine], gradient, parameters)
    assert not solve(lambda t, y: net(y), START, T, SOLVERS[engine], gradient, ()).y.requires_grad


def test_parameters_are_collected_once_each_and_frozen_ones_left_out():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).double()
    net[1].weight = net[0].weight
    net[0].bias.requires_grad_(False)
    collected = collect_parameters(lambda t, y: net(y), START, T, [*net.parameters(), *net.parameters()])
    assert [id(p) for p in collected] == [id(net[0].weight), id(net[1].bias)]
    assert {id(p) for p in collect_parameters(lambda t, y: net(y), START, T, None)} == {id(p) for p in collected}


# --- what both passes read -------------------------------------------------------------------------------------------


class Conditional(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.scale, self.nfe = nn.Linear(2, 2, dtype=torch.float64), 1.0, 0
        self.register_buffer("code", torch.zeros(2, dtype=torch.float64))
        self.attribute = torch.zeros(2, dtype=torch.float64)

    def forward(self, t, y):
        self.nfe += 1
        return self.scale * torch.tanh(self.net(y + self.code + self.attribute))


def change_number(field):
    field.scale = 2.0


CHANGES = {
    "code": lambda field: field.code.add_(1),
    "attribute": lambda field: field.attribute.add_(1),
    "scale": change_number,
    "training": lambda field: field.eval(),
    "net.weight": lambda field: setattr(field.net, "weight", nn.Parameter(field.net.weight.detach().clone())),
}


@pytest.mark.parametrize("gradient", ["adjoint", "adjoint_seminorm", "checkpoint"])
@pytest.mark.parametrize("engine", ["dopri5", "dopri5_compiled"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_state_that_changed_before_the_backward_pass_is_named(name, engine, gradient):
    field = Conditional()
    y = solve(field, START, T, SOLVERS[engine], gradient).y
    CHANGES[name](field)
    with pytest.raises(RuntimeError, match=f"the field's '[a-z.]*{name}' is not what it was in the forward pass"):
        y.sum().backward()


@pytest.mark.parametrize("gradient", ["adjoint", "checkpoint"])
def test_a_tensor_of_a_closure_that_changed_is_named(gradient):
    code = torch.zeros(2, dtype=torch.float64)
    y0 = START.clone().requires_grad_()
    y = solve(lambda t, y: torch.tanh(y + code), y0, T, gradient=gradient).y
    code.add_(1)
    with pytest.raises(RuntimeError, match="the field's 'code' is not what it was"):
        y.sum().backward()


context = torch.zeros(2, dtype=torch.float64)
array = np.zeros(2)


def read_global(t, y):
    return torch.tanh(y + context)


def call_a_function(t, y):
    return read_global(t, y)


def read_array(t, y):
    return torch.tanh(y + torch.from_numpy(array.copy()))


class Reading(nn.Module):
    def forward(self, t, y):
        return torch.tanh(y + context)


READERS = {
    "global": read_global,
    "global of a function that is called": call_a_function,
    "global of a module's forward": Reading(),
    "array": read_array,
    "bound method": Holding(torch.zeros(2, dtype=torch.float64)).apply,
}


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("gradient", ["adjoint", "checkpoint"])
@pytest.mark.parametrize("name", READERS)
def test_what_a_field_reads_elsewhere_is_compared_too(name, gradient, flow):
    field = READERS[name]
    x = START.clone().requires_grad_()
    value = CNF(field, 2, gradient=gradient).log_prob(x) if flow else solve(field, x, T, gradient=gradient).y
    changed = field.__self__.factor if name == "bound method" else array if name == "array" else context
    changed += 1.0
    with pytest.raises(RuntimeError, match="is not what it was in the forward pass"):
        value.sum().backward()


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("name", ["dopri5", "dopri5_compiled"])
def test_a_hook_of_a_learner_gets_its_gradient_once(name, gradient):
    p, seen = nn.Parameter(torch.tensor(0.7, dtype=torch.float64)), []
    handle = p.register_hook(lambda g: seen.append(g) or 0.1 * g)
    y = solve(lambda t, y: p * torch.tanh(y), START, T, SOLVERS[name], gradient).y
    y.sum().backward()
    assert len(seen) == 1
    torch.testing.assert_close(p.grad, 0.1 * seen[0])
    handle.remove()


@pytest.mark.parametrize("gradient", ["adjoint", "checkpoint"])
def test_a_network_may_be_used_before_within_autocast(gradient):
    torch.manual_seed(0)
    net, y0, t = nn.Linear(2, 2), START.float(), T.float()
    results = []
    for method in ("backprop", gradient):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            net(y0)
            y = solve(lambda t, y: net(y), y0, t, Solver("rk4", step_size=0.1), method).y
        y.sum().backward()
        results.append(net.weight.grad.clone())
    torch.testing.assert_close(results[1], results[0], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("gradient", ["adjoint", "checkpoint"])
def test_what_evaluations_themselves_change_is_no_reason_to_refuse(gradient):
    field = Conditional()
    first, second = (solve(field, START, T, gradient=gradient).y for _ in range(2))
    (first.sum() + second.sum()).backward()
    assert field.net.weight.grad is not None
    normalising = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    first, second = (solve(lambda t, y: normalising(y), START, T, gradient=gradient).y for _ in range(2))
    (first.sum() + second.sum()).backward()
    assert normalising[0].weight.grad is not None


@pytest.mark.parametrize("gradient", ["adjoint", "checkpoint"])
def test_weights_in_torchs_cache_are_refused(gradient):
    net = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2, dtype=torch.float64))
    with (
        nn.utils.parametrize.cached(),
        pytest.raises(RuntimeError, match="parametrised weights are cached"),
    ):
        solve(lambda t, y: net(y), START, T, gradient=gradient)
    solve(lambda t, y: net(y), START, T, gradient=gradient).y.sum().backward()
    assert net.parametrizations.weight.original0.grad is not None
