"""The planar field: the paper's and the public example's formulas, the closed-form trace, the direction of time."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, jacrev, vmap

from repro.flows.planar_field import GATES, REDUCTIONS, PlanarField
from repro.ode import Solver, solve
from repro.types import ClosedFormField

SETTINGS = list(itertools.product(GATES, REDUCTIONS))


@pytest.fixture(params=SETTINGS, ids="-".join)
def setting(request):
    return dict(zip(("gate", "reduction"), request.param, strict=True))


def at(time):
    return torch.tensor(time, dtype=torch.float64)


def hypernetwork(field, t):
    """The raw outputs at time t, through torch's own layers."""
    return field.time_out(torch.tanh(field.time_hidden(torch.tanh(field.time_in(t.reshape(1, 1)))))).flatten()


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_divergence_is_the_trace_of_the_jacobian(dim, setting):
    field = PlanarField(dim, width=7, hyper_width=5, **setting).double()
    y = 2 * torch.randn(6, dim, dtype=torch.float64)
    dy, divergence = field.divergence(at(0.3), y)
    jacobian = vmap(jacrev(lambda row: field(at(0.3), row[None])[0]))(y)
    torch.testing.assert_close(dy, field(at(0.3), y), rtol=0, atol=0)
    torch.testing.assert_close(divergence, jacobian.diagonal(dim1=1, dim2=2).sum(1), rtol=1e-12, atol=1e-12)
    assert divergence.abs().min() > 1e-6


def test_gradients_of_first_and_second_order_in_time_state_and_parameters(setting):
    field = PlanarField(dim=2, width=2, hyper_width=2, **setting).double()
    names, values = zip(*field.named_parameters(), strict=True)

    def outputs(t, y, *parameters):
        return functional_call(Both(field), {f"field.{n}": p for n, p in zip(names, parameters, strict=True)}, (t, y))

    y = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    inputs = (at(0.3).requires_grad_(), y, *values)
    assert gradcheck(outputs, inputs)
    assert gradgradcheck(outputs, inputs)


class Both(torch.nn.Module):
    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, t, y):
        return self.field.divergence(t, y)


@pytest.mark.parametrize(("gate", "parameters"), [("coordinate", 15_904), ("unit", 13_792)])
def test_number_of_parameters(gate, parameters):
    assert sum(p.numel() for p in PlanarField(gate=gate).parameters()) == parameters


def test_the_papers_sum_over_gated_units():
    field, t = PlanarField(dim=3, width=4, hyper_width=5).double(), at(0.7)
    y = torch.randn(6, 3, dtype=torch.float64)
    raw = hypernetwork(field, t)
    expected = torch.zeros_like(y)
    for unit in range(4):
        w, u = raw[3 * unit : 3 * unit + 3], raw[12 + 3 * unit : 15 + 3 * unit]
        gate = 1 / (1 + torch.exp(-raw[24 + unit]))
        expected += torch.outer(torch.tanh(y @ w + raw[28 + unit]), gate * u)
    torch.testing.assert_close(field(t, y), expected, rtol=1e-12, atol=1e-14)


def example_field(field, t, y):
    """The mathematics of the public example's right-hand side: mean over units of U σ(G) tanh(y·W + B)."""
    size, dim = field.width, field.dim
    raw = hypernetwork(field, t)
    w, u, gates = raw[: 3 * size * dim].reshape(3, size, dim)
    bias = raw[3 * size * dim :]
    per_unit = torch.tanh((y[None] * w[:, None]).sum(2) + bias[:, None])[:, :, None] * (u * gates.sigmoid())[:, None]
    return per_unit.mean(0)


def test_the_public_examples_formula():
    field = PlanarField(gate="coordinate", reduction="mean").double()
    y = torch.randn(20, 2, dtype=torch.float64)
    for time in (0.0, 0.4, 7.0):
        torch.testing.assert_close(field(at(time), y), example_field(field, at(time), y), rtol=1e-12, atol=1e-14)


def test_the_example_runs_backwards_in_time():
    """There: base at 0, data at t1, d log p/dt = −tr. Here: data at 0, base at t1, log p(x) = log p(z) + ∫ tr dt."""
    field, t1, solver = PlanarField(dim=2, width=5).double(), 2.0, Solver("rk4", step_size=0.125)
    data = torch.randn(6, 2, dtype=torch.float64)
    start = torch.cat([data, torch.zeros(6, 1, dtype=torch.float64)], 1)

    def theirs(t, state):
        dy, divergence = field.divergence(t, state[:, :2])
        return torch.cat([dy, -divergence[:, None]], 1)

    def ours(t, state):
        dy, divergence = field.divergence(t1 - t, state[:, :2])
        return torch.cat([-dy, -divergence[:, None]], 1)

    there = solve(theirs, start, torch.tensor([t1, 0.0]).double(), solver, "backprop").y[-1]
    here = solve(ours, start, torch.tensor([0.0, t1]).double(), solver, "backprop").y[-1]
    torch.testing.assert_close(here[:, :2], there[:, :2], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(here[:, 2], -there[:, 2], rtol=1e-12, atol=1e-12)
    assert there[:, 2].abs().min() > 1e-3


def test_mean_is_sum_over_width():
    total, mean = (PlanarField(width=5, reduction=reduction).double() for reduction in REDUCTIONS)
    mean.load_state_dict(total.state_dict())
    y = torch.randn(3, 2, dtype=torch.float64)
    for a, b in zip(total.divergence(at(0.2), y), mean.divergence(at(0.2), y), strict=True):
        torch.testing.assert_close(a, 5 * b, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_field_is_deterministic_and_depends_on_time(dtype, setting):
    field, y = PlanarField(**setting).to(dtype), torch.randn(4, 2, dtype=dtype)
    early, late = (torch.tensor(time, dtype=dtype) for time in (0.1, 0.9))
    assert torch.equal(field(early, y), field(early, y))
    for a, b in zip(field.divergence(early, y), field.divergence(late, y), strict=True):
        assert a.dtype == dtype
        assert ((a - b).abs() > 1e-6).all()


def test_it_offers_its_trace_by_the_protocol():
    assert isinstance(PlanarField(), ClosedFormField)


@pytest.mark.parametrize("name", ["dim", "width", "hyper_width"])
def test_a_size_that_is_not_positive_is_named(name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1; got 0"):
        PlanarField(**{name: 0})


@pytest.mark.parametrize(("name", "choices"), [("gate", "unit, coordinate"), ("reduction", "sum, mean")])
def test_an_unknown_choice_is_named(name, choices):
    with pytest.raises(ValueError, match=f"^{name} must be one of: {choices}; got 'units'"):
        PlanarField(**{name: "units"})


def test_a_state_of_another_dimension_is_named():
    field, y = PlanarField(dim=2), torch.randn(4, 3)
    for call in (field, field.divergence):
        with pytest.raises(ValueError, match=r"y must have shape \[batch, 2\]; got \(4, 3\)"):
            call(torch.tensor(0.0), y)
