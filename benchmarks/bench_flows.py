"""Continuous flows: the planar CNF's training step against plain torchdiffeq, and what each divergence costs."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

from benchmarks.peers.fields import Traced
from benchmarks.steps import likelihood_step
from repro.data import DENSITIES
from repro.flows import CNF, DIVERGENCES
from repro.flows.planar_field import PlanarField
from repro.measuring.overhead import Sized, doubling
from repro.nets.fields import ConcatSquashField, IgnoreField
from repro.ode import Solver

TIGHT = Solver("dopri5", rtol=1e-9, atol=1e-9, engine="compiled")


class Direct(nn.Module):
    """The likelihood by torchdiffeq, differentiated by its adjoint or through its steps."""

    def __init__(self, field, t1, solver, noise=None, integrate=odeint_adjoint):
        super().__init__()
        self.func, self.t1, self.solver, self.integrate = Traced(field, noise), t1, solver, integrate

    def log_prob(self, x):
        """Log-density of data."""
        t, tolerances = torch.tensor([0.0, self.t1]), {"rtol": self.solver.rtol, "atol": self.solver.atol}
        z, gain = self.integrate(self.func, (x, x.new_zeros(len(x))), t, method="dopri5", **tolerances)
        normal = -0.5 * (z[-1].square().sum(1) + x.shape[1] * torch.log(torch.tensor(2 * torch.pi)))
        return normal + gain[-1]


def _gradient(flow):
    return torch.cat([p.grad.flatten().double() for p in flow.parameters()])


@dataclass(frozen=True)
class Case:
    """A training step: the field, its data, the solver, and whether the trace is estimated."""

    make: Callable
    data: str
    batch: int
    t1: float
    solver: Solver = Solver("dopri5", rtol=1e-5, atol=1e-5)
    steps: int = 200
    estimated: bool = False
    threads: int = 1

    def sample(self, n, seed):
        """Data of the case."""
        stream = torch.Generator().manual_seed(seed)
        return torch.randn(n, 43, generator=stream) if self.data == "normal" else DENSITIES[self.data].sample(n, stream)

    def trained(self):
        """A field that is past its first steps: at initialisation a flow needs few evaluations."""
        torch.manual_seed(0)
        field = self.make()
        flow = CNF(field, field.dim, self.t1, "closed_form", Solver("rk4", step_size=self.t1 / 8), "checkpoint")
        optimizer = torch.optim.Adam(field.parameters(), 5e-3)
        for step in range(self.steps):
            optimizer.zero_grad()
            (-flow.log_prob(self.sample(256, step)).mean()).backward()
            optimizer.step()
        return field


STEPS = {
    "planar, 64 units, batch 512": Case(partial(PlanarField, 2), "circles_node", 512, 1.0),
    "toy, 64-64-64, batch 100": Case(partial(ConcatSquashField, 2), "8gaussians", 100, 0.5, estimated=True),
    "toy, 64-64-64, batch 100, exact trace": Case(partial(ConcatSquashField, 2), "8gaussians", 100, 0.5),
    "toy, 64-64-64, batch 512": Case(partial(ConcatSquashField, 2), "8gaussians", 512, 0.5, estimated=True),
    "MINIBOONE-shaped, 860-860 softplus, batch 1000": Case(
        partial(ConcatSquashField, 43, 860, 2, "softplus"),
        "normal",
        1_000,
        1.0,
        Solver("dopri5", rtol=1e-6, atol=1e-8),
        steps=0,
        estimated=True,
        threads=2,
    ),
}
"""Training steps that are timed."""

WAYS = [
    ("torchdiffeq", "adjoint"),
    ("torchdiffeq", "checkpoint"),
    ("torchdiffeq", "backprop"),
    ("compiled", "checkpoint"),
    ("compiled", "backprop"),
]


# the large step takes seconds in any way: only the fastest two are timed
PAIRS = [(name, *way) for name, case in STEPS.items() for way in (WAYS if case.threads == 1 else WAYS[-2:])]


@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize(("name", "engine", "gradient"), PAIRS)
@pytest.mark.benchmark(group="CNF training step against torchdiffeq's adjoint with the trace by backward passes")
def test_step(name, engine, gradient, against, benchmark):
    """One likelihood and its gradient; errors of the gradient are against float64 at tolerance 1e-9."""
    case = STEPS[name]
    torch.set_num_threads(case.threads)
    field, x = case.trained(), case.sample(case.batch, 1)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)) if case.estimated else None
    divergence = "hutchinson" if case.estimated else "closed_form"
    flow = CNF(field, field.dim, case.t1, divergence, replace(case.solver, engine=engine), gradient)
    adjoint, through = (
        Direct(copy.deepcopy(field), case.t1, case.solver, noise, integrate) for integrate in (odeint_adjoint, odeint)
    )
    step, other = likelihood_step(flow, x, noise), likelihood_step(adjoint, x)
    torch.testing.assert_close(step(), other(), rtol=1e-3, atol=1e-3)
    likelihood_step(through, x)()
    exact = CNF(copy.deepcopy(field).double(), field.dim, case.t1, divergence, TIGHT, "checkpoint")
    likelihood_step(exact, x.double(), None if noise is None else noise.double())()
    against(step, other, rounds=15 if case.threads == 1 else 5)
    benchmark.extra_info |= {"nfe_forward": flow.stats.nfe_forward, "nfe_backward": flow.stats.nfe_backward or "n/a"}
    benchmark.extra_info |= overhead(step, flow, x, noise)
    for who, model in {"ours": flow, "torchdiffeq_adjoint": adjoint, "torchdiffeq_backprop": through}.items():
        error = (_gradient(model) - _gradient(exact)).norm() / _gradient(exact).norm()
        benchmark.extra_info[f"gradient_error_{who}"] = error.item()


def overhead(step, flow, x, noise):
    """Whether the step is bound by overhead; every row twice is twice the work, by the same steps of the solver."""

    def twice():
        other = copy.copy(flow)  # with evaluations of its own
        rows = likelihood_step(other, torch.cat([x, x]), None if noise is None else torch.cat([noise, noise]))
        return Sized(rows, lambda: other.stats)

    return doubling(Sized(step, lambda: flow.stats), twice, x.device)


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
