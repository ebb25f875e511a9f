"""How a flow of a table is judged: exact traces in bounded memory, what the tolerance moves, what the probes add."""

from collections.abc import Callable, Iterator
from statistics import fmean

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from repro.convergence import drift_row, flow_reconstruction_rows
from repro.data import Table
from repro.experiment import Context
from repro.flows import Stack
from repro.likelihood import judged
from repro.metrics import standard_error
from repro.per_point import save_log_density
from repro.results import Row
from repro.training import seeded_streams

CHUNK = 2_000
"""Most rows evaluated at once; they share their steps."""
CHUNK_BYTES = 2**26
"""Most that one layer's tangents may take, dim · width numbers a row: bounds the memory of the exact trace."""


def rows_at_once(flow: Stack) -> int:
    """How many rows share a solve, and its steps."""
    width = max(getattr(cnf.field, "width", flow.dim) for cnf in flow.cnfs)
    return max(1, min(CHUNK, CHUNK_BYTES // (4 * flow.dim * width)))


@torch.no_grad()
def log_probs(
    flow: Stack, x: Table, generator: Generator | None = None, between: Callable[[], None] | None = None
) -> tuple[Float[Tensor, " n"], list[int]]:
    """Log-densities of many rows in float64, and the evaluations that each chunk took.

    Args:
        flow: any.
        x: rows, on any device.
        generator: draws the probes, for an estimator that needs some.
        between: called before each chunk; it may raise to end a long evaluation.
    """
    like = next(flow.parameters())
    found, spent = [], []
    for chunk in x.split(rows_at_once(flow)):
        if between:
            between()
        found.append(flow.log_prob(chunk.to(like), generator=generator).double().cpu())
        spent.append(flow.stats.nfe_forward)
    return torch.cat(found), spent


def nll(flow: Stack, x: Table, seed: int, between: Callable[[], None] | None = None) -> float:
    """Mean negative log-likelihood in nats; the probes are the same at every call, so that only the weights count."""
    (stream,) = seeded_streams(seed, "validation noise").values()
    return -float(log_probs(flow, x, stream, between)[0].mean())


def test_rows(flow: Stack, x: Table, context: Context) -> Iterator[Row]:
    """Measure the test NLL by the exact trace, its standard error over the test rows, and what a solve costs."""
    log_density, spent = log_probs(flow, x, between=context.check)
    save_log_density(context.artefacts, log_density)
    yield Row("test_rows", len(x), "rows")
    yield Row("test_nll", -float(log_density.mean()), "nats")
    yield Row("test_nll_error", standard_error(log_density), "nats")
    yield Row("nfe_test", fmean(spent), "evaluations")


def tolerance_rows(flow: Stack, x: Table) -> Iterator[Row]:
    """Measure the likelihood of some test rows at the tolerance of the test, and how well the rows are reconstructed.

    Args:
        flow: as it is judged.
        x: some test rows.
    """
    yield Row("tolerance_nll", -float(log_probs(flow, x)[0].mean()), f"nats, first {len(x)} test rows")
    yield from flow_reconstruction_rows(flow, x.to(next(flow.parameters())))


def tight_rows(flow: Stack, x: Table, value: float) -> Iterator[Row]:
    """Measure the likelihood of the same rows in float64 at a tenth of the tolerance, and its drift.

    Args:
        flow: as it is judged; it comes back in float32.
        x: the rows of `tolerance_rows`.
        value: their `tolerance_nll`.
    """
    precise = judged(flow, "closed_form", flow.cnfs[0].solver.tighten()).double()
    tight = -float(log_probs(precise, x)[0].mean())
    flow.float()
    yield Row("tolerance_nll_tight", tight, "nats, the same rows, float64, a tenth of the tolerance")
    yield drift_row(value, lambda: tight, "nats")


def probe_rows(flow: Stack, x: Table, draws: int, n_validation: int, seed: int) -> Iterator[Row]:
    """Variance that Hutchinson's probes bring into the mean log-likelihood of the whole validation set.

    Probes of different rows are independent, so that the mean of the rows' own variances, divided by the number of
    validation rows, is an unbiased estimate.

    Args:
        flow: with Hutchinson's estimator.
        x: some validation rows.
        draws: of each row, at least 2.
        n_validation: rows of the whole validation set.
        seed: of the probes.
    """
    (stream,) = seeded_streams(seed, "probe variance").values()
    found = torch.stack([log_probs(flow, x, stream)[0] for _ in range(draws)])
    yield Row("probe_deviation", float(found.var(0).mean()) ** 0.5, "nats, of one row's estimate")
    yield Row("probe_variance", float(found.var(0).mean()) / n_validation, "nats², of the validation mean")


def gaussian_nll(train: Table, test: Table) -> float:
    """Test NLL in nats of a full-covariance Gaussian fitted to the training rows: checks the way from file to splits.

    References:
        Papamakarios et al. 2017 (arXiv 1705.07057), Table 1, row "Gaussian".
    """
    x = train.double()
    gaussian = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov())
    return -float(gaussian.log_prob(test.double()).mean())
