"""Continuous normalizing flows: log-densities by the instantaneous change of variables."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from repro.flows import base as bases
from repro.flows.augmented import PENALTIES, Augmented, check_estimator, draw_noise
from repro.ode import SOLVERS, Solver, Stats, solve
from repro.types import Norm, VectorField


class CNF(nn.Module):
    """Data x at t = 0, base z at t1: dz/dt = f(t, z), log p(x) = log p_base(z(t1)) + ∫ tr(∂f/∂z) dt.

    Time runs from data to base, as in FFJORD's public code. torchdiffeq's example has its base at 0 and integrates
    backwards: f_ours(t, z) = −f_example(t1 − t, z). The state [batch, dim + 1 (+ 1 per penalty)] is solved as one; its
    error is the larger of the RMS over z and over the log-density, as the public codes' tuples have it; penalties do
    not steer the steps (SciPy's solvers have a norm of their own). The estimator is what it is called, also in
    evaluation.

    Args:
        field: Right-hand side on [batch dim], rows independent of one another.
        dim: Dimension of the data.
        t1: End of the time interval, > 0.
        divergence: One of `DIVERGENCES`.
        solver: Method and tolerances.
        gradient: One of `repro.ode.GRADIENTS`.
        base: Distribution of z(t1), one log-density a row; None is N(0, I).
        noise: One of `NOISES`, for estimators that need noise.
        n_probes: Probes of such an estimator.
        penalties: Some of `PENALTIES`, integrated along; see `penalty`.

    Raises:
        ValueError: An argument is out of range; the message names it.

    References:
        Chen et al. 2018 (arXiv 1806.07366), Theorem 1; Grathwohl et al. 2019 (arXiv 1810.01367), eq. 4.
    """

    def __init__(
        self,
        field: VectorField,
        dim: int,
        t1: float = 1.0,
        divergence: str = "exact",
        solver: Solver = SOLVERS["dopri5"],
        gradient: str = "adjoint",
        base: Distribution | None = None,
        *,
        noise: str = "gaussian",
        n_probes: int = 1,
        penalties: Sequence[str] = (),
    ) -> None:
        super().__init__()
        check_estimator(divergence, noise, n_probes, penalties)
        if dim < 1:
            raise ValueError(f"dim must be at least 1; got {dim}")
        if not 0 < t1 < float("inf"):
            raise ValueError(f"t1 must be finite and > 0, the flow's start; got {t1}")
        self.field, self.dim, self.t1, self.base = field, dim, t1, base
        self.divergence, self.noise, self.n_probes, self.penalties = divergence, noise, n_probes, tuple(penalties)
        self.solver, self.gradient = solver, gradient
        self._stats: list[Stats] = []
        self.penalty: dict[str, Tensor] = {}

    @property
    def stats(self) -> Stats:
        """Cost of the last call; `backward()` fills its backward part."""
        return _total(self._stats)

    def log_prob(
        self, x: Tensor, noise: Tensor | None = None, generator: Generator | None = None
    ) -> Float[Tensor, " batch"]:
        """Log-density of data, in nats: exact up to the solver, or unbiased for the estimator's noise.

        Args:
            x: Data [batch dim].
            noise: Probes for the estimator [probe batch dim] (bottleneck: [probe batch bottleneck]); None draws them.
            generator: Draws the probes.

        Returns:
            log p(x); the penalties of the call are in `penalty`.

        Raises:
            ValueError: x has another shape, is empty or not finite; or noise does not fit; the message names it.
            TypeError: x is not floating.
            SolveError: The solve failed; also out of `backward()`.
        """
        z, gain = self.transform(x, noise, generator)
        return bases.log_prob(self.base, z) + gain

    def transform(
        self,
        x: Tensor,
        noise: Tensor | None = None,
        generator: Generator | None = None,
        *,
        t0: float = 0.0,
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, " batch"]]:
        """Carry points from time t0 to the base; give z and ∫ tr(∂f/∂z) dt, by which the log-density grows.

        With t0 > 0 the points belong to the flow's density at that time.

        Raises:
            ValueError: As `log_prob`; or t0 is not in [0, t1).
        """
        self._check(x, "x")
        if not 0 <= t0 < self.t1:
            raise ValueError(f"t0 must be in [0, t1 = {self.t1}); got {t0}")
        shape = (self.n_probes, len(x), self._noise_width)
        noise = draw_noise(self.divergence, self.noise, shape, noise, generator, like=x)
        system = Augmented(self.field, self.dim, self.divergence, self.penalties, noise)
        state = torch.cat([x, x.new_zeros(len(x), 1 + len(self.penalties))], 1)
        norm = system.norm if self.solver.engine != "scipy" else None
        end = self._solve(system, state, [t0, self.t1], norm)[-1]
        z, gain, *penalties = end.split([self.dim, *[1] * (1 + len(self.penalties))], 1)
        self.penalty = {name: value.squeeze(1) for name, value in zip(self.penalties, penalties, strict=True)}
        return z, gain.squeeze(1)

    def sample(self, n: int, generator: Generator | None = None) -> Float[Tensor, "n dim"]:
        """Draw from the flow: base samples carried from t1 to 0, in the field's dtype and on its device."""
        if n < 1:
            raise ValueError(f"n must be at least 1; got {n}")
        return self.inverse(bases.sample(self.base, n, self.dim, generator, self._like()))

    def inverse(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Carry base points to data."""
        return self.trajectory(z, [self.t1, 0.0])[-1]

    def trajectory(self, z: Tensor, times: Sequence[float]) -> Float[Tensor, "time batch dim"]:
        """Carry points through the given times, without their densities; the first one is where z belongs."""
        self._check(z, "z")
        return self._solve(self.field, z, times, None)

    @torch.no_grad()
    def reversibility_error(self, x: Float[Tensor, "batch dim"]) -> float:
        """Largest distance, over the batch, between data and the same data carried to the base and back."""
        there = self.trajectory(x, [0.0, self.t1])[-1]
        return float((self.inverse(there) - x).norm(dim=1).max())

    def _solve(self, field: VectorField, y0: Tensor, times: Sequence[float], norm: Norm | None) -> Tensor:
        t = torch.tensor(times, dtype=y0.dtype, device=y0.device)
        solution = solve(field, y0, t, self.solver, self.gradient, parameters=self.parameters(), norm=norm)
        self._stats = [solution.stats]
        return solution.y

    def _check(self, x: Tensor, name: str) -> None:
        if not x.is_floating_point():
            raise TypeError(f"{name} must be a floating tensor; got {x.dtype}")
        if x.ndim != 2 or x.shape[1] != self.dim or len(x) == 0:
            raise ValueError(f"{name} must have shape [batch, {self.dim}] with batch ≥ 1; got {tuple(x.shape)}")
        if not torch.isfinite(x.detach()).all():
            raise ValueError(f"{name} must be finite; {int((~torch.isfinite(x)).sum())} of its numbers are not")

    @property
    def _noise_width(self) -> int:
        return getattr(self.field, "bottleneck", self.dim) if self.divergence == "bottleneck" else self.dim

    def _like(self) -> Tensor:
        return next(self.parameters(), torch.zeros(()))


class Stack(nn.Module):
    """A flow of flows: data enter the first, the base is that of the last.

    Args:
        flows: At least one, of equal dimension.

    Raises:
        ValueError: There is none, or their dimensions differ.
    """

    def __init__(self, flows: Sequence[CNF]) -> None:
        super().__init__()
        if not flows:
            raise ValueError("flows must hold at least one CNF")
        if any(a.dim != b.dim for a, b in pairwise(flows)):
            raise ValueError(f"flows must have one dimension; got {[flow.dim for flow in flows]}")
        self.flows = nn.ModuleList(flows)
        self.dim = flows[0].dim

    @property
    def _cnfs(self) -> list[CNF]:
        return list(self.flows)  # pyright: ignore[reportReturnType]

    @property
    def stats(self) -> Stats:
        """Cost of the last call, summed over the flows."""
        return _total([flow.stats for flow in self._cnfs])

    @property
    def penalty(self) -> dict[str, Tensor]:
        """Penalties of the last call, summed over the flows."""
        names = self._cnfs[0].penalty
        return {name: torch.stack([flow.penalty[name] for flow in self._cnfs]).sum(0) for name in names}

    def log_prob(
        self,
        x: Float[Tensor, "batch dim"],
        noise: Sequence[Tensor] | None = None,
        generator: Generator | None = None,
    ) -> Float[Tensor, " batch"]:
        """Log-density of data, in nats; `noise` holds one tensor for each flow."""
        gain = x.new_zeros(len(x))
        for flow, probes in zip(self._cnfs, noise or [None] * len(self.flows), strict=True):
            x, more = flow.transform(x, probes, generator)
            gain = gain + more
        return bases.log_prob(self._cnfs[-1].base, x) + gain

    def sample(self, n: int, generator: Generator | None = None) -> Float[Tensor, "n dim"]:
        """Draw from the flow."""
        z = self._cnfs[-1].sample(n, generator)
        for flow in reversed(self._cnfs[:-1]):
            z = flow.inverse(z)
        return z

    @torch.no_grad()
    def reversibility_error(self, x: Float[Tensor, "batch dim"]) -> float:
        """Largest distance, over the batch, between data and the same data carried to the base and back."""
        z = x
        for flow in self._cnfs:
            z = flow.trajectory(z, [0.0, flow.t1])[-1]
        for flow in reversed(self._cnfs):
            z = flow.inverse(z)
        return float((z - x).norm(dim=1).max())


def _total(stats: Sequence[Stats]) -> Stats:
    return sum(stats[1:], stats[0]) if stats else Stats()


__all__ = ["CNF", "PENALTIES", "Stack"]
