"""The pinwheel: bent Gaussian arms, whose density is a change of variables with a root to find.

A point of arm k has the features a ~ N(1, radial²) along the arm and b ~ N(0, tangential²) across it, and is

    x = scale · (a cos θ + b sin θ, −a sin θ + b cos θ),   θ(a) = 2π k / arms + rate · e^a,

the features turned clockwise by θ, as the public code does. With y = x / scale, turning back gives

    a = y0 cos θ − y1 sin θ,   b = y0 sin θ + y1 cos θ.

As θ depends on a, the first equation is solved for a; it may have several roots. In the turned frame the columns of
∂y/∂(a, b) are (1 + θ′ b, −θ′ a) and (0, 1), hence |det ∂x/∂(a, b)| = scale² |1 + θ′ b|, which is also the slope of the
first equation's residual.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

from repro.data.blur import Points, log_sum

_REACH = 7.0  # in standard deviations of a: roots beyond carry less than 3e-12 of the mass
_CELLS = 240  # brackets: θ moves by at most 0.1 rad in one, so two roots share one only beside a fold, mass below 1e-7
_BISECTIONS = 12
_NEWTON_STEPS = 2  # from a bracket of 4e-6, to rounding


@dataclass(frozen=True)
class Pinwheel:
    """Equal mixture of bent arms; see the module."""

    arms: int = 5
    radial: float = 0.3
    tangential: float = 0.1
    rate: float = 0.25
    scale: float = 2.0

    def sample(self, n: int, generator: Generator) -> Points:
        """Draw an arm and the features, then turn them."""
        arm = torch.randint(self.arms, (n,), generator=generator)
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float32)
        a, b = 1 + self.radial * noise[:, 0], self.tangential * noise[:, 1]
        angle = self._angle(arm, a)
        cos, sin = angle.cos(), angle.sin()
        return self.scale * torch.stack([a * cos + b * sin, b * cos - a * sin], 1)

    def log_density(self, x: Float64[Tensor, "n 2"]) -> Float64[Tensor, " n"]:
        """Log of the sum over arms and roots of N(a) N(b) / (arms |det|); −inf where there is no root within reach."""
        y = x / self.scale
        point, arm, low, high = self._brackets(y)
        y = y[point]
        a = self._solve(y, arm, low, high)
        _, b, slope = self._features(y, arm, a)
        square = ((a - 1) / self.radial).square() + (b / self.tangential).square()
        norm = 2 * math.pi * self.radial * self.tangential * self.arms * self.scale**2
        terms = -0.5 * square - slope.abs().log() - math.log(norm)
        return log_sum(terms, point, len(x))

    def _angle(self, arm: Tensor, a: Tensor) -> Tensor:
        return 2 * math.pi / self.arms * arm.to(a) + self.rate * a.exp()

    def _features(self, y: Tensor, arm: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Residual of the equation for a, the b that belongs to a, and the residual's slope."""
        angle = self._angle(arm, a)
        cos, sin = angle.cos(), angle.sin()
        b = y[..., 0] * sin + y[..., 1] * cos
        return a - (y[..., 0] * cos - y[..., 1] * sin), b, 1 + self.rate * a.exp() * b

    def _brackets(self, y: Float64[Tensor, "n 2"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Every change of the residual's sign on a grid of a: number of the point, arm, both ends."""
        reach = _REACH * self.radial
        a = torch.linspace(1 - reach, 1 + reach, _CELLS + 1, dtype=y.dtype, device=y.device)
        angle = self._angle(torch.arange(self.arms, device=y.device).unsqueeze(1), a)
        turned = y @ torch.stack([angle.cos(), -angle.sin()]).flatten(1)
        positive = turned.unflatten(1, angle.shape) < a
        point, arm, cell = (positive[..., 1:] != positive[..., :-1]).nonzero(as_tuple=True)
        return point, arm, a[cell], a[cell + 1]

    def _solve(self, y: Tensor, arm: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Bisect each bracket, then Newton, kept within it."""
        sign = self._features(y, arm, low)[0].sign()
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            same = self._features(y, arm, middle)[0] * sign > 0
            low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        a = (low + high) / 2
        for _ in range(_NEWTON_STEPS):
            residual, _, slope = self._features(y, arm, a)
            a = (a - residual / slope).clamp(low, high)
        return a
