"""Traces by a sketch of the Jacobian's range: Hutch++ and XTrace, whose variance falls with the spectrum.

Both split tr A = tr(P A) + tr((I − P) A (I − P)) by the projector P on the range of A S, for probes S. The first part
is computed, the second estimated with probes that P does not depend on: unbiased for every fixed P. Every product is
A v, for any field (`tangents`), since A v and vᵀ A span different ranges: with εᵀ A ε the side is free, here it is not,
and it must be the same in the compiled and in the eager part of a solve.

**Gradients hold P fixed.** The value depends on P, but P is a constant to autograd. What is left is linear in A, so the
gradient is the same estimator applied to the derivative of A: an unbiased estimate of the gradient of the trace, of any
order, and over fresh noise that of a log-likelihood too, but not the gradient of the realised estimate. The difference
has mean zero. The realised one is not to be had safely: the estimate is homogeneous in A without being linear, so it
has a kink wherever A S loses rank, and next to that P moves by 1 over the least singular value. Fields get there: a
last layer that starts at zero, a perceptron narrower than the sketch. All gradient methods of a solve agree: all
differentiate this field, and none the sizes of the steps (`Augmented.norm`). With noise held over updates, a line
search would see values and slopes that differ.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from repro.flows.products import FieldAndTrace, Noise, needed, tangents
from repro.types import VectorField

FEWEST_PROBES = {"hutchpp": 3, "xtrace": 2}
"""With fewer there is no sketch beside which to estimate a rest."""

Columns = Float[Tensor, "batch dim probe"]
Square = Float[Tensor, "batch probe probe"]


def hutchpp(
    field: VectorField, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"], noise: Noise | None
) -> FieldAndTrace:
    """Compute the trace on a sketched range and estimate the rest: tr(Qᵀ A Q) + mean of gᵀ (I − QQᵀ) A (I − QQᵀ) g.

    Of m probes the first k = ⌊m / 3⌋ are the sketch, Q = orth(A S), and the last m − 2k are the g. The k between are
    not read: theirs are the products with Q, so that m probes cost m products whatever m is (less where k is cut to
    `dim`) in two evaluations of the field, the first without a graph. Exact where A has at most rank k, as it always
    has with 3 dim probes. Where A S loses rank, Q is filled up to k columns, which S alone decides: still unbiased.

    Args:
        field: Right-hand side; one with `push`, or one that forward mode can differentiate.
        t: Time.
        y: State.
        noise: At least 3 probes of mean 0 and covariance I.

    Raises:
        ValueError: There is no noise, or too little.

    References:
        Meyer, Musco, Musco, Woodruff 2021 (arXiv 2010.09649), Algorithm 1. Deviations: m need not be a multiple of 3;
        Gaussian probes may be used too; gradients hold Q fixed.
    """
    noise = needed(noise, "hutchpp")
    check_probes("noise", "hutchpp", len(noise), y.shape[1])
    third = len(noise) // 3
    with torch.no_grad():
        sketch = tangents(field, t, y, noise[: min(third, y.shape[1])])[1]
    basis = torch.linalg.qr(_columns(sketch.detach()))[0]  # detached: forward mode does not heed no_grad
    rest = _columns(noise[2 * third :])
    vectors = torch.cat([_probes(basis), _probes(rest - basis @ (basis.mT @ rest))])
    dy, products = tangents(field, t, y, vectors)
    computed, estimated = (vectors * products).sum(2).split([basis.shape[2], rest.shape[2]])
    return dy, computed.sum(0) + estimated.mean(0)


def xtrace(
    field: VectorField, t: Float[Tensor, ""], y: Float[Tensor, "batch dim"], noise: Noise | None
) -> FieldAndTrace:
    """Average over the probes ω_i: sketch the range with the others, and estimate the rest with ω_i.

    tr(P_i A) + ω_iᵀ (I − P_i) A (I − P_i) ω_i, P_i the projector on the range of A times the other probes: unbiased,
    and the same for any order of the probes. Two products a probe, A ω_i and A q_i for an orthonormal basis q, in two
    evaluations of the field. Exact where A has a lower rank than there are probes.

    Args:
        field: Right-hand side; one with `push`, or one that forward mode can differentiate.
        t: Time.
        y: State.
        noise: From 2 to `dim` probes of mean 0 and covariance I.

    Raises:
        ValueError: There is no noise, too little or too much.

    References:
        Epperly, Tropp, Webber 2024 (arXiv 2301.07825), Section 2.3. Deviations: probes are taken as they come, not
        scaled to a sphere and rescaled by what the sketch leaves of them; probes whose images are linearly dependent
        (signs repeat, A may have a low rank) are told apart by singular values; gradients hold the P_i fixed.
    """
    noise = needed(noise, "xtrace")
    check_probes("noise", "xtrace", len(noise), y.shape[1])
    dy, images = tangents(field, t, y, noise)
    basis, kept, dropped = _leave_one_out(_columns(images.detach()))
    turned = _columns(tangents(field, t, y, _probes(basis))[1])  # A Q
    omega, inner = _columns(noise), basis.mT @ turned
    inside = basis.mT @ omega
    inside = kept * inside - dropped * (dropped * inside).sum(1, keepdim=True)  # P_i ω_i by the basis
    whole = (kept * inner.diagonal(dim1=1, dim2=2).unsqueeze(2)).sum(1)
    computed = whole - (dropped * (inner @ dropped)).sum(1)
    estimated = ((omega - basis @ inside) * (_columns(images) - turned @ inside)).sum(1)
    return dy, (computed + estimated).mean(1)


def check_probes(argument: str, divergence: str, n: int, dim: int) -> None:
    """Check that an estimator can work with so many probes; those of other modules take any number.

    Raises:
        ValueError: There are too few, or more than XTrace has directions for; the message names the argument.
    """
    if n < (fewest := FEWEST_PROBES.get(divergence, 1)):
        raise ValueError(f"{argument}: divergence {divergence!r} needs at least {fewest} probes; got {n}")
    if divergence == "xtrace" and n > dim:
        raise ValueError(
            f"{argument}: divergence 'xtrace' takes at most as many probes as dimensions, {dim}, since 'exact' costs "
            f"half of what they would; got {n}"
        )


@torch.no_grad()
def _leave_one_out(images: Columns) -> tuple[Columns, Float[Tensor, "batch probe 1"], Square]:
    """Give Q, kept and s: P_i = Q (diag(kept) − s_i s_iᵀ) Qᵀ projects on the range of all columns but the i-th.

    By the pseudoinverse, where the paper divides by R of Q R: from Y = Q Σ Vᵀ, s_i is the direction of Σ⁺ Vᵀ e_i if the
    i-th column does not depend on the others, which shows in a row of V of length 1, and else zero: it adds no range.
    A projector that filled up lost ranks would depend on the probe that is left out, and the estimate would be biased.
    """
    q, r = torch.linalg.qr(images)
    # a state that is not finite must reach the solver, which names it, and the images carry it there
    left, values, right = torch.linalg.svd(torch.nan_to_num(r, 0.0, 0.0, 0.0))
    tolerance = images.shape[1] * torch.finfo(images.dtype).eps
    kept = values > tolerance * values[:, :1]
    weights = torch.where(kept, values[:, :1] / values, 0.0).unsqueeze(2)  # up to a scale, 1 / Σ
    kept = kept.to(images.dtype).unsqueeze(2)
    adds_range = (kept * right.square()).sum(1, keepdim=True) > 1 - 10 * tolerance
    return q @ left, kept, normalize(weights * right, dim=1) * adds_range


def _columns(vectors: Noise) -> Columns:
    """One matrix a row of the batch, with the probes as columns."""
    return vectors.permute(1, 2, 0)


def _probes(columns: Columns) -> Noise:
    return columns.permute(2, 0, 1)
