"""The stages of one explicit Runge-Kutta step by torch's operations, and their combinations."""

from collections.abc import Sequence

from torch import Tensor

from repro.ode.tableau import Tableau
from repro.types import Scalar, State, VectorField


def stages(
    field: VectorField,
    tableau: Tableau,
    n_stages: int,
    y: State,
    f: State | None,
    start: Scalar,
    size: Scalar,
    end: Scalar,
) -> list[State]:
    """Evaluate the first stages of a step.

    Args:
        field: Right-hand side.
        tableau: Coefficients.
        n_stages: How many, at least one.
        y: State at the start.
        f: First stage; None evaluates f(start, y).
        start: t_n.
        size: dt_n.
        end: t_n + dt_n; given, so that rounding is the solver's.

    Returns:
        The stages' values.
    """
    k = [field(start.to(y.dtype), y) if f is None else f]
    for alpha, row in zip(tableau.alpha[1:n_stages], tableau.beta[1:n_stages], strict=True):
        time = end if alpha == 1 else start + alpha * size
        k.append(field(time.to(y.dtype), combined(y, size.to(y.dtype), row, k)))
    return k


def combined(y: State, size: Scalar, weights: Sequence[float], k: Sequence[Tensor]) -> State:
    """Return y + size·Σ weights_i k_i."""
    return y + size * slope(weights, k)


def slope(weights: Sequence[float], k: Sequence[Tensor]) -> Tensor:
    """Return Σ weights_i k_i; a stage of weight zero need not exist, and costs no graph."""
    return sum(weight * k[i] for i, weight in enumerate(weights) if weight != 0)  # pyright: ignore[reportReturnType]
