"""Traces of a field's Jacobian: exact, in closed form, by Hutchinson's estimator, through a bottleneck, by a sketch.

Every estimator gives f(t, y) and the divergence at once, differentiable as often as the field. Noise is an argument: it
is drawn once per solve, outside (FFJORD, Algorithm 1), so that the field stays a function of time and state.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from repro.flows.low_variance import hutchpp, xtrace
from repro.flows.products import (
    FieldAndTrace,
    Noise,
    evaluate,
    finish,
    jacobian_products,
    needed,
    offered,
    refuse_inference_mode,
    start_of_graph,
    tangents,
    unit_vectors,
    vjp,
)
from repro.types import VectorField

MEMORY_BOUND = 4 * 2**30
"""Bytes that one evaluation by `exact` may hold."""
LOOP_UP_TO = 32
"""Dimension up to which single vector-Jacobian products beat one batched forward-mode pass (CPU, 2 threads)."""


@runtime_checkable
class Divergence(Protocol):
    """Evaluate a field and the trace of its Jacobian."""

    def __call__(self, field: VectorField, t: Tensor, y: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return f(t, y), [batch dim], and its divergence, [batch]."""
        ...


def exact(
    field: VectorField, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"], noise: Noise | None = None
) -> FieldAndTrace:
    """Sum the diagonal of the Jacobian, for any field; costs about `dim` evaluations.

    A field with `push` gets the unit vectors as tangents; any other is differentiated by autograd, one row after
    another up to dimension 32, beyond that all columns at once in forward mode.

    Args:
        field: Right-hand side; its rows must not depend on one another.
        t: Time.
        y: State.
        noise: Not used.

    Raises:
        ValueError: Jacobians and tangents would take more than `MEMORY_BOUND` bytes; see `held_bytes`.
    """
    batch, dim = y.shape
    if (size := held_bytes(field, y)) > MEMORY_BOUND:
        raise ValueError(
            f"divergence 'exact' would hold {size / 2**30:.1f} GiB of Jacobians and tangents for batch {batch} and dim "
            f"{dim}, over its bound of {MEMORY_BOUND / 2**30:.0f} GiB; use a smaller batch, 'closed_form' or "
            "'hutchinson'"
        )
    if push := offered(field, "push"):
        dy, columns = push(t, y, unit_vectors(dim, y))
        return dy, columns.diagonal(dim1=0, dim2=2).sum(1)
    by_rows = dim <= LOOP_UP_TO and not torch.compiler.is_compiling()
    return _by_rows(field, t, y) if by_rows else _by_columns(field, t, y)


def held_bytes(field: VectorField, y: Float[Tensor, "batch dim"]) -> int:
    """Estimate what `exact` holds: each unit vector's image at the output and, twice, at the hidden layers.

    At every hidden layer a tangent is there before and after the activation's slope. All layers' are kept where a
    backward pass may follow, else one layer's at a time. Layers are read off the field's `width` and `depth`; a field
    that has none counts as one hidden layer of the state's width.
    """
    batch, dim = y.shape
    layers = getattr(field, "depth", 1) if torch.is_grad_enabled() else 1
    return batch * dim * (dim + 2 * layers * getattr(field, "width", dim)) * y.element_size()


def closed_form(
    field: VectorField, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"], noise: Noise | None = None
) -> FieldAndTrace:
    """Ask the field for its divergence: exact, at a price that the field knows.

    Where that method is not of what the field computes, as after a hook or a subclass's change, it is `exact`.

    Args:
        field: Right-hand side with a method `divergence`.
        t: Time.
        y: State.
        noise: Not used.

    Raises:
        TypeError: The field offers no closed form.
    """
    divergence = offered(field, "divergence")
    if divergence is not None:
        return divergence(t, y)
    if not hasattr(field, "divergence"):
        raise TypeError(
            f"divergence 'closed_form' needs a field with a method divergence(t, y); {_name(field)} has none"
        )
    return exact(field, t, y)


def hutchinson(
    field: VectorField, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"], noise: Noise | None
) -> FieldAndTrace:
    """Estimate the trace by the mean of εᵀ (∂f/∂y) ε over the probes; unbiased, one product a probe.

    Variance: `hutchinson_variance`.

    Args:
        field: Right-hand side; one with `push` needs no graph for the product.
        t: Time.
        y: State.
        noise: Probes of mean 0 and covariance I.

    Raises:
        ValueError: There is no noise.

    References:
        Hutchinson 1989; FFJORD (arXiv 1810.01367), eq. 7 and 8.
    """
    noise = needed(noise, "hutchinson")
    dy, products = jacobian_products(field, t, y, noise)
    return dy, (products * noise).sum(2).mean(0)


def bottleneck(
    field: VectorField,
    t: Float[Tensor, ""],
    y: Float[Tensor, "batch dim"],
    noise: Float[Tensor, "probe batch width"] | None,
) -> FieldAndTrace:
    """Estimate the trace with probes in the field's narrowest layer; unbiased, two products a probe.

    For f = g(h(y)), tr(∂g/∂h ∂h/∂y) = tr(∂h/∂y ∂g/∂h) = E[εᵀ (∂h/∂y)(∂g/∂h) ε]: fewer numbers of noise.

    Args:
        field: Right-hand side with `encode` and `decode`.
        t: Time.
        y: State.
        noise: Probes [probe batch bottleneck] of mean 0 and covariance I.

    Raises:
        TypeError: The field has no bottleneck.
        ValueError: There is no noise.

    References:
        FFJORD (arXiv 1810.01367), eq. 9.
    """
    noise = needed(noise, "bottleneck")
    encode, decode = offered(field, "encode"), offered(field, "decode")
    if encode is None or decode is None:
        raise TypeError(f"divergence 'bottleneck' needs a field with encode and decode; {_name(field)} has none")
    refuse_inference_mode()
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        y = start_of_graph(y, differentiable)
        h = encode(t, y)
        dy = decode(t, h)
    traces = []
    for probe in noise:
        row = vjp(h, y, probe, keep=True)
        traces.append((vjp(dy, h, row, keep=True) * probe).sum(1))
    return finish(dy, torch.stack(traces).mean(0), differentiable)


DIVERGENCES: dict[str, Divergence] = {
    "exact": exact,
    "closed_form": closed_form,
    "hutchinson": hutchinson,
    "bottleneck": bottleneck,
    "hutchpp": hutchpp,
    "xtrace": xtrace,
}
"""Ways to the trace of a field's Jacobian by name."""

EXACT = ("exact", "closed_form")
NEEDS_NOISE = tuple(name for name in DIVERGENCES if name not in EXACT)
"""Estimators; the others are exact."""


def gaussian(shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
    """Standard normal probes, drawn on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device if generator else None)


def rademacher(shape: tuple[int, ...], generator: Generator | None = None) -> Tensor:
    """Probes of independent signs: the least variance of all with independent entries."""
    device = generator.device if generator else None
    return torch.randint(0, 2, shape, generator=generator, device=device) * 2.0 - 1.0


NOISES: dict[str, Callable[[tuple[int, ...], Generator | None], Tensor]] = {
    "gaussian": gaussian,
    "rademacher": rademacher,
}
"""Distributions of the probes by name."""


def hutchinson_variance(matrix: Float[Tensor, "*batch dim dim"], noise: str) -> Float[Tensor, "*batch"]:
    """Variance of εᵀ A ε for one probe; n probes have an n-th of it.

    With S the symmetric part of A: 2 ‖S‖_F² for Gaussian noise, 2 (‖S‖_F² − Σ_i a_ii²) for Rademacher noise. For the
    bottleneck estimator A = (∂h/∂y)(∂g/∂h).

    Args:
        matrix: A.
        noise: A name in `NOISES`.
    """
    symmetric = (matrix + matrix.mT) / 2
    total = symmetric.square().sum((-2, -1))
    if noise == "rademacher":
        total = total - matrix.diagonal(dim1=-2, dim2=-1).square().sum(-1)
    return 2 * total


def _by_rows(field: VectorField, t: Tensor, y: Tensor) -> FieldAndTrace:
    dy, y, differentiable = evaluate(field, t, y)
    dim = y.shape[1]
    total = torch.zeros_like(y[:, 0])
    for i in range(dim):
        unit = torch.zeros_like(y)
        unit[:, i] = 1.0
        total = total + vjp(dy, y, unit, keep=differentiable or i < dim - 1)[:, i]
    return finish(dy, total, differentiable)


def _by_columns(field: VectorField, t: Tensor, y: Tensor) -> FieldAndTrace:
    dy, columns = tangents(field, t, y, unit_vectors(y.shape[1], y))
    return dy, columns.diagonal(dim1=0, dim2=2).sum(1)


def _name(field: VectorField) -> str:
    return type(field).__name__
