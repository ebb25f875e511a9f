"""Solve an initial value problem and differentiate through it."""

from repro.ode.errors import (
    BackwardDrift,
    BackwardDriftWarning,
    MaxNFEExceeded,
    NonFiniteState,
    SolveError,
    StepRecord,
    StepSizeUnderflow,
    UnsupportedCombination,
)
from repro.ode.gradients import GRADIENTS, supported
from repro.ode.meter import Stats
from repro.ode.norms import rms
from repro.ode.problems import PROBLEMS, Problem
from repro.ode.solve import Solution, solve
from repro.ode.solvers import SOLVERS, Solver

__all__ = [
    "GRADIENTS",
    "PROBLEMS",
    "SOLVERS",
    "BackwardDrift",
    "BackwardDriftWarning",
    "MaxNFEExceeded",
    "NonFiniteState",
    "Problem",
    "Solution",
    "SolveError",
    "Solver",
    "Stats",
    "StepRecord",
    "StepSizeUnderflow",
    "UnsupportedCombination",
    "rms",
    "solve",
    "supported",
]
