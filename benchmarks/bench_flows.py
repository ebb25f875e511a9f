"""Continuous flows: the planar CNF's training step against plain torchdiffeq, and what each divergence costs."""

import copy

import pytest
import torch
from torch import nn
from torchdiffeq import odeint_adjoint

from repro.data import DENSITIES
from repro.flows import CNF, DIVERGENCES
from repro.flows.planar_field import PlanarField
from repro.nets.fields import ConcatSquashField, IgnoreField
from repro.ode import Solver

SOLVER = Solver("dopri5", rtol=1e-5, atol=1e-5)


class BruteForce(nn.Module):
    """A field with its log-density as a user of torchdiffeq writes it: the trace by one backward pass a dimension."""

    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, t, state):
        """Derivative of (y, log-density)."""
        y = state[0]
        with torch.enable_grad():
            y = y.requires_grad_(True)
            dy = self.field(t, y)
            trace = sum(torch.autograd.grad(dy[:, i].sum(), y, create_graph=True)[0][:, i] for i in range(y.shape[1]))
        return dy, trace


class Direct(nn.Module):
    """The likelihood by torchdiffeq's adjoint."""

    def __init__(self, field, t1):
        super().__init__()
        self.func, self.t1 = BruteForce(field), t1

    def log_prob(self, x):
        """Log-density of data."""
        t = torch.tensor([0.0, self.t1])
        z, gain = odeint_adjoint(
            self.func, (x, x.new_zeros(len(x))), t, rtol=SOLVER.rtol, atol=SOLVER.atol, method="dopri5"
        )
        normal = -0.5 * (z[-1].square().sum(1) + x.shape[1] * torch.log(torch.tensor(2 * torch.pi)))
        return normal + gain[-1]


def _step(flow, x):
    def step():
        flow.zero_grad(set_to_none=True)
        loss = -flow.log_prob(x).mean()
        loss.backward()
        return loss.detach()

    return step


def _trained(field, data, t1, steps):
    """A field that is past its first steps: at initialisation a flow needs few evaluations."""
    flow = CNF(field, 2, t1, "closed_form", Solver("rk4", step_size=t1 / 8), "backprop")
    optimizer, stream = torch.optim.Adam(field.parameters(), 5e-3), torch.Generator().manual_seed(0)
    for _ in range(steps):
        optimizer.zero_grad()
        (-flow.log_prob(DENSITIES[data].sample(256, stream)).mean()).backward()
        optimizer.step()
    return field


STEPS = {
    "planar, 64 units, batch 512": (PlanarField, "circles_node", 1.0, 512),
    "toy, 64-64-64, batch 100": (ConcatSquashField, "8gaussians", 0.5, 100),
}
"""Field, data, end time and batch of a training step."""


@pytest.mark.parametrize("gradient", ["adjoint", "checkpoint", "backprop"])
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.benchmark(group="CNF training step, tolerance 1e-5, against torchdiffeq's adjoint")
def test_step(name, gradient, against, benchmark):
    """Closed-form trace against one backward pass a dimension under torchdiffeq's adjoint."""
    make, data, t1, batch = STEPS[name]
    torch.manual_seed(0)
    field = _trained(make(2), data, t1, 200)
    x = DENSITIES[data].sample(batch, torch.Generator().manual_seed(1))
    ours = CNF(field, 2, t1, "closed_form", SOLVER, gradient)
    step, other = _step(ours, x), _step(Direct(copy.deepcopy(field), t1), x)
    torch.testing.assert_close(step(), other(), rtol=1e-3, atol=1e-3)
    against(step, other)
    benchmark.extra_info |= {"nfe_forward": ours.stats.nfe_forward, "nfe_backward": ours.stats.nfe_backward or "n/a"}


def _divergence(field, name, y, noise):
    t = torch.tensor(0.5)

    def evaluate():
        dy, trace = DIVERGENCES[name](field, t, y, noise)
        (dy.square().mean() + trace.square().mean()).backward()
        field.zero_grad(set_to_none=True)
        return trace.detach()

    return evaluate


SHAPES = {"miniboone": (43, 860, 1_000), "hepmass": (21, 210, 10_000)}
"""FFJORD's Table 4 fields with two hidden layers: dim, width, batch."""


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.benchmark(group="closed-form trace against one Hutchinson probe, forward and backward")
def test_closed_form_against_hutchinson(name, against):
    """Exact at the price of an estimate."""
    dim, width, batch = SHAPES[name]
    torch.manual_seed(0)
    field = ConcatSquashField(dim, width, 2, "softplus")
    y, noise = torch.randn(batch, dim), torch.randn(1, batch, dim)
    against(_divergence(field, "closed_form", y, None), _divergence(field, "hutchinson", y, noise), rounds=9)


@pytest.mark.benchmark(group="three hidden layers, folded, against brute force: D = 1024, width 64, batch 128")
def test_folded_against_brute_force(against, benchmark):
    """The trace of a 1024 x 1024 Jacobian by 64 x 64 matrices: at least 50 times as fast."""
    torch.manual_seed(0)
    field = IgnoreField(1024, 64, 3)
    y = torch.randn(128, 1024)
    t = torch.tensor(0.5)

    def folded():
        return field.divergence(t, y)[1].detach()

    def brute():
        with torch.enable_grad():
            x = y.clone().requires_grad_()
            dy = field(t, x)
            return sum(torch.autograd.grad(dy[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(1024))

    torch.testing.assert_close(folded(), brute(), rtol=1e-3, atol=1e-4)
    assert against(folded, brute, rounds=5) > 50
