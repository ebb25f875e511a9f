"""What is measured: training steps of an ODE-Net, of continuous flows and of plain fields, on a device of choice."""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.settings import DEVICE
from repro.flows import CNF
from repro.measuring.step import Step, flow_step, solve_step
from repro.nets.fields import ConcatSquashField
from repro.nets.odenet import ConvField, OdeBlock, ode_block_of, residual_net
from repro.ode import Solver


def stream(seed=0):
    """A generator of its own for data and noise."""
    return torch.Generator().manual_seed(seed)


def classifier(solver=None, gradient=None, *, blocks=0, batch=32, dtype=torch.float32):
    """A step of the ODE-Net, or without a solver of the ResNet of so many blocks, on random images and labels."""
    torch.manual_seed(0)
    layers = residual_net("conv", 0 if solver else blocks)
    net = nn.Sequential(layers[0], OdeBlock(ConvField(), solver, gradient), layers[-1]) if solver else layers
    net = net.to(DEVICE, dtype)
    images = torch.rand(batch, 1, 28, 28, generator=stream()).to(DEVICE, dtype)
    labels = torch.randint(0, 10, (batch,), generator=stream()).to(DEVICE)
    return network_step(net, images, labels)


def network_step(net, images, labels):
    """A step of a network by its mean cross-entropy."""

    def loss():
        return F.cross_entropy(net(images), labels)

    def warm():
        block = ode_block_of(net)
        if block is None:
            loss().backward()
            return
        solver, block.solver = block.solver, Solver("euler", step_size=1.0, engine=block.solver.engine)
        loss().backward()
        block.solver = solver

    block = ode_block_of(net)
    return Step(loss, tuple(net.parameters()), lambda: block.stats if block else None, warm)


def flow(solver, gradient, *, dim=32, width=256, depth=3, batch=256, divergence="hutchinson", dtype=torch.float32):
    """A step of a CNF of a concatsquash field, at initialisation, on normal data with one probe a row."""
    torch.manual_seed(0)
    field = ConcatSquashField(dim, width, depth).to(DEVICE, dtype)
    x, noise = torch.randn(2, batch, dim, generator=stream()).to(DEVICE, dtype)
    made = CNF(field, dim, 1.0, divergence, solver, gradient)
    return flow_step(made, x, noise[None] if divergence == "hutchinson" else None)


def trajectory(solver, gradient, *, dim=64, width=64, depth=2, batch=256, times=2, dtype=torch.float32):
    """A step of a plain field whose loss sees its state at so many output times, from 0 to 1."""
    torch.manual_seed(0)
    field = ConcatSquashField(dim, width, depth).to(DEVICE, dtype)
    y0 = torch.randn(batch, dim, generator=stream()).to(DEVICE, dtype)
    t = torch.linspace(0, 1, times, device=DEVICE, dtype=dtype)
    return solve_step(field, y0, t, solver, gradient, _over_all)


def _over_all(y):
    return 0.5 * y.square().mean()


def fixed(steps, engine="torchdiffeq"):
    """RK4 in so many steps from 0 to 1."""
    return Solver("rk4", step_size=1 / steps, engine=engine)


TASKS = {"ODE-Net": classifier, "CNF": flow, "field": trajectory}
"""By the names that stand in tables."""
