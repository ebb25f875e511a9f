"""Energies in the plane, targets of density matching: p(z) = exp(−U(z)) / Z.

With w1 = sin(π z1 / 2), w2 = 3 exp(−½ ((z1 − 1) / 0.6)²), w3 = 3 sigmoid((z1 − 1) / 0.3):

    U1 = ½ ((‖z‖ − 2) / 0.4)² − ln(exp(−½ ((z1 − 2) / 0.6)²) + exp(−½ ((z1 + 2) / 0.6)²))
    U2 = ½ ((z2 − w1) / 0.4)²
    U3 = −ln(exp(−½ ((z2 − w1) / 0.35)²) + exp(−½ ((z2 − w1 + w2) / 0.35)²))
    U4 = −ln(exp(−½ ((z2 − w1) / 0.4)²) + exp(−½ ((z2 − w1 + w3) / 0.35)²))

U2 to U4 have no integral over the plane, for nothing confines z1; they get a soft wall.

References:
    Rezende and Mohamed 2015 (arXiv 1505.05770), Table 1. Neural ODE's Fig. 4 shows three targets that the paper does
    not define, presumably of these.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps

import torch
from jaxtyping import Float
from torch import Tensor

from repro.data.densities import check_points, midpoints

WALL_START = 4.0
"""Where the wall begins: the energies are usually drawn up to 4 in each direction, and there they stay as published."""

WALL_WIDTH = 0.2
"""Standard deviation beyond the wall's start: narrow against the box, yet not much steeper than the targets."""

_GRID = 400  # points per axis, 0.025 apart where the narrowest width is 0.2

_Potential = Callable[[Float[Tensor, "n 2"]], Float[Tensor, " n"]]


@dataclass(frozen=True, kw_only=True)
class Energy:
    """An unnormalised density.

    Attributes:
        name: Its key in the register.
        log_unnormalised: −U(z) [n] for points [n, 2], in their dtype, differentiable; what is not finite
            stays so. ValueError: z has another shape; TypeError: z is not floating.
        window: Half-width of the square about 0 that holds practically all mass.
        source: Where the definition comes from and where this one differs, in one line.
    """

    name: str
    log_unnormalised: Callable[[Tensor], Tensor]
    window: float
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "log_unnormalised", _checked(self.log_unnormalised))

    def log_normaliser(self) -> float:
        """Log of Z = ∫ exp(−U), by the midpoint rule on the window in float64."""
        return self._log_normaliser

    @cached_property
    def _log_normaliser(self) -> float:
        points, cell = midpoints(self.window, 2, _GRID)
        with torch.no_grad():
            return float(self.log_unnormalised(points).logsumexp(0)) + math.log(cell)


def _checked(evaluate: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    @wraps(evaluate)
    def log_unnormalised(z: Tensor) -> Tensor:
        check_points(z, 2, "z")
        return evaluate(z)

    return log_unnormalised


def _log_gauss(distance: Tensor, width: float) -> Tensor:
    return -0.5 * (distance / width).square()


def _u1(z: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """Two opposite halves of a ring of radius 2."""
    sides = torch.logaddexp(_log_gauss(z[:, 0] - 2, 0.6), _log_gauss(z[:, 0] + 2, 0.6))
    return _log_gauss(z.norm(dim=1) - 2, 0.4) + sides


def _above_wave(z: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    return z[:, 1] - torch.sin(math.pi / 2 * z[:, 0])


def _u2(z: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """A wave."""
    return _log_gauss(_above_wave(z), 0.4)


def _u3(z: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """A wave that splits about z1 = 1 and joins again."""
    height, bump = _above_wave(z), 3 * _log_gauss(z[:, 0] - 1, 0.6).exp()
    return torch.logaddexp(_log_gauss(height, 0.35), _log_gauss(height + bump, 0.35))


def _u4(z: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """A wave that splits in two."""
    height, step = _above_wave(z), 3 * torch.sigmoid((z[:, 0] - 1) / 0.3)
    return torch.logaddexp(_log_gauss(height, 0.4), _log_gauss(height + step, 0.35))


def _walled(evaluate: _Potential) -> _Potential:
    """Add ½ Σ (max(|z_i| − WALL_START, 0) / WALL_WIDTH)² to U."""

    @wraps(evaluate)
    def log_unnormalised(z: Tensor) -> Tensor:
        return evaluate(z) + _log_gauss((z.abs() - WALL_START).clamp(min=0), WALL_WIDTH).sum(1)

    return log_unnormalised


_SOURCE = "Rezende and Mohamed 2015, Table 1"
_WALL = f"plus a soft wall beyond |z_i| = {WALL_START:g} of width {WALL_WIDTH:g}, without which it has no integral"

_ENTRIES = (
    Energy(name="u1", log_unnormalised=_u1, window=5.0, source=f"{_SOURCE}, U1"),
    Energy(name="u2", log_unnormalised=_walled(_u2), window=5.0, source=f"{_SOURCE}, U2, {_WALL}"),
    Energy(name="u3", log_unnormalised=_walled(_u3), window=5.0, source=f"{_SOURCE}, U3, {_WALL}"),
    Energy(name="u4", log_unnormalised=_walled(_u4), window=5.0, source=f"{_SOURCE}, U4, {_WALL}"),
)

ENERGIES: dict[str, Energy] = {energy.name: energy for energy in _ENTRIES}
"""Every energy by name."""
