"""Errors of a solve: what went wrong, at which time, after which steps.

The names say what happened; "Error" behind each would say nothing more (hence the N818 exceptions).
"""

from collections.abc import Sequence
from typing import NamedTuple


class StepRecord(NamedTuple):
    """One attempted step: where it started, its signed size, whether it was kept."""

    t: float
    dt: float
    accepted: bool


class SolveError(RuntimeError):
    """A solve that stopped before its last output time.

    Attributes:
        status: What a results table reports: "diverged" or "budget".
        history: The last attempted steps, oldest first (see `repro.ode.meter.HISTORY_LENGTH`).
            Empty where the engine does not report steps (SciPy).
        nfe: Evaluations of the field that the failed pass had spent.
    """

    status = "diverged"

    def __init__(self, message: str, history: Sequence[StepRecord] = (), nfe: int = 0) -> None:
        super().__init__(message)
        self.history = list(history)
        self.nfe = nfe


class StepSizeUnderflow(SolveError):
    """The step size fell below the resolution of time: the problem is stiff, discontinuous or singular."""


class NonFiniteState(SolveError):
    """The state or its derivative is infinite or not a number."""


class MaxNFEExceeded(SolveError):
    """The pass reached `Solver.max_nfe`."""

    status = "budget"


class BackwardDrift(SolveError):
    """The adjoint method's backward solve left the forward solution by more than `Solver.max_backward_drift`."""


class BackwardDriftWarning(UserWarning):
    """The adjoint method's backward solve left the forward solution by far more than its tolerances."""


class UnsupportedCombination(ValueError):
    """This solver and this gradient method do not go together; `repro.ode.supported` says why."""
