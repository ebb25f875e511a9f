"""Toy distributions with exact densities: samples to train on, and the entropy that no likelihood can beat.

The register `DENSITIES` holds FFJORD's eight data sets in the plane and its mixture on the line, and two for Neural
ODE's Fig. 5.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

from repro.checks import check_finite, check_positive_counts
from repro.data.pinwheel import Pinwheel
from repro.data.toy2d import Blobs, Checkerboard, Curves, Rings, Spirals, moons, swiss_roll

Sampler = Callable[[int, Generator], Tensor]
LogDensity = Callable[[Tensor], Tensor]

_CHUNK = 512  # rows at once: keeps a quadrature's intermediate values within some ten megabytes
_GRID = {1: 4000, 2: 200}  # points per axis: at most 0.5 sigma apart for every entry, and the checkerboard's edges fit


@dataclass(frozen=True, kw_only=True)
class Density:
    """A distribution that can be drawn from and whose density is known.

    Its functions check their arguments, whatever was passed in for them.

    Attributes:
        name: Its key in the register.
        dim: Dimension.
        sample: Draws points [n, dim] in float32 by a CPU generator alone. ValueError: n is below 1.
        log_density: Log-density [n] in nats of points [n, dim], computed and returned in float64. ValueError: x has
            another shape or is not finite; TypeError: x is not floating.
        window: Half-width of the square or interval about 0 that holds practically all mass.
        source: Where the definition comes from and where this one differs, in one line.
        released: Draws as the public code does, where that is another distribution.
    """

    name: str
    dim: int
    sample: Sampler
    log_density: LogDensity
    window: float
    source: str
    released: Sampler | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sample", _checked_sampler(self.sample))
        object.__setattr__(self, "log_density", _checked_density(self.log_density, self.dim))
        if self.released is not None:
            object.__setattr__(self, "released", _checked_sampler(self.released))

    def entropy(self) -> float:
        """Entropy −∫ p ln p in nats, by the midpoint rule on the window: the lowest negative log-likelihood."""
        return self._entropy

    @cached_property
    def _entropy(self) -> float:
        points, cell = midpoints(self.window, self.dim, _GRID[self.dim])
        with torch.no_grad():
            return float(torch.special.entr(self.log_density(points).exp()).sum() * cell)


def midpoints(window: float, dim: int, n: int) -> tuple[Float64[Tensor, "cells dim"], float]:
    """Cut [−window, window]^dim into n^dim equal cells; give their middles, last axis fastest, and a cell's volume."""
    step = 2 * window / n
    axis = (torch.arange(n, dtype=torch.float64) + 0.5) * step - window
    return torch.stack(torch.meshgrid([axis] * dim, indexing="ij"), -1).flatten(0, -2), step**dim


def check_points(points: Tensor, dim: int, name: str) -> None:
    """Check points at which a density or an energy is asked for.

    Raises:
        TypeError: They are not floating.
        ValueError: Their shape is not [n, dim].
    """
    if not points.is_floating_point():
        raise TypeError(f"{name} must be a floating tensor; got {points.dtype}")
    if points.ndim != 2 or points.shape[1] != dim:
        raise ValueError(f"{name} must have shape [n, {dim}]; got {tuple(points.shape)}")


def _checked_sampler(draw: Sampler) -> Sampler:
    @wraps(draw)
    def sample(n: int, generator: Generator) -> Tensor:
        check_positive_counts(n=n)
        return draw(n, generator)

    return sample


def _checked_density(evaluate: LogDensity, dim: int) -> LogDensity:
    @wraps(evaluate)
    def log_density(x: Tensor) -> Tensor:
        check_points(x, dim, "x")
        check_finite(x, "x")
        return torch.cat([evaluate(rows) for rows in x.double().split(_CHUNK)])

    return log_density


_FFJORD = "FFJORD's public code, lib/toy_data.py"
_IID = (
    "component and angle drawn independently and uniformly, where scikit-learn puts n/2 points at fixed angles on each"
)

_EIGHT = tuple((math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)) for k in range(8))
_Shape = Blobs | Rings | Curves | Spirals | Checkerboard | Pinwheel


def _density(
    name: str, shape: _Shape, window: float, source: str, dim: int = 2, released: Sampler | None = None
) -> Density:
    return Density(
        name=name,
        dim=dim,
        sample=shape.sample,
        log_density=shape.log_density,
        window=window,
        source=source,
        released=released,
    )


_rings = Rings((3.0, 2.25, 1.5, 0.75), sigma=0.08)
_ENTRIES = (
    _density(
        "8gaussians",
        Blobs(tuple((4 * x / 1.414, 4 * y / 1.414) for x, y in _EIGHT), sigma=0.5 / 1.414),
        window=4.5,
        source=f"{_FFJORD}: centres on the circle of radius 4, sigma 0.5, all divided by 1.414",
    ),
    _density("checkerboard", Checkerboard(), window=4.0, source=f"{_FFJORD}: uniform on eight squares of side 2"),
    _density(
        "2spirals",
        Spirals(),
        window=3.9,
        source=f"{_FFJORD}; the arm is drawn for each point, where the code mirrors n/2 points before it blurs them",
    ),
    _density(
        "circles",
        Rings((3.0, 1.5), sigma=0.24),
        window=4.2,
        source=f"{_FFJORD}: scikit-learn's circles, factor 0.5, noise 0.08, times 3; {_IID}",
    ),
    _density(
        "rings",
        _rings,
        window=3.4,
        source=f"{_FFJORD}; angles are uniform, where the code takes n/4 fixed angles a ring: `released`",
        released=_rings.sample_equally_spaced,
    ),
    _density(
        "moons",
        Curves(moons(2.0, (-1.0, -0.2)), sigma=0.2, nodes=80),
        window=4.0,
        source=f"{_FFJORD}: scikit-learn's moons, noise 0.1, times 2, shifted by (-1, -0.2); {_IID}",
    ),
    _density(
        "swissroll",
        Curves((swiss_roll,), sigma=0.2, nodes=224),
        window=3.8,
        source=f"{_FFJORD}: scikit-learn's Swiss roll, noise 1, first and last coordinate divided by 5",
    ),
    _density(
        "pinwheel",
        Pinwheel(),
        window=4.8,
        source=f"{_FFJORD}; the arm is drawn for each point, where the code puts n/5 on each",
    ),
    _density(
        "mixture_1d",
        Blobs(((-2.8,), (-0.9,), (2.0,)), sigma=math.sqrt(0.4)),
        window=6.0,
        source="FFJORD's public code, diagnostics/approx_error_1d.py: three Gaussians of variance 0.4",
        dim=1,
    ),
    _density(
        "circles_node",
        Rings((1.0, 0.5), sigma=0.06),
        window=1.5,
        source=f"torchdiffeq's example cnf.py: scikit-learn's circles, factor 0.5, noise 0.06; {_IID}",
    ),
    _density(
        "moons_node",
        Curves(moons(1.0, (0.0, 0.0)), sigma=0.06, nodes=128),
        window=2.3,
        source=f"our choice, for the Neural ODE paper states nothing: scikit-learn's moons, noise 0.06; {_IID}",
    ),
)

DENSITIES: dict[str, Density] = {density.name: density for density in _ENTRIES}
"""Every toy distribution by name."""
