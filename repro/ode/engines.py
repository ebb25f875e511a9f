"""The programs that advance the state, behind one signature."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from repro.ode import compiled, scipy_backend, torchdiffeq_backend
from repro.ode.meter import Meter
from repro.ode.solvers import Solver
from repro.types import Norm, VectorField


@runtime_checkable
class Engine(Protocol):
    """Solve an initial value problem: `y0` at t[0], outputs [time, *state]."""

    def __call__(
        self, field: VectorField, y0: Tensor, t: Tensor, solver: Solver, *, meter: Meter, norm: Norm | None = None
    ) -> Tensor:
        """Return the state at every output time."""
        ...


ENGINES: dict[str, Engine] = {
    "torchdiffeq": torchdiffeq_backend.integrate,
    "scipy": scipy_backend.integrate,
    "compiled": compiled.integrate,
}


def integrate(
    field: VectorField, y0: Tensor, t: Tensor, solver: Solver, *, meter: Meter, norm: Norm | None = None
) -> Tensor:
    """Solve with the engine that `solver` names."""
    return ENGINES[solver.engine](field, y0, t, solver, meter=meter, norm=norm)
