"""Explicit Runge-Kutta methods that torchdiffeq lacks: an order and a tableau each, taken by the compiled engine."""

from dataclasses import dataclass

from repro.ode.tableau import Tableau


@dataclass(frozen=True)
class RungeKutta:
    """A method by its coefficients.

    Attributes:
        order: p; the global error is O(dt^p).
        tableau: Adaptive if it has weights of an error estimate; it then needs `mid` too, and its last stage must be
            the first of the next step, since its slope at the step's end serves the dense output.
    """

    order: int
    tableau: Tableau

    def __post_init__(self) -> None:
        tableau = self.tableau
        if (tableau.error is None) != (tableau.mid is None):
            raise ValueError("an adaptive method needs weights for the error and for half a step, a fixed one neither")
        if self.is_adaptive and not tableau.is_fsal:
            raise ValueError("an adaptive method must end with the first stage of the next step")

    @property
    def is_adaptive(self) -> bool:
        """Whether steps follow the tolerances."""
        return self.tableau.error is not None


_TSIT5_WEIGHTS = (
    0.09646076681806523,
    0.01,
    0.4798896504144996,
    1.379008574103742,
    -3.290069515436081,
    2.324710524099774,
)

RUNGE_KUTTA: dict[str, RungeKutta] = {
    # Tsitouras 2011, doi 10.1016/j.camwa.2011.06.002: the default of Julia's solvers and of diffrax. `mid` is its
    # interpolant of order 4 at half a step.
    "tsit5": RungeKutta(
        order=5,
        tableau=Tableau(
            alpha=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
            beta=(
                (),
                (0.161,),
                (-0.008480655492356989, 0.335480655492357),
                (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
                (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
                (
                    5.86145544294642,
                    -12.92096931784711,
                    8.159367898576159,
                    -0.071584973281401,
                    -0.028269050394068383,
                ),
                _TSIT5_WEIGHTS,
            ),
            weights=(*_TSIT5_WEIGHTS, 0.0),
            mid=(
                0.10741235230096871,
                0.01135625,
                0.39560903056045305,
                -0.34475214352593553,
                1.3161853649581645,
                -1.0170608542936508,
                0.03125,
            ),
            error=(
                -0.00178001105222577714,
                -0.0008164344596567469,
                0.007880878010261995,
                -0.1447110071732629,
                0.5823571654525552,
                -0.45808210592918697,
                0.015151515151515152,
            ),
        ),
    ),
}
"""By name. Each is a method of the compiled engine and, with its settings there, an entry of `SOLVERS`."""
