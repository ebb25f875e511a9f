"""Affine coupling layers with learnt linear maps between them: the discrete baseline of FFJORD's toy figure.

Everything but the assembly is zuko's.

References:
    Grathwohl et al., "FFJORD" (2019), https://arxiv.org/abs/1810.01367: Figure 2 compares with a Glow of 100 layers.
    Kingma and Dhariwal, "Glow" (2018), https://arxiv.org/abs/1807.03039: linear map before each coupling, Section 3.2;
    last layer of each network initialised with zeros, Section 3.3.

    Where FFJORD's public code (rtqichen/ffjord, train_discrete_toy.py) differs: its couplings scale by sigmoid(s + 2),
    at most 1, here by exp(s / (1 + |s| / ln S)), between 1/S and S; its linear map is a full matrix whose
    determinant is computed by brute force, here it is L U with a unit diagonal in U, which leaves out only the matrices
    that would need a pivot; its couplings start with random networks, here as the identity, which costs two
    assignments per layer and keeps 100 layers from moving the data before training.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from zuko.distributions import DiagNormal
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.lazy import Flow, LazyTransform, UnconditionalDistribution, UnconditionalTransform
from zuko.transforms import LULinearTransform, MonotonicAffineTransform

from repro.checks import check_finite, check_positive_counts
from repro.flows import base


class CouplingFlow(nn.Module):
    """A flow of zuko's transforms from data to the base N(0, I), with this suite's two methods.

    Args:
        dim: Numbers in a point.
        transforms: The layers, in the order from data to base.
    """

    def __init__(self, dim: int, transforms: list[LazyTransform]) -> None:
        super().__init__()
        self.dim = dim
        normal = UnconditionalDistribution(DiagNormal, torch.zeros(dim), torch.ones(dim), buffer=True)
        self.flow = Flow(transforms, normal)

    def log_prob(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Return log p(x) in nats.

        Raises:
            ValueError: `x` has another dimension than the flow, or is not finite.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x must have shape [batch, {self.dim}]; got {tuple(x.shape)}")
        check_finite(x, "x")
        return self.flow().log_prob(x)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "batch dim"]:
        """Draw n points: the base is drawn here, since torch.distributions takes no generator.

        Raises:
            ValueError: `n` is not positive.
        """
        check_positive_counts(n=n)
        z = base.sample(None, n, self.dim, generator, like=next(self.parameters()))
        return self.flow.transform().inv(z)


LARGEST_SCALE = 1000.0
"""zuko's own bound on a coupling's factor."""


def glow(
    dim: int = 2, depth: int = 100, width: int = 64, hidden: int = 2, largest_scale: float = LARGEST_SCALE
) -> CouplingFlow:
    """Assemble Glow for vectors: `depth` times a linear map and an affine coupling, all starting as the identity.

    Args:
        dim: Numbers in a point.
        depth: Layers; the paper's figure has 100, the public code's default is 10.
        width: Units in each hidden layer of a coupling's network.
        hidden: Hidden layers, with ReLU, of a coupling's network.
        largest_scale: Bound S > 1 on what a coupling scales by, exp(s / (1 + |s| / ln S)), and on its inverse. With
            zuko's 1000 a hundred couplings can blow a point up beyond all floats.

    Raises:
        ValueError: An argument is out of range; the message names it.
    """
    if dim < 2:
        raise ValueError(f"dim must be at least 2; got {dim}")
    check_positive_counts(depth=depth, width=width, hidden=hidden)
    if not 1 < largest_scale < float("inf"):
        raise ValueError(f"largest_scale must be finite and > 1; got {largest_scale}")
    univariate = partial(MonotonicAffineTransform, slope=1 / largest_scale)
    transforms: list[LazyTransform] = []
    for layer in range(depth):
        mask = torch.arange(dim) % 2 == layer % 2
        sizes = (width,) * hidden
        coupling = GeneralCouplingTransform(dim, mask=mask, univariate=univariate, hidden_features=sizes)  # pyright: ignore[reportArgumentType]
        for parameter in list(coupling.hyper.parameters())[-2:]:
            nn.init.zeros_(parameter)
        transforms += [UnconditionalTransform(LULinearTransform, torch.eye(dim)), coupling]
    return CouplingFlow(dim, transforms)
