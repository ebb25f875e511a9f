"""The system that a CNF solves: state, log-density and penalties as one field, and the noise it is given."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from repro.checks import check_name, check_positive_counts
from repro.flows.divergence import DIVERGENCES, NEEDS_NOISE, NOISES
from repro.flows.low_variance import check_probes
from repro.flows.products import jacobian_products, unit_vectors
from repro.ode import rms
from repro.ode.kernels import Steps, register_kernel
from repro.ode.kernels.registry import KERNELS
from repro.types import VectorField


@register_kernel
class Augmented(nn.Module):
    """d/dt [y, gain, penalties] = [f, tr ∂f/∂y, rates], on [batch, dim + 1 + penalties].

    Args:
        field: f.
        dim: Columns of y.
        divergence: Name of the estimator.
        penalties: Names in `PENALTIES`.
        noise: Probes, held for the whole solve.
    """

    def __init__(
        self, field: VectorField, dim: int, divergence: str, penalties: Sequence[str], noise: Tensor | None
    ) -> None:
        super().__init__()
        self.field, self.dim = field, dim
        self._divergence, self._divergence_name, self.held = DIVERGENCES[divergence], divergence, noise
        self._penalties = [PENALTIES[name] for name in penalties]

    def forward(self, t: Float[Tensor, ""], state: Float[Tensor, "batch columns"]) -> Float[Tensor, "batch columns"]:
        """Derivative of the state."""
        return self.with_held(t, state, self.held)

    def with_held(
        self, t: Float[Tensor, ""], state: Float[Tensor, "batch columns"], held: Tensor | None
    ) -> Float[Tensor, "batch columns"]:
        """Derivative of the state by other probes."""
        y = state[:, : self.dim]
        dy, gain = self._divergence(self.field, t, y, held)
        rates = [rate(self.field, t, y, dy, held).unsqueeze(1) for rate in self._penalties]
        return torch.cat([dy, gain.unsqueeze(1), *rates], 1)

    def step_kernel(self, state: Float[Tensor, "batch columns"]) -> Steps | str:
        """Make native steps of the whole system, where the field's type has a kernel; or say why there are none."""
        make = KERNELS.get(type(self.field))
        if make is None:
            return f"{type(self.field).__name__} has no kernel"
        if self._penalties:
            return "the kernel integrates no penalties"
        match self._divergence_name:
            case "hutchinson" if self.held is not None:
                kernel = make(self.field, state, self.held, 1 / len(self.held))
            case "closed_form":
                kernel = make(self.field, state, closed_form=True)
            case "exact":
                kernel = make(self.field, state, unit_vectors(self.dim, state))
            case other:
                kernel = f"the kernel has no trace by {other!r}"
        return kernel

    def norm(self, error: Tensor) -> Tensor:
        """Return the larger of the RMS over y and over the log-density; penalties have no say (RNODE: tolerance 1e20).

        The sizes of the steps that follow from it are constants to autograd in all gradient methods.
        """
        y, gain = error[:, : self.dim], error[:, self.dim]
        return torch.maximum(rms(y), rms(gain))


def kinetic(field: VectorField, t: Tensor, y: Tensor, dy: Tensor, noise: Tensor | None) -> Float[Tensor, " batch"]:
    """Rate of the kinetic energy: ½ mean_d f_d², whose integral is small for straight, slow paths.

    References:
        RNODE (Finlay et al. 2020, arXiv 2002.02798), eq. 5, as its public code scales it: by ½ and the mean over
        dimensions.
    """
    return 0.5 * dy.square().mean(1)


def jacobian(field: VectorField, t: Tensor, y: Tensor, dy: Tensor, noise: Tensor | None) -> Float[Tensor, " batch"]:
    """Rate of the Jacobian penalty, an unbiased estimate of ‖∂f/∂y‖_F² / dim: mean over probes of ‖εᵀ ∂f/∂y‖² / dim.

    A field with `push` gives ‖(∂f/∂y) ε‖², which has the same mean.

    References:
        RNODE (Finlay et al. 2020, arXiv 2002.02798), eq. 6; public code: divided by the dimension.
    """
    if noise is None or noise.shape[2] != y.shape[1]:
        raise ValueError("penalties: 'jacobian' needs an estimator with noise in data space: divergence='hutchinson'")
    return jacobian_products(field, t, y, noise)[1].square().mean((0, 2))


Rate = Callable[[VectorField, Tensor, Tensor, Tensor, Tensor | None], Tensor]

PENALTIES: dict[str, Rate] = {"kinetic": kinetic, "jacobian": jacobian}
"""Rates of the penalties that can be integrated along a flow."""


def draw_noise(
    divergence: str,
    kind: str,
    shape: tuple[int, int, int],
    given: Tensor | None,
    generator: Generator | None,
    like: Tensor,
) -> Tensor | None:
    """The noise of one solve: what was given, or fresh probes; None for exact estimators.

    Args:
        divergence: Name of the estimator.
        kind: Name of the noise.
        shape: Probes, batch, width.
        given: Noise from the caller.
        generator: Draws the probes.
        like: Gives dtype and device.

    Raises:
        ValueError: Noise was given to an exact estimator, or it has another shape or dtype, or the estimator needs more
            or fewer probes.
    """
    if divergence not in NEEDS_NOISE:
        if given is not None:
            raise ValueError(f"noise must be None for divergence {divergence!r}, which is exact")
        return None
    if given is None:
        return NOISES[kind](shape, generator).to(like)
    if given.ndim != 3 or not len(given) or given.shape[1:] != shape[1:] or given.dtype != like.dtype:
        raise ValueError(
            f"noise must be {like.dtype} of shape [probe, {shape[1]}, {shape[2]}] with at least one probe; got "
            f"{given.dtype} {tuple(given.shape)}"
        )
    check_probes("noise", divergence, len(given), shape[2])
    return given


def check_estimator(divergence: str, noise: str, n_probes: int, penalties: Sequence[str], dim: int) -> None:
    """Check the names and numbers that choose an estimator for data of dimension `dim`.

    Raises:
        ValueError: One is not known; the message names the argument.
    """
    check_name("divergence", divergence, DIVERGENCES)
    check_name("noise", noise, NOISES)
    for name in penalties:
        check_name("penalties", name, PENALTIES)
    check_positive_counts(n_probes=n_probes)
    check_probes("n_probes", divergence, n_probes, dim)
    if "jacobian" in penalties and divergence != "hutchinson":
        raise ValueError("penalties: 'jacobian' reuses the noise of divergence='hutchinson'")
