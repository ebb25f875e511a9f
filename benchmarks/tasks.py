"""What is measured: training steps of an ODE-Net, of continuous flows and of plain fields, on a device of choice."""

import torch
from torch import nn

import repro
from benchmarks.settings import DEVICE
from repro.data import DENSITIES, mnist
from repro.flows import CNF
from repro.measuring.step import Step, classifier_step, flow_step, mean_energy, solve_step
from repro.nets.fields import ConcatSquashField, IgnoreField
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
    return classifier_step(net, images, labels)


def flow(solver, gradient, *, dim=32, width=256, depth=3, batch=256, divergence="hutchinson", dtype=torch.float32):
    """A step of a CNF of a concatsquash field, at initialisation, on normal data with one probe a row."""
    torch.manual_seed(0)
    field = ConcatSquashField(dim, width, depth).to(DEVICE, dtype)
    x, noise = torch.randn(2, batch, dim, generator=stream()).to(DEVICE, dtype)
    made = CNF(field, dim, 1.0, divergence, solver, gradient)
    return flow_step(made, x, noise[None] if divergence == "hutchinson" else None)


def trajectory(solver, gradient, *, dim=64, width=64, depth=2, batch=256, times=2, dtype=torch.float32):
    """A step of a plain perceptron whose loss sees its state at so many output times, from 0 to 1.

    Its layers do not see the time: a gate would be folded into a copy of the weights at every evaluation.
    """
    torch.manual_seed(0)
    field = IgnoreField(dim, width, depth).to(DEVICE, dtype)
    y0 = torch.randn(batch, dim, generator=stream()).to(DEVICE, dtype)
    t = torch.linspace(0, 1, times, device=DEVICE, dtype=dtype)
    return solve_step(field, y0, t, solver, gradient, over_all)


def over_all(y):
    """Half the mean square of the state at all output times."""
    return 0.5 * y.square().mean()


def fixed(steps, engine="torchdiffeq"):
    """RK4 in so many steps from 0 to 1."""
    return Solver("rk4", step_size=1 / steps, engine=engine)


def trained_classifier(solver, gradient, *, batch=32, dtype=torch.float32):
    """A step of the published ODE-Net on the first test images of MNIST."""
    net = repro.load("neural_ode/table1_mnist", "odenet").to(DEVICE, dtype)
    block = ode_block_of(net)
    block.solver, block.gradient = solver, gradient
    test = mnist.load().test
    images = test.images[:batch].to(DEVICE, dtype).unsqueeze(1) / 255
    return classifier_step(net, images, test.labels[:batch].to(DEVICE))


def trained_flow(solver, gradient, *, cell="8gaussians", batch=512, dtype=torch.float32):
    """A step of a published toy flow, with its exact trace, on fresh data of its set."""
    made = repro.load("ffjord/fig2_toy2d", cell).to(DEVICE, dtype)
    made.solver, made.gradient = solver, gradient
    return flow_step(made, DENSITIES[cell].sample(batch, stream()).to(DEVICE, dtype))


class Linear(nn.Module):
    """f(t, y) = A y, whose solution and gradients are known."""

    def __init__(self, dim=8):
        super().__init__()
        matrix = torch.randn(dim, dim, generator=stream(1), dtype=torch.float64)
        self.matrix = nn.Parameter(2.0 * (matrix - matrix.T) / dim**0.5 - 0.3 * torch.eye(dim))

    def forward(self, t, y):
        """dy/dt."""
        return y @ self.matrix.T


def linear(solver, gradient, *, batch=16, dtype=torch.float64):
    """A step of a linear system, for y0 and the matrix."""
    field = Linear().to(DEVICE, dtype)
    y0 = torch.randn(batch, len(field.matrix), generator=stream(), dtype=torch.float64).to(DEVICE, dtype)
    return solve_step(field, y0, torch.tensor([0.0, 1.0], device=DEVICE, dtype=dtype), solver, gradient)


def linear_closed_form():
    """The same step without a solver, by the matrix exponential."""
    step = linear(Solver(), "backprop")
    start, matrix = step.leaves

    def loss():
        return mean_energy((start @ torch.linalg.matrix_exp(matrix).T)[None])

    return Step(loss, step.leaves)
