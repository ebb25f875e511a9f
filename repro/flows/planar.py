"""Planar normalizing flow: a stack of one-unit layers y = x + û tanh(wᵀx + b) and its log-density.

References:
    Rezende and Mohamed, "Variational Inference with Normalizing Flows" (2015), https://arxiv.org/abs/1505.05770:
    eq. 10-12, and Appendix A.1 for the constraint wᵀû > −1 that makes every layer invertible.
    Chen et al., "Neural Ordinary Differential Equations" (2018), https://arxiv.org/abs/1806.07366: eq. 7; Figure 4
    fits such a flow to an energy, Figure 5 to data.

    None of them gives the initial values. Here the layers start next to the identity, u near log(e − 1) w / ‖w‖², which
    is û near 0, with random normals w and offsets b. Small random u are no such start: u = 0 gives
    û = (log 2 − 1) w / ‖w‖², a contraction along w in every layer.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from repro.checks import check_finite, check_name, check_positive_counts
from repro.flows import base

DIRECTIONS = ("to_base", "from_base")

Points = Float[Tensor, "batch dim"]
LogDensity = Float[Tensor, " batch"]


class PlanarFlow(nn.Module):
    """Planar layers between data and base N(0, I); their determinant has a closed form only in one direction.

    A layer is y = x + û tanh(wᵀx + b), log |det ∂y/∂x| = log(1 + wᵀû (1 − tanh²(wᵀx + b))), where
    û = u + (softplus(wᵀu) − 1 − wᵀu) w / ‖w‖² makes 1 + wᵀû = softplus(wᵀu) > 0.

    Args:
        dim: Numbers in a point.
        n_layers: Layers K.
        direction: What the layers map. "to_base": data to base, so that `log_prob` is closed and is what maximum
            likelihood trains. "from_base": base to data, so that `sample_with_log_prob` is closed and is what
            minimising KL(q‖p) trains. The other method inverts the layers numerically; its result has no gradient.

    Raises:
        ValueError: An argument is out of range; the message names it.
    """

    def __init__(self, dim: int, n_layers: int, *, direction: str) -> None:
        super().__init__()
        check_positive_counts(dim=dim, n_layers=n_layers)
        check_name("direction", direction, DIRECTIONS)
        self.dim, self.direction = dim, direction
        w = torch.randn(n_layers, dim)
        identity = math.log(math.e - 1) * w / w.square().sum(1, keepdim=True)
        self.w = nn.Parameter(w)
        self.u = nn.Parameter(identity + 0.01 * torch.randn(n_layers, dim))
        self.b = nn.Parameter(torch.randn(n_layers))

    def transform(self, x: Points) -> tuple[Points, LogDensity]:
        """Push points through all layers; return them and log |det ∂y/∂x|.

        Raises:
            ValueError: `x` has another dimension than the flow, or is not finite.
        """
        self._check("x", x)
        return _Layers.apply(x, self.w, self.u, self.b)  # pyright: ignore[reportReturnType]

    @torch.no_grad()
    def inverse(self, y: Points) -> Points:
        """Undo `transform`, layer by layer, without gradients.

        A layer shifts points along û by an amount that depends on p = wᵀx + b alone, and p + wᵀû tanh p = wᵀy + b is
        monotone in p: one scalar equation per point and layer, solved to rounding. In float64 the result maps back to
        `y` to 1e-10; the distance to the true inverse is larger by the layers' condition numbers, at most
        1 / (1 + wᵀû) each.

        Raises:
            ValueError: `y` has another dimension than the flow, or is not finite.
        """
        self._check("y", y)
        s, _, v = _constrain(self.w, self.u)
        for w, b, s_k, v_k in zip(*(parts.flip(0).unbind() for parts in (self.w, self.b, s, v)), strict=True):
            p = _solve_layer(torch.addmv(b, y, w), s_k)
            y = torch.addr(y, torch.tanh(p), v_k, alpha=-1)
        return y

    def log_prob(self, x: Points) -> LogDensity:
        """Return log p(x) in nats; with direction "from_base" by numerical inversion, without gradients.

        Raises:
            ValueError: `x` has another dimension than the flow, or is not finite.
        """
        self._check("x", x)
        if self.direction == "to_base":
            z, log_det = self.transform(x)
            return base.log_prob(None, z) + log_det
        with torch.no_grad():
            z = self.inverse(x)
            return base.log_prob(None, z) - self.transform(z)[1]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Points:
        """Draw n points; see `sample_with_log_prob`."""
        return self.sample_with_log_prob(n, generator)[0]

    def sample_with_log_prob(self, n: int, generator: torch.Generator | None = None) -> tuple[Points, LogDensity]:
        """Draw n points with their log-density; with direction "to_base" by numerical inversion, without gradients.

        Raises:
            ValueError: `n` is not positive.
        """
        check_positive_counts(n=n)
        z = base.sample(None, n, self.dim, generator, like=self.w)
        if self.direction == "from_base":
            x, log_det = self.transform(z)
            return x, base.log_prob(None, z) - log_det
        x = self.inverse(z)
        with torch.no_grad():
            return x, self.log_prob(x)

    def _check(self, name: str, points: Tensor) -> None:
        if points.ndim != 2 or points.shape[1] != self.dim:
            raise ValueError(f"{name} must have shape [batch, {self.dim}]; got {tuple(points.shape)}")
        check_finite(points, name)


def _constrain(w: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return s = 1 + wᵀû = softplus(wᵀu), [layer 1], c = (s − 1 − wᵀu) / ‖w‖², [layer 1], and û = u + c w."""
    dot = (w * u).sum(1, keepdim=True)
    s = F.softplus(dot, threshold=40)  # torch's own threshold of 20 is off by 2e-9
    c = (s - 1 - dot) / (w * w).sum(1, keepdim=True)
    return s, c, torch.addcmul(u, c, w)


def _solve_layer(c: Tensor, s: Tensor) -> Tensor:
    """Solve p + (s − 1) tanh p = c for p, elementwise.

    The left side is odd, and for p > 0 convex if s < 1 and concave if s > 1. Newton's method from c + 1 − s, or from 0
    if that is negative, has the root on the side from which it converges monotonically, so it needs no bracket.
    """
    target = c.abs()
    p = (target + 1 - s).clamp(min=0)
    for _ in range(100):  # a triple root (s = 0 at p = 0) gains 0.18 digits a step; all others are far quicker
        a = torch.tanh(p)
        slope = a * a + s * (1 - a * a)
        step = (p + (s - 1) * a - target) / slope
        p = p - step
        if bool((step.abs() <= 4 * torch.finfo(p.dtype).eps * (1 + p.abs())).all()):
            break
    return p * c.sign()


class _Layers(torch.autograd.Function):
    """All layers at once: (x, w, u, b) -> (y, log |det ∂y/∂x|).

    A planar layer is a handful of products of tiny matrices, so autograd's bookkeeping would cost more than the
    arithmetic. Three calls per layer remain in either pass, on points stored as [dim batch]; the parameters' gradients
    are matrix products over all layers: with p_k = w_kᵀ x_{k−1} + b_k, a_k = tanh p_k and g_k the gradient of p_k,
    x_{k−1} = x + Σ_{j<k} û_j a_j gives ∂/∂w_k = g_k x + Σ_{j<k} (g_k·a_j) û_j, and likewise for û.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, u: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        s, c, v = _constrain(w, u)
        y = x.t().clone(memory_format=torch.contiguous_format)
        a = b[:, None].repeat(1, len(x))
        for a_k, w_k, v_k in zip(a.split(1), w.split(1), v[:, :, None].unbind(), strict=True):
            a_k.addmm_(w_k, y).tanh_()
            y.addmm_(v_k, a_k)
        squares = a * a
        slope = 1 - squares
        det = torch.addcmul(squares, s, slope)  # 1 + wᵀû (1 − a²), without cancellation where wᵀû is near −1
        ctx.save_for_backward(x, w, u, a, slope, det, s, c, v)
        return y.t(), det.log().sum(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_log_det: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401 # pyright: ignore
        x, w, u, a, slope, det, s, c, v = ctx.saved_tensors
        grad_det = grad_log_det / det
        grad_x = grad_y.t().clone(memory_format=torch.contiguous_format)
        g = (a * grad_det).mul_(2 - 2 * s)
        layers = zip(g.split(1), w[:, :, None].unbind(), v.split(1), slope.split(1), strict=True)
        for g_k, w_k, v_k, slope_k in reversed(list(layers)):
            g_k.addmm_(v_k, grad_x).mul_(slope_k)
            grad_x.addmm_(w_k, g_k)
        mixed = (g @ a.t()).tril_(-1)
        grad_w, grad_v = torch.addmm(g @ x, mixed, v), torch.addmm(a @ grad_y, mixed.t(), w)
        grad_c = (grad_v * w).sum(1, keepdim=True) / (w * w).sum(1, keepdim=True)
        grad_s = (grad_det * slope).sum(1, keepdim=True) + grad_c
        grad_dot = -grad_s * torch.expm1(-s) - grad_c  # softplus' = 1 − exp(−softplus)
        grad_w = grad_w.addcmul_(c, grad_v).addcmul_(grad_dot, u).addcmul_(grad_c * c, w, value=-2)
        return grad_x.t(), grad_w, grad_v.addcmul_(grad_dot, w), g.sum(1)
