"""Shapes of the toy data in the plane: how each is drawn, and its exact log-density.

Every shape draws independent points from torch alone, so that the generator's state decides the sample, and gives
log p(x) in nats by the same parameters: a Gaussian's blur of points, rings and curves, or a change of variables.

References:
    Grathwohl et al. 2019 (arXiv 1810.01367), Section 4.1; the definitions are those of its public code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Generator, Tensor

from repro.data.blur import LOG_2PI, Points, blur, choose, gauss_legendre, log_blur, log_sum, uniform

Curve = Callable[[Float[Tensor, " n"]], Float[Tensor, "n 2"]]
"""A curve over s in [0, 1]."""


@dataclass(frozen=True)
class Blobs:
    """Equal mixture of N(c, sigma² I) over centres c, in any dimension."""

    centres: tuple[tuple[float, ...], ...]
    sigma: float

    def sample(self, n: int, generator: Generator) -> Points:
        """Draw a centre, then its blur."""
        return blur(torch.tensor(self.centres)[choose(len(self.centres), n, generator)], self.sigma, generator)

    def log_density(self, x: Float64[Tensor, "n dim"]) -> Float64[Tensor, " n"]:
        """Log of the mean of the Gaussians."""
        centres = x.new_tensor(self.centres)
        return log_blur(x, centres, x.new_full((len(centres),), 1 / len(centres)), self.sigma)


@dataclass(frozen=True)
class Rings:
    """Circles about the origin, equally likely, their angles uniform, blurred by N(0, sigma² I).

    For one ring of radius R, with r = ‖x‖: p(x) = exp(−(r² + R²) / 2σ²) I0(r R / σ²) / 2πσ².
    """

    radii: tuple[float, ...]
    sigma: float

    def sample(self, n: int, generator: Generator) -> Points:
        """Draw a ring, an angle, then the blur."""
        radius = torch.tensor(self.radii)[choose(len(self.radii), n, generator)]
        return self._blurred(radius, 2 * math.pi * uniform(n, generator), generator)

    def sample_equally_spaced(self, n: int, generator: Generator) -> Points:
        """Draw as FFJORD's public code does: n // rings points on each at equal angles from 0, the last takes the rest.

        The angles are the same in every batch: training on n points is training on a mixture of n blobs.
        """
        share, order = n // len(self.radii), torch.randperm(n, generator=generator)
        counts = [share] * (len(self.radii) - 1)
        counts.append(n - sum(counts))
        angle = torch.cat([2 * math.pi * torch.arange(count) / count for count in counts])
        radius = torch.tensor(self.radii).repeat_interleave(torch.tensor(counts))
        return self._blurred(radius[order], angle[order], generator)

    def log_density(self, x: Float64[Tensor, "n 2"]) -> Float64[Tensor, " n"]:
        """Log of the mean over the rings; the scaled Bessel function keeps it finite far away."""
        r, radius, variance = x.norm(dim=1, keepdim=True), x.new_tensor(self.radii), self.sigma**2
        bessel = torch.special.i0e(r * radius / variance).log()
        terms = bessel - 0.5 * (r - radius).square() / variance
        return terms.logsumexp(1) - math.log(len(self.radii) * variance) - LOG_2PI

    def _blurred(self, radius: Tensor, angle: Tensor, generator: Generator) -> Points:
        return blur(radius.unsqueeze(1) * torch.stack([angle.cos(), angle.sin()], 1), self.sigma, generator)


@dataclass(frozen=True)
class Curves:
    """Curves c(s), equally likely, s uniform on [0, 1], blurred: p(x) = mean over curves of ∫ N(x; c(s), sigma² I) ds.

    By `nodes` Gauss-Legendre nodes a curve; gaps below sigma keep the error of log p below 1e-4 even where p is 1e-100.
    """

    curves: tuple[Curve, ...]
    sigma: float
    nodes: int

    def sample(self, n: int, generator: Generator) -> Points:
        """Draw a curve, a parameter, then the blur."""
        which, s = choose(len(self.curves), n, generator), uniform(n, generator)
        points = torch.stack([curve(s) for curve in self.curves])
        return blur(points[which, torch.arange(n)], self.sigma, generator)

    def log_density(self, x: Float64[Tensor, "n 2"]) -> Float64[Tensor, " n"]:
        """Log of the quadrature, finite far away."""
        s, weight = gauss_legendre(self.nodes, x)
        centres = torch.cat([curve(s) for curve in self.curves])
        return log_blur(x, centres, weight.repeat(len(self.curves)) / len(self.curves), self.sigma)


def moons(scale: float, shift: tuple[float, float]) -> tuple[Curve, Curve]:
    """Make two half circles of radius `scale`: the upper one about `shift`, the lower about shift + scale (1, ½)."""

    def upper(s: Tensor) -> Tensor:
        angle = math.pi * s
        return scale * torch.stack([angle.cos(), angle.sin()], 1) + s.new_tensor(shift)

    def lower(s: Tensor) -> Tensor:
        angle = math.pi * s
        return scale * torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1) + s.new_tensor(shift)

    return upper, lower


def swiss_roll(s: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """Give t (cos t, sin t) / 5 with t = 1.5 π (1 + 2 s)."""
    t = 1.5 * math.pi * (1 + 2 * s)
    return (t / 5).unsqueeze(1) * torch.stack([t.cos(), t.sin()], 1)


@dataclass(frozen=True)
class Spirals:
    """Two arms, one the negative of the other: ± ((−t cos t, t sin t) + U(0, ½)²) / 3 + N(0, 0.1² I), t = 3π √U(0, 1).

    The box is divided by 3 as well; the Gaussian is not. With d the distance from the box's middle, each axis has the
    density (Φ((d + w/2) / σ) − Φ((d − w/2) / σ)) / w, w = 1/6, and t has the density 2t / (3π)².
    """

    nodes: int = 320

    T_MAX = 3 * math.pi
    WIDTH = 0.5 / 3
    SIGMA = 0.1

    def sample(self, n: int, generator: Generator) -> Points:
        """Draw arm and parameter, the place in the box, then the blur."""
        sign = 2 * choose(2, n, generator) - 1
        corner = self._corner(self.T_MAX * uniform(n, generator).sqrt())
        box = self.WIDTH * torch.rand(n, 2, generator=generator, dtype=torch.float32)
        return blur(sign.unsqueeze(1) * (corner + box), self.SIGMA, generator)

    def log_density(self, x: Float64[Tensor, "n 2"]) -> Float64[Tensor, " n"]:
        """Log of the quadrature over t, finite far away; boxes that add less than e^−40 of the nearest are left out."""
        s, weight = gauss_legendre(self.nodes, x)
        middle = self._corner(self.T_MAX * s) + self.WIDTH / 2
        middle = torch.cat([middle, -middle])
        dx, dy = ((x[:, i : i + 1] - middle[:, i]).abs() for i in range(2))
        gap = (dx - self.WIDTH / 2).clamp(min=0).square() + (dy - self.WIDTH / 2).clamp(min=0).square()
        point, node = (gap < gap.amin(1, keepdim=True) + 80 * self.SIGMA**2).nonzero(as_tuple=True)
        log_weight = (weight * s).log().repeat(2)[node]  # ½ for the arm times 2 s for the parameter
        terms = log_weight + self._log_axis(dx[point, node]) + self._log_axis(dy[point, node])
        return log_sum(terms, point, len(x))

    def _corner(self, t: Tensor) -> Tensor:
        return (t / 3).unsqueeze(1) * torch.stack([-t.cos(), t.sin()], 1)

    def _log_axis(self, d: Tensor) -> Tensor:
        # by d ≥ 0 both cdfs lie in one tail; the scaled erfc, erfcx(z) = exp(z²) erfc(z), takes their common factor out
        scale = 1 / (self.SIGMA * math.sqrt(2))
        near, far = (d - self.WIDTH / 2) * scale, (d + self.WIDTH / 2) * scale
        ratio = (-d * self.WIDTH / self.SIGMA**2).exp()
        difference = torch.special.erfcx(near) - ratio * torch.special.erfcx(far)
        return difference.log() - near.square() - math.log(2 * self.WIDTH)


class Checkerboard:
    """Uniform on the eight squares of side 2 in [−4, 4]² whose column and row are both even or both odd."""

    def sample(self, n: int, generator: Generator) -> Points:
        """Draw the first coordinate, then a square of its column and the place in it."""
        across = 4 * uniform(n, generator) - 2
        up = uniform(n, generator) - 2 * choose(2, n, generator) + across.floor().remainder(2)
        return 2 * torch.stack([across, up], 1)

    def log_density(self, x: Float64[Tensor, "n 2"]) -> Float64[Tensor, " n"]:
        """−ln 32 inside, −inf outside; a square's edges count as inside, for rounding may put a draw there."""
        square = x / 2
        even = square.floor().sum(1).remainder(2) == 0
        edge = (square == square.floor()).any(1)
        inside = (x.abs() <= 4).all(1) & (even | edge)
        return x.new_full((len(x),), -math.inf).masked_fill(inside, -math.log(32))
