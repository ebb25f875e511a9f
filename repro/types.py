"""Name the tensor shapes and the callable that every layer shares."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Scalar = Float[Tensor, ""]
State = Float[Tensor, "*state"]
Times = Float[Tensor, " time"]
Trajectory = Float[Tensor, "time *state"]

Norm = Callable[[Tensor], Tensor]
"""Size of an error in units of the tolerances: the state's shape in, a 0-d tensor out; a step is kept at ≤ 1."""


@runtime_checkable
class VectorField(Protocol):
    """Right-hand side of dy/dt = f(t, y): time first, the state's shape in and out."""

    def __call__(self, t: Tensor, y: Tensor, /) -> Tensor:
        """Return dy/dt at time `t` (a 0-d tensor) and state `y`."""
        ...


@runtime_checkable
class ClosedFormField(VectorField, Protocol):
    """A field that knows the trace of its Jacobian."""

    def divergence(self, t: Tensor, y: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return f(t, y), [batch dim], and tr ∂f/∂y, [batch]."""
        ...


@runtime_checkable
class TangentField(VectorField, Protocol):
    """A field that pushes tangents through itself, without a graph for them."""

    def push(self, t: Tensor, y: Tensor, v: Tensor, /) -> tuple[Tensor, Tensor]:
        """Return f(t, y), [batch dim], and (∂f/∂y) v for v [probe batch dim]."""
        ...


@runtime_checkable
class BottleneckField(VectorField, Protocol):
    """A field f(t, y) = decode(t, encode(t, y)) with few numbers in between (FFJORD, Section 3.1.2)."""

    @property
    def bottleneck(self) -> int:
        """Numbers in between, per row."""
        ...

    def encode(self, t: Tensor, y: Tensor, /) -> Tensor:
        """[batch dim] -> [batch bottleneck]."""
        ...

    def decode(self, t: Tensor, h: Tensor, /) -> Tensor:
        """[batch bottleneck] -> [batch dim]."""
        ...
