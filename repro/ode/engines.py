"""The programs that advance the state, behind one signature."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from repro.ode import compiled, scipy_backend, torchdiffeq_backend
from repro.ode.meter import Meter
from repro.ode.problem import InitialValueProblem
from repro.ode.solvers import Solver
from repro.types import Trajectory


@runtime_checkable
class Engine(Protocol):
    """Solve an initial value problem; outputs [time, *state]."""

    def __call__(self, problem: InitialValueProblem, solver: Solver, *, meter: Meter) -> Tensor:
        """Return the state at every output time."""
        ...


ENGINES: dict[str, Engine] = {
    "torchdiffeq": torchdiffeq_backend.integrate,
    "scipy": scipy_backend.integrate,
    "compiled": compiled.integrate,
}


def integrate(problem: InitialValueProblem, solver: Solver, *, meter: Meter) -> Trajectory:
    """Solve with the engine that `solver` names.

    Raises:
        SolveError: The solve failed.
    """
    return ENGINES[solver.engine](problem, solver, meter=meter)
