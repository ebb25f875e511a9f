"""Flows of fields that users bring: functions, potentials, volume-preserving ones, conditional ones, any base."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Uniform

from repro.flows import CNF, Stack
from repro.flows.divergence import DIVERGENCES, NEEDS_NOISE
from repro.nets.fields import ConcatSquashField
from repro.ode import GRADIENTS, Solver

X = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
ENGINES = ["torchdiffeq", "compiled"]
TIGHT = {"rtol": 1e-8, "atol": 1e-8}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("wanted", [False, True])
def test_a_function_that_closes_over_a_network_trains_it(wanted, gradient, engine):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    gradients = []
    for method in ("backprop", gradient):
        x = X.clone().requires_grad_(wanted)
        flow = CNF(lambda t, y: net(y), 2, gradient=method, solver=Solver(engine=engine, **TIGHT))
        gradients.append(torch.autograd.grad(flow.log_prob(x).mean(), [*net.parameters(), *[x] * wanted]))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gradient", ["adjoint", "checkpoint"])
def test_probes_that_want_a_gradient_get_it(gradient, engine):
    field = ConcatSquashField(2, 8, 2).double()
    noise = torch.randn(1, 5, 2, dtype=torch.float64).requires_grad_()
    gradients = []
    for method in ("backprop", gradient):
        flow = CNF(field, 2, divergence="hutchinson", gradient=method, solver=Solver(engine=engine, **TIGHT))
        gradients.append(torch.autograd.grad(flow.log_prob(X, noise).mean(), noise)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)


class Shear(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, t, y):
        return torch.stack([self.a * torch.tanh(y[:, 1]), torch.zeros_like(y[:, 0])], 1)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_gradient_of_a_volume_preserving_flow_is_that_of_the_closed_form(gradient, engine):
    flow = CNF(Shear(), 2, gradient=gradient, solver=Solver(engine=engine, **TIGHT))
    (actual,) = torch.autograd.grad(flow.log_prob(X).mean(), flow.field.a)
    shift = torch.tanh(X[:, 1])  # z = (x1 + a tanh x2, x2), log p = -z²/2 + constant
    torch.testing.assert_close(actual, -(shift * (X[:, 0] + 0.5 * shift)).mean(), rtol=1e-6, atol=1e-8)


class Potential(nn.Module):
    """The gradient of −yᵀ y ‖w‖² / 2 + …, by autograd: forward mode does not go through it."""

    def __init__(self, dim):
        super().__init__()
        self.u = nn.Sequential(nn.Linear(dim, 8), nn.Softplus(), nn.Linear(8, 1)).double()

    def forward(self, t, y):
        with torch.enable_grad():
            y = y if y.requires_grad else y.detach().requires_grad_()
            return -torch.autograd.grad(self.u(y).sum(), y, create_graph=True)[0]

    def trace(self, y):
        """In closed form: the Laplacian of a softplus layer."""
        first, last = self.u[0], self.u[2]
        h = torch.sigmoid(first(y))
        return -(h * (1 - h) * first.weight.square().sum(1) * last.weight[0]).sum(1)


CASES = [("exact", 2), ("exact", 33), ("hutchinson", 2), ("hutchpp", 2), ("hutchpp", 33), ("xtrace", 33)]


@pytest.mark.parametrize(("divergence", "dim"), CASES)
def test_the_trace_of_a_field_that_is_a_gradient_is_the_laplacian(divergence, dim):
    torch.manual_seed(0)
    field, y = Potential(dim), torch.randn(3, dim, dtype=torch.float64)
    probes = {"exact": 1, "hutchinson": 20000, "hutchpp": 3 * dim, "xtrace": dim}[divergence]
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (probes, 3, dim), generator=generator).double() * 2 - 1
    gaussian = torch.randn(probes, 3, dim, generator=generator, dtype=torch.float64)
    noise = {"hutchinson": signs, "hutchpp": gaussian, "xtrace": gaussian}.get(divergence)
    _, trace = DIVERGENCES[divergence](field, torch.tensor(0.0), y, noise)
    bound = 0.05 if divergence == "hutchinson" else 1e-8
    torch.testing.assert_close(trace, field.trace(y), rtol=bound, atol=bound)
    assert trace.requires_grad


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_flow_is_copied_and_pickled_after_a_step(gradient, divergence):
    field = ConcatSquashField(2, 8, 1)
    probes = {"hutchpp": 3, "xtrace": 2}.get(divergence, 1)
    flow = CNF(field, 2, divergence=divergence, n_probes=probes, gradient=gradient, penalties=("kinetic",))
    (-flow.log_prob(X.float()).mean() + flow.penalty["kinetic"].mean()).backward()
    for whole in (flow, Stack([flow])):
        for again in (copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
            assert not again.penalty["kinetic"].requires_grad
            torch.testing.assert_close(again.penalty["kinetic"], flow.penalty["kinetic"].detach())


class Conditional(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 2, dtype=torch.float64)
        self.register_buffer("code", torch.zeros(2, dtype=torch.float64))

    def forward(self, t, y):
        return torch.tanh(self.net(torch.cat([y, self.code.expand(len(y), 2)], 1)))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_two_conditions_in_one_loss_are_right_or_refused(gradient, engine):
    torch.manual_seed(0)
    field = Conditional()
    flow = CNF(field, 2, gradient=gradient, solver=Solver(engine=engine, **TIGHT))

    def density(code):
        field.code = torch.tensor(code, dtype=torch.float64)
        return flow.log_prob(X).mean()

    parameters = list(field.parameters())
    one_by_one = [torch.autograd.grad(density(code), parameters) for code in ([2.0, 0.0], [0.0, -2.0])]
    total = density([2.0, 0.0]) + density([0.0, -2.0])
    if gradient == "backprop":
        expected = [a + b for a, b in zip(*one_by_one, strict=True)]
        torch.testing.assert_close(torch.autograd.grad(total, parameters), tuple(expected))
    else:
        with pytest.raises(RuntimeError, match=r"the field's 'field\.code' is not what it was in the forward pass"):
            torch.autograd.grad(total, parameters)


def test_a_base_of_bounded_support_has_no_density_outside():
    base = Independent(Uniform(-torch.ones(2).double(), torch.ones(2).double()), 1)
    flow = CNF(lambda t, y: torch.zeros_like(y), 2, base=base)
    x = torch.tensor([[0.5, 0.5], [0.5, 1.5]], dtype=torch.float64)
    density = flow.log_prob(x)
    assert density[0].item() == pytest.approx(-2 * torch.log(torch.tensor(2.0)).item())
    assert density[1].item() == -torch.inf


def test_times_of_a_trajectory_may_be_a_tensor_that_wants_a_gradient():
    times = torch.tensor([1.0, 0.4], dtype=torch.float64, requires_grad=True)
    end = CNF(lambda t, y: y, 2, solver=Solver(**TIGHT)).trajectory(X, times)[-1]
    (gradient,) = torch.autograd.grad(end.sum(), times)
    torch.testing.assert_close(gradient[1], end.sum(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("divergence", sorted(NEEDS_NOISE))
def test_an_estimators_noise_is_asked_for_in_words(divergence):
    with pytest.raises(ValueError, match="noise must be given"):
        DIVERGENCES[divergence](ConcatSquashField(2, 8, 1).double(), torch.tensor(0.0), X, None)
