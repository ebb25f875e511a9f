"""The steps that are timed: weights past their first steps, data, one probe, and the float64 reference."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import steps
from benchmarks.peers.fields import ConvNet, GatedNet, HyperPlanar
from benchmarks.peers.protocol import Outcome
from benchmarks.settings import DEVICE
from repro.data import DATASETS, DENSITIES
from repro.flows import CNF
from repro.flows.planar_field import PlanarField
from repro.nets.fields import ConcatSquashField
from repro.nets.odenet import ode_block_of, ode_net
from repro.ode import Solver

NOISE_SEED = 2


@dataclass(frozen=True)
class Likelihood:
    """Mean negative log-density of a batch under a flow with a normal base."""

    field: nn.Module
    t1: float
    x: Tensor
    rtol: float
    atol: float
    estimated: bool
    exact_tolerance: float = 1e-10

    @property
    def noise(self) -> Tensor | None:
        """The one Gaussian probe: what `torch.randn_like` gives right after seeding with `NOISE_SEED`."""
        if not self.estimated:
            return None
        with torch.random.fork_rng():
            torch.manual_seed(NOISE_SEED)
            return torch.randn_like(self.x)

    def theirs(self) -> tuple[nn.Module, tuple[float, float]]:
        """The field as other libraries' users write it, and the times from data to base."""
        if isinstance(self.field, PlanarField):
            return HyperPlanar(self.field, self.t1), (self.t1, 0.0)
        return GatedNet(self.field), (0.0, self.t1)

    def reference(self) -> Outcome:
        """Loss and gradient in float64, the solver's tolerances at `exact_tolerance`."""
        tight = Solver("dopri5", rtol=self.exact_tolerance, atol=self.exact_tolerance)
        return likelihood_step(copy.deepcopy(self.field).double(), self, tight)()


@dataclass(frozen=True)
class Classification:
    """Mean cross-entropy of a batch of images under an ODE-Net, whose solver and gradient a way chooses.

    Its ReLUs cost the solver its order: the evaluations of the reference grow by 2.5 for each decade of tolerance, into
    the thousands at 1e-10, while the gradients to be judged are percents off.
    """

    make: Callable[[Solver, str], nn.Sequential]
    images: Tensor
    labels: Tensor
    rtol: float
    atol: float
    exact_tolerance: float = 1e-7

    def theirs(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """The network in three parts, the field in the middle."""
        stem, block, head = self.make(Solver(), "backprop")
        return stem, ConvNet(block.field), head

    def reference(self) -> Outcome:
        """Loss and gradient in float64, the solver's tolerances at `exact_tolerance`."""
        tight = Solver("dopri5", rtol=self.exact_tolerance, atol=self.exact_tolerance)
        return classification_step(self.make(tight, "checkpoint").double(), self)()


Workload = Likelihood | Classification


def twice_the_batch(workload: Workload) -> Workload:
    """The same workload on every row twice."""
    if isinstance(workload, Likelihood):
        return replace(workload, x=torch.cat([workload.x, workload.x]))
    images, labels = (torch.cat([part, part]) for part in (workload.images, workload.labels))
    return replace(workload, images=images, labels=labels)


def likelihood_step(field, workload, solver, gradient="checkpoint"):
    """A step of the suite's own flow."""
    divergence = "hutchinson" if workload.estimated else "closed_form"
    flow = CNF(field, workload.x.shape[1], workload.t1, divergence, solver, gradient)
    x = workload.x.to(next(field.parameters()).dtype)
    noise = workload.noise.to(x) if workload.estimated else None
    return _told(steps.likelihood_step(flow, x, noise), flow, lambda: flow.stats)


def classification_step(net, workload):
    """A step of the suite's own ODE-Net."""
    images = workload.images.to(next(net.parameters()).dtype)
    step = steps.training_step(net, lambda: F.cross_entropy(net(images), workload.labels))
    return _told(step, net, lambda: ode_block_of(net).stats)


def _told(step, model, stats_of):
    """A step that says all that it leaves."""

    def told():
        loss, stats = step(), stats_of()
        return Outcome(loss, tuple(p.grad for p in model.parameters()), stats.nfe_forward, stats.nfe_backward)

    return told


def flow(make, data, batch, t1, rtol=1e-5, atol=1e-5, *, train=200, estimated=True):
    """A flow on its data, trained for some steps: at initialisation it would need few evaluations."""
    torch.manual_seed(0)
    module = make()
    solver = Solver("dopri5", rtol=1e-4, atol=1e-4, engine="compiled")
    model = CNF(module, module.dim, t1, "closed_form", solver, "checkpoint")
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    for step in range(train):
        optimizer.zero_grad()
        (-model.log_prob(_sample(data, module.dim, 256, step)).mean()).backward()
        optimizer.step()
    x = _sample(data, module.dim, batch, 10_000)
    return Likelihood(module.to(DEVICE), t1, x.to(DEVICE), rtol, atol, estimated)


def _sample(data, dim, n, seed):
    stream = torch.Generator().manual_seed(seed)
    if data == "normal":
        return torch.randn(n, dim, generator=stream)
    if data in DENSITIES:
        return DENSITIES[data].sample(n, stream)
    rows = _training_rows(data)
    return rows[torch.randint(len(rows), (n,), generator=stream)]


@cache
def _training_rows(data):
    return DATASETS[data].load().train


def odenet(batch=128, tolerance=1e-3):
    """The public example's network, on random images with random labels; the cost does not depend on them."""

    def make(solver, gradient):
        torch.manual_seed(0)
        return ode_net("conv", solver, gradient).to(DEVICE)

    stream = torch.Generator().manual_seed(0)
    images, labels = torch.rand(batch, 1, 28, 28, generator=stream), torch.randint(0, 10, (batch,), generator=stream)
    return Classification(make, images.to(DEVICE), labels.to(DEVICE), tolerance, tolerance)


@dataclass(frozen=True)
class Plan:
    """How a workload is timed.

    Attributes:
        title: What stands in tables.
        make: Makes the workload.
        threads: Threads, and processors, that every way may use.
        rounds: Timed steps of each way.
        sweep: Tolerances (rtol = atol) at which each way is run too, for the time at equal error.
        kind: Class of what `make` gives.
    """

    title: str
    make: Callable[[], Workload]
    threads: int
    rounds: int
    sweep: tuple[float, ...] = ()
    kind: str = "Likelihood"


toy = partial(flow, partial(ConcatSquashField, 2), "8gaussians", t1=0.5)
planar = partial(PlanarField, 2, gate="coordinate", reduction="mean")
tabular = partial(ConcatSquashField, 43, 860, 2, "softplus")
power = partial(ConcatSquashField, 6, 60)
DECADES = (1e-3, 1e-4, 1e-6)
"""Around the tolerance 1e-5 of the workloads that are swept."""

PLANS = {
    "toy_100": Plan("toy FFJORD, batch 100", partial(toy, batch=100), 1, 15, DECADES),
    "toy_512": Plan("toy FFJORD, batch 512", partial(toy, batch=512), 1, 15, DECADES),
    "planar": Plan(
        "planar CNF, t1 = 10, batch 512",
        partial(flow, planar, "circles_node", 512, 10.0, estimated=False),
        1,
        11,
        DECADES,
    ),
    "miniboone": Plan(
        "MINIBOONE-shaped FFJORD, batch 1000",
        partial(flow, tabular, "normal", 1_000, 1.0, 1e-6, 1e-8, train=0),
        2,
        5,
    ),
    "power": Plan(
        "one of POWER's five CNFs, batch 10000",
        partial(flow, power, "power", 10_000, 1.0, 1e-6, 1e-8),
        2,
        5,
    ),
    "odenet": Plan("ODE-Net, batch 128", odenet, 2, 7, (1e-2, 1e-4), kind="Classification"),
}
"""Workloads by name. The large flows have no sweep: at tighter tolerances a step of theirs takes too long."""
