"""One ODE-Net training step (batch 128, tolerance 1e-3, the public architecture) against torchdiffeq used directly."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchdiffeq import odeint, odeint_adjoint

from benchmarks.peers.fields import ConcatConv
from benchmarks.steps import training_step
from repro.measuring.overhead import Sized, doubling
from repro.metrics import saved_bytes
from repro.nets.odenet import ode_block_of, ode_net
from repro.ode import Solver

SOLVER = Solver("dopri5", rtol=1e-3, atol=1e-3)


class Direct(nn.Module):
    """An ODE block as a user of torchdiffeq writes it."""

    def __init__(self, field, gradient):
        super().__init__()
        self.field = field
        self.solve = odeint_adjoint if gradient.startswith("adjoint") else odeint
        self.options = {"adjoint_options": {"norm": "seminorm"}} if gradient == "adjoint_seminorm" else {}

    def forward(self, y):
        """Integrate from 0 to 1."""
        t = torch.tensor([0.0, 1.0]).to(y)
        return self.solve(self.field, y, t, rtol=SOLVER.rtol, atol=SOLVER.atol, method="dopri5", **self.options)[1]


def _pair(gradient):
    torch.manual_seed(0)
    ours = ode_net("conv", SOLVER, gradient)
    theirs = copy.deepcopy(ours)
    field = theirs[1].field
    field.conv1, field.conv2 = ConcatConv(field.conv1), ConcatConv(field.conv2)
    theirs[1] = Direct(field, "backprop" if gradient == "checkpoint" else gradient)
    return ours, theirs


def _step(model, images, labels):
    return training_step(model, lambda: F.cross_entropy(model(images), labels))


@pytest.fixture
def batch():
    """Random images with random labels; the cost does not depend on them."""
    stream = torch.Generator().manual_seed(0)
    return torch.rand(128, 1, 28, 28, generator=stream), torch.randint(0, 10, (128,), generator=stream)


@pytest.mark.parametrize("gradient", ["backprop", "adjoint", "adjoint_seminorm", "checkpoint"])
@pytest.mark.benchmark(group="ODE-Net training step, batch 128, tolerance 1e-3, against torchdiffeq")
def test_training_step(gradient, batch, against, benchmark):
    """`checkpoint` has no counterpart in torchdiffeq and is set against its backprop, whose gradient it shares."""
    ours, theirs = _pair(gradient)
    step, other = _step(ours, *batch), _step(theirs, *batch)
    torch.testing.assert_close(step(), other(), rtol=1e-4, atol=1e-5)
    against(step, other)
    stats = ode_block_of(ours).stats
    benchmark.extra_info |= {"nfe_forward": stats.nfe_forward, "nfe_backward": stats.nfe_backward or "n/a"}
    benchmark.extra_info |= overhead(ours, step, batch)


def overhead(net, step, batch):
    """Whether the step is bound by overhead; every image twice is twice the work."""

    def sized(own, take):
        return Sized(take, lambda: ode_block_of(own).stats)

    def twice():
        other = copy.deepcopy(net)  # with evaluations of its own
        return sized(other, _step(other, *(torch.cat([part, part]) for part in batch)))

    return doubling(sized(net, step), twice, batch[0].device)


@pytest.mark.parametrize("gradient", ["backprop", "adjoint", "checkpoint"])
@pytest.mark.benchmark(group="bytes that autograd keeps, by RK4 steps")
def test_saved_bytes(gradient, batch, benchmark):
    """The adjoint's do not grow with the steps, checkpoint's by one state a step, backprop's by all activations."""
    state = 128 * 64 * 6 * 6 * 4
    kept = {}
    for steps in (4, 8, 16):
        torch.manual_seed(0)
        model = ode_net("conv", Solver("rk4", step_size=1 / steps), gradient)
        with saved_bytes(exclude=model.parameters()) as meter:
            loss = F.cross_entropy(model(batch[0]), batch[1])
        kept[steps] = meter.total
        del loss
    benchmark.extra_info |= {f"saved_bytes_{steps}": total for steps, total in kept.items()}
    growth = {(kept[8] - kept[4]) / 4, (kept[16] - kept[8]) / 8}
    expected = {"adjoint": 0, "checkpoint": state}
    if gradient in expected:
        assert growth == {expected[gradient]}
    else:
        assert min(growth) > 10 * state
    benchmark.pedantic(_step(model, *batch), rounds=3, iterations=1)
