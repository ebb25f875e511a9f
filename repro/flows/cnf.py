"""Continuous normalizing flows: log-densities by the instantaneous change of variables."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.distributions import Distribution

from repro.checks import check_positive_counts
from repro.flows import base as bases
from repro.flows.augmented import Augmented, check_estimator, draw_noise
from repro.ode import SOLVERS, Solver, Stats, solve
from repro.ode.inference import as_normal, leave_inference_mode
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
        n_probes: Probes of such an estimator; `hutchpp` needs 3 or more, `xtrace` from 2 to `dim`.
        penalties: Some of `repro.flows.PENALTIES`, integrated along; see `penalty`.

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
        check_positive_counts(dim=dim)
        check_estimator(divergence, noise, n_probes, penalties, dim)
        if getattr(field, "dim", dim) != dim:
            raise ValueError(f"dim must be that of the field, {getattr(field, 'dim', dim)}; got {dim}")
        if not 0 < t1 < float("inf"):
            raise ValueError(f"t1 must be finite and > 0, the flow's start; got {t1}")
        self.field, self.dim, self.t1, self.base = field, dim, t1, base
        self.divergence, self.noise, self.n_probes, self.penalties = divergence, noise, n_probes, tuple(penalties)
        self.solver, self.gradient = solver, gradient
        self._stats = Stats()
        self.penalty: dict[str, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Give what is copied and pickled: the penalties without their graph, which neither can be done to."""
        return self.__dict__ | {"penalty": {name: value.detach() for name, value in self.penalty.items()}}

    @property
    def stats(self) -> Stats:
        """Cost of the last call; `backward()` fills its backward part."""
        return self._stats

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
            TypeError: x is not floating, or of another dtype than the field.
            SolveError: The solve failed; also out of `backward()`.
        """
        z, gain = self.transform(x, noise, generator)
        return self.base_log_prob(z) + gain

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
        return self._carry(x, [t0, self.t1], noise, generator)

    def sample_with_log_prob(
        self, n: int, noise: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Float[Tensor, "n dim"], Float[Tensor, " n"]]:
        """Draw from the flow together with the log-densities of the draws, in one solve: for KL(flow ‖ target)."""
        return self.inverse_with_log_prob(self._draw(n, generator), noise, generator)

    def inverse_with_log_prob(
        self, z: Float[Tensor, "n dim"], noise: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Float[Tensor, "n dim"], Float[Tensor, " n"]]:
        """Carry base points to data together with the log-densities of the data, in one solve."""
        x, loss = self._carry(z, [self.t1, 0.0], noise, generator)
        return x, self.base_log_prob(z) - loss

    def _carry(
        self, start: Tensor, times: Sequence[float], noise: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Carry points and the integral of the divergence from the first time to the last."""
        with leave_inference_mode():
            return self._carry_normal(as_normal(start), times, None if noise is None else as_normal(noise), generator)

    def _carry_normal(
        self, start: Tensor, times: Sequence[float], noise: Tensor | None, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        shape = (self.n_probes, len(start), self._noise_width)
        noise = draw_noise(self.divergence, self.noise, shape, noise, generator, like=start)
        system = Augmented(self.field, self.dim, self.divergence, self.penalties, noise)
        state = torch.cat([start, start.new_zeros(len(start), 1 + len(self.penalties))], 1)
        norm = system.norm if self.solver.engine != "scipy" else None
        end, gain, *penalties = self._solve(system, state, times, norm)[-1].split(
            [self.dim, *[1] * (1 + len(self.penalties))], 1
        )
        sign = 1.0 if times[-1] > times[0] else -1.0
        self.penalty = {name: sign * value.squeeze(1) for name, value in zip(self.penalties, penalties, strict=True)}
        return end, gain.squeeze(1)

    def base_log_prob(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, " batch"]:
        """Log-density of the base, in nats."""
        return bases.log_prob(self.base, z)

    def sample(self, n: int, generator: Generator | None = None) -> Float[Tensor, "n dim"]:
        """Draw from the flow: base samples carried from t1 to 0, in the field's dtype and on its device."""
        return self.inverse(self._draw(n, generator))

    def inverse(self, z: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Carry base points to data."""
        return self.trajectory(z, [self.t1, 0.0])[-1]

    def trajectory(self, z: Tensor, times: Sequence[float] | Tensor) -> Float[Tensor, "time batch dim"]:
        """Carry points through the given times, without their densities; the first one is where z belongs.

        Times that are a tensor get gradients, if they require them.
        """
        self._check(z, "z")
        return self._solve(self.field, z, times, None)

    @torch.no_grad()
    def reversibility_error(self, x: Float[Tensor, "batch dim"]) -> float:
        """Largest distance, over the batch, between data and the same data carried to the base and back."""
        there = self.trajectory(x, [0.0, self.t1])[-1]
        return float((self.inverse(there) - x).norm(dim=1).max())

    def _draw(self, n: int, generator: Generator | None) -> Tensor:
        check_positive_counts(n=n)
        return bases.sample(self.base, n, self.dim, generator, self._like())

    def _solve(self, field: VectorField, y0: Tensor, times: Sequence[float] | Tensor, norm: Norm | None) -> Tensor:
        t = torch.as_tensor(times, dtype=y0.dtype, device=y0.device)
        solution = solve(field, y0, t, self.solver, self.gradient, norm=norm)
        self._stats = solution.stats
        return solution.y

    def _check(self, x: Tensor, name: str) -> None:
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor; got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"{name} must be a floating tensor; got {x.dtype}")
        if x.dtype != (wanted := next((p.dtype for p in self.parameters()), x.dtype)):
            raise TypeError(f"{name} must have the field's dtype, {wanted}; got {x.dtype}")
        if x.ndim != 2 or x.shape[1] != self.dim or len(x) == 0:
            raise ValueError(f"{name} must have shape [batch, {self.dim}] with batch ≥ 1; got {tuple(x.shape)}")
        if not torch.isfinite(x.detach()).all():
            raise ValueError(f"{name} must be finite; {int((~torch.isfinite(x)).sum())} of its numbers are not")

    @property
    def _noise_width(self) -> int:
        return getattr(self.field, "bottleneck", self.dim) if self.divergence == "bottleneck" else self.dim

    def _like(self) -> Tensor:
        return next(self.parameters(), torch.zeros(()))
