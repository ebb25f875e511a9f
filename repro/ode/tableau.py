"""Coefficients of explicit Runge-Kutta methods."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tableau:
    """Butcher tableau of an explicit method with s stages.

    k_i = f(t + alpha_i·dt, y + dt·Σ_{j<i} beta_ij k_j),   y_next = y + dt·Σ_i weights_i k_i.

    Attributes:
        alpha: Times of the stages, in steps; s numbers, the first 0.
        beta: Row i holds i coefficients.
        weights: Of the result; s numbers.
        mid: Weights of the state at half a step, for dense output; None for fixed-step methods.
        error: Weights of the error estimate; None for fixed-step methods.
    """

    alpha: tuple[float, ...]
    beta: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    mid: tuple[float, ...] | None = None
    error: tuple[float, ...] | None = None

    @property
    def is_fsal(self) -> bool:
        """Whether the last stage is the first of the next step: f(t + dt, y_next)."""
        return self.weights[-1] == 0 and self.weights[:-1] == self.beta[-1]


FIXED_TABLEAUS = {
    "euler": Tableau((0.0,), ((),), (1.0,)),
    "midpoint": Tableau((0.0, 1 / 2), ((), (1 / 2,)), (0.0, 1.0)),
    "heun2": Tableau((0.0, 1.0), ((), (1.0,)), (1 / 2, 1 / 2)),
    "heun3": Tableau((0.0, 1 / 3, 2 / 3), ((), (1 / 3,), (0.0, 2 / 3)), (1 / 4, 0.0, 3 / 4)),
    # Kutta's 3/8 rule, not the classical method: it is what torchdiffeq calls rk4.
    "rk4": Tableau(
        (0.0, 1 / 3, 2 / 3, 1.0),
        ((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
        (1 / 8, 3 / 8, 3 / 8, 1 / 8),
    ),
}
"""The fixed-step methods, with torchdiffeq's coefficients."""

EVALUATION = Tableau((0.0,), ((),), (0.0,))
"""A step of no size, whose only stage is the field's value."""
