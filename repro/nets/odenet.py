"""ODE-Net for MNIST and the networks that the paper compares it with (Neural ODE, Section 3, Table 1).

The architecture is that of the authors' public example (torchdiffeq, examples/odenet_mnist.py at 657943a), since the
paper does not give its own; its README says that details differ from the paper's experiments.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from repro.ode import Solver, Stats, solve
from repro.ode.kernels import ConvolutionKernel, register_kernel, unlike

CHANNELS = 64
Downsampling = Literal["conv", "res"]


def group_norm() -> nn.GroupNorm:
    """Normalise over 32 groups of the 64 channels."""
    return nn.GroupNorm(32, CHANNELS)


class ResidualBlock(nn.Module):
    """Pre-activation residual block (He et al. 2016b): x + conv(relu(norm(conv(relu(norm(x))))))."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = group_norm()
        self.norm2 = group_norm()
        self.conv1 = nn.Conv2d(CHANNELS, CHANNELS, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(CHANNELS, CHANNELS, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x: Float[Tensor, "batch channel h w"]) -> Float[Tensor, "batch channel h2 w2"]:
        """Apply the block; with a stride the shortcut is a 1x1 convolution of the activated input."""
        out = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(out)
        return shortcut + self.conv2(F.relu(self.norm2(self.conv1(out))))


class TimeConv2d(nn.Conv2d):
    """3x3 convolution of the state with time as one more, constant, input channel (the first one).

    Written as conv(x; W_x) + t conv(1; W_t): the same numbers as concatenating a channel full of t, without copying
    the state at every evaluation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels + 1, channels, 3, 1, 1)

    def forward(  # type: ignore[override]
        self, t: Float[Tensor, ""], x: Float[Tensor, "batch channel h w"]
    ) -> Float[Tensor, "batch channel h w"]:
        """Convolve x at time t."""
        ones = x.new_ones(1, 1, *x.shape[2:])
        drift = F.conv2d(ones, self.weight[:, :1], padding=1)
        return F.conv2d(x, self.weight[:, 1:], self.bias, padding=1) + t * drift


@register_kernel
class ConvField(nn.Module):
    """Right-hand side of the ODE-Net: norm, relu, conv, norm, relu, conv, norm; every conv sees the time."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = group_norm()
        self.conv1 = TimeConv2d(CHANNELS)
        self.norm2 = group_norm()
        self.conv2 = TimeConv2d(CHANNELS)
        self.norm3 = group_norm()

    def forward(
        self, t: Float[Tensor, ""], y: Float[Tensor, "batch channel h w"]
    ) -> Float[Tensor, "batch channel h w"]:
        """dy/dt at time t."""
        hidden = self.conv1(t, F.relu(self.norm1(y)))
        return self.norm3(self.conv2(t, F.relu(self.norm2(hidden))))

    def step_kernel(self, y: Float[Tensor, "batch channel h w"]) -> ConvolutionKernel | str:
        """Native steps of the field from states like y, or why there are none."""
        norms, convolutions = [self.norm1, self.norm2, self.norm3], [self.conv1, self.conv2]
        known = {nn.GroupNorm: norms, TimeConv2d: convolutions}
        if any(unlike(part, kind) for kind, parts in known.items() for part in parts):
            return "one of its norms or convolutions was replaced"
        return ConvolutionKernel.of(norms, convolutions, y)


class OdeBlock(nn.Module):
    """y(0) -> y(1) under a learned field: infinitely many residual blocks that share their parameters.

    Attributes:
        stats: cost of the last call (`repro.ode.Stats`); its backward counts are filled by `backward()`.
    """

    def __init__(self, field: nn.Module, solver: Solver, gradient: str) -> None:
        super().__init__()
        self.field = field
        self.solver = solver
        self.gradient = gradient
        self.stats: Stats | None = None

    def forward(self, y: Float[Tensor, "batch *state"]) -> Float[Tensor, "batch *state"]:
        """Integrate from 0 to 1."""
        return self._integrate(y, 0.0, 1.0)

    def inverse(self, y: Float[Tensor, "batch *state"]) -> Float[Tensor, "batch *state"]:
        """Integrate from 1 back to 0."""
        return self._integrate(y, 1.0, 0.0)

    def _integrate(self, y: Tensor, start: float, end: float) -> Tensor:
        times = torch.tensor([start, end], dtype=y.dtype, device=y.device)
        solution = solve(self.field, y, times, self.solver, self.gradient)
        self.stats = solution.stats
        return solution.y[-1]

    def costs(self) -> dict[str, float]:
        """Function evaluations of the last training step; the backward count is left out where there is none."""
        if self.stats is None:
            return {}
        costs = {"nfe_forward": float(self.stats.nfe_forward)}
        if self.stats.nfe_backward is not None:
            costs["nfe_backward"] = float(self.stats.nfe_backward)
        return costs


def downsampling(kind: Downsampling) -> nn.Sequential:
    """28x28 grey image -> 64 channels of 6x6 (`conv`) or 7x7 (`res`), the two variants of the public example."""
    if kind == "res":
        return nn.Sequential(nn.Conv2d(1, CHANNELS, 3, 1), ResidualBlock(stride=2), ResidualBlock(stride=2))
    return nn.Sequential(
        nn.Conv2d(1, CHANNELS, 3, 1),
        group_norm(),
        nn.ReLU(),
        nn.Conv2d(CHANNELS, CHANNELS, 4, 2, 1),
        group_norm(),
        nn.ReLU(),
        nn.Conv2d(CHANNELS, CHANNELS, 4, 2, 1),
    )


def classifier_head() -> nn.Sequential:
    """Norm, relu, global average pool, linear layer to ten classes."""
    return nn.Sequential(group_norm(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 10))


def residual_net(kind: Downsampling, n_blocks: int) -> nn.Sequential:
    """The ResNet with `n_blocks` residual blocks after the down-sampling; 0 leaves them out (torchdiffeq#32)."""
    return nn.Sequential(downsampling(kind), *[ResidualBlock() for _ in range(n_blocks)], classifier_head())


def ode_net(kind: Downsampling, solver: Solver, gradient: str) -> nn.Sequential:
    """The ODE-Net, or with `gradient="backprop"` the RK-Net: the residual blocks replaced by one ODE."""
    return nn.Sequential(downsampling(kind), OdeBlock(ConvField(), solver, gradient), classifier_head())


def mlp(width: int = 300) -> nn.Sequential:
    """One hidden layer of 300 tanh units: 238,510 parameters, Table 1's 0.24 M."""
    return nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, width), nn.Tanh(), nn.Linear(width, 10))


def ode_block_of(model: nn.Module) -> OdeBlock | None:
    """The ODE block of a network, or None if it has none."""
    return next((module for module in model.modules() if isinstance(module, OdeBlock)), None)
