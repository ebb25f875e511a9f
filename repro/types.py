"""Name the tensor shapes and the callable that every layer shares."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Scalar = Float[Tensor, ""]
State = Float[Tensor, "*state"]
Times = Float[Tensor, " time"]
Trajectory = Float[Tensor, "time *state"]


@runtime_checkable
class VectorField(Protocol):
    """Right-hand side of dy/dt = f(t, y): time first, the state's shape in and out."""

    def __call__(self, t: Tensor, y: Tensor, /) -> Tensor:
        """Return dy/dt at time `t` (a 0-d tensor) and state `y`."""
        ...
