"""Measure whether a solve has converged: how well its start is reconstructed, and by how much the tolerance moves it.

Neither number suffices alone: a contracting flow loses its start though its end is right, and a pulse that the steps
jump over is reconstructed perfectly.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from repro.flows import CNF, Stack
from repro.ode import NonFiniteState, SolveError
from repro.results import Row

MAX_POINTS = 1_000
"""Points that a reconstruction takes at most; they share their steps."""


def reconstruction_rows(
    forward: Callable[[Tensor], Tensor], inverse: Callable[[Tensor], Tensor], x: Float[Tensor, "n *state"]
) -> Iterator[Row]:
    """Carry states through a solve and back; yield the largest relative error and its 99 % quantile.

    The error of row i is ‖xᵢ − x̃ᵢ‖ / (‖xᵢ‖ + rms(x)) with x̃ = inverse(forward(x)), Euclidean norms over all numbers
    of a row, and rms(x) = (meanᵢ ‖xᵢ‖²)^½, the root mean square of these norms over the rows: a row near the origin is
    measured by the size of the others. A solve that fails gives inf, and so does a row that is not finite.

    Args:
        forward: Solves from the start to the end at the solver and tolerance of the evaluation.
        inverse: Solves back.
        x: Starts, one a row; their number is in the unit.
    """
    try:
        with torch.no_grad():
            errors = _relative_errors(x, inverse(_check_finite(forward(x))))
    except SolveError:
        errors = x.new_full((len(x),), torch.inf, dtype=torch.float64)
    unit = f"relative, {len(x)} points"
    yield Row("reconstruction_error", float(errors.max()), unit)
    # "higher" takes one of the errors: between a finite one and inf there is nothing to interpolate
    yield Row("reconstruction_error_p99", float(errors.quantile(0.99, interpolation="higher")), unit)


def _relative_errors(x: Float[Tensor, "n *state"], reconstructed: Float[Tensor, "n *state"]) -> Float[Tensor, " n"]:
    rows, difference = x.double().flatten(1), (x.double() - reconstructed.double()).flatten(1).norm(dim=1)
    norms = rows.norm(dim=1)
    errors = difference / (norms + norms.square().mean().sqrt())
    return torch.where(difference == 0, 0.0, torch.where(errors.isfinite(), errors, torch.inf))  # 0 / 0 is no error


def _check_finite(y: Tensor) -> Tensor:
    if not torch.isfinite(y).all():
        raise NonFiniteState("the end of the solve is not finite")
    return y


def carry_to_base(flow: CNF | Stack, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Carry data to the base without density.

    Raises:
        SolveError: A solve failed or ended in a state that is not finite.
    """
    for cnf in _cnfs(flow):
        x = _check_finite(cnf.trajectory(x, [0.0, cnf.t1])[-1])
    return x


def carry_to_data(flow: CNF | Stack, z: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Carry base points to data without density.

    Raises:
        SolveError: A solve failed or ended in a state that is not finite.
    """
    for cnf in reversed(_cnfs(flow)):
        z = _check_finite(cnf.inverse(z))
    return z


def _cnfs(flow: CNF | Stack) -> list[CNF]:
    return flow.cnfs if isinstance(flow, Stack) else [flow]


def flow_reconstruction_rows(flow: CNF | Stack, x: Float[Tensor, "n dim"]) -> Iterator[Row]:
    """Yield the rows of `reconstruction_rows` for the first `MAX_POINTS` points, carried to the base and back."""
    yield from reconstruction_rows(
        lambda points: carry_to_base(flow, points), lambda z: carry_to_data(flow, z), x[:MAX_POINTS]
    )


def drift_row(value: float, tight_value: Callable[[], float], unit: str) -> Row:
    """Subtract a metric from the same metric at a tenth of the evaluation tolerance.

    Args:
        value: The metric.
        tight_value: Computes it at the tighter tolerance; where the solve fails, the drift is inf, as where the
            difference is not finite.
        unit: Of the metric.
    """
    try:
        drift = tight_value() - value
    except SolveError:
        drift = torch.inf
    return Row("value_drift", drift if abs(drift) < torch.inf else torch.inf, unit)
