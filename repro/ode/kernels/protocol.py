"""What the compiled engine asks of whoever takes its steps."""

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from repro.ode.tableau import EVALUATION, Tableau


class StageTimes(NamedTuple):
    """Where a step lies in time, as Python numbers.

    Attributes:
        start: t_n.
        size: dt_n, negative where time decreases.
        end: t_n + dt_n; given, so that rounding is the solver's.
    """

    start: float
    size: float
    end: float

    def of(self, tableau: Tableau) -> list[float]:
        """Times of the stages."""
        return [self.end if alpha == 1 else self.start + alpha * self.size for alpha in tableau.alpha]


class Kept(NamedTuple):
    """What a step leaves for its gradient, so that no stage is evaluated again.

    Attributes:
        numbers: One row of numbers for each stage that was evaluated.
        parts: Into how many parts the batch was split; the numbers' order depends on it.
    """

    numbers: Tensor | list[Tensor]
    parts: int


class StepResult(NamedTuple):
    """A step's results, each in the state's shape.

    The middle and the error hold until the kernel's next step, the last stage until the one after it: they may use the
    same memory.

    Attributes:
        end: State at the end.
        last: Value of the last stage: for an FSAL method the field at the end.
        mid: State at half a step; None where the method has no dense output.
        error: Error estimate in units of atol + rtol·max(|y|, |end|); None for fixed-step methods.
        kept: For the gradient, if the kernel was asked to keep it and can.
    """

    end: Tensor
    last: Tensor
    mid: Tensor | None
    error: Tensor | None
    kept: Kept | None = None


class Cotangents(NamedTuple):
    """Cotangents of a step's end, middle, first and last stage; None is zero."""

    end: Tensor
    mid: Tensor | None = None
    first: Tensor | None = None
    last: Tensor | None = None


@runtime_checkable
class HoldsNoise(Protocol):
    """A field with a tensor of its own for every solve, as the probes of a trace.

    As an argument of a recorded step it is copied into the graph's memory; as an attribute it would make another graph.
    """

    held: Tensor | None

    def with_held(self, t: Tensor, y: Tensor, held: Tensor) -> Tensor:
        """The field with another such tensor."""
        ...


@runtime_checkable
class Steps(Protocol):
    """Takes Runge-Kutta steps of one field."""

    def step(
        self,
        tableau: Tableau,
        at: StageTimes,
        y: Tensor,
        f: Tensor | None,
        tolerances: tuple[float, float] | None,
        *,
        keep: bool = False,
    ) -> StepResult:
        """Take a step from y; `f` is the first stage where it is known. `tolerances` are rtol and atol."""
        ...

    def evaluate(self, t: float, y: Tensor) -> Tensor:
        """The field at one time, as the only stage of a step."""
        return self.step(EVALUATION, StageTimes(t, 0.0, t), y, None, None).last


@runtime_checkable
class StepKernel(Steps, Protocol):
    """Takes Runge-Kutta steps of one field, and pulls cotangents back through them."""

    def pull(
        self,
        tableau: Tableau,
        at: StageTimes,
        n_stages: int,
        y: Tensor,
        cotangents: Cotangents,
        kept: Kept | None = None,
    ) -> Tensor:
        """Return the cotangent of y, and add up the parameters'.

        The step's first `n_stages` stages are evaluated again, unless `kept` holds a row for each.
        """
        ...

    def gradients(self, parameters: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """What `pull` added up, for each of the parameters."""
        ...


@runtime_checkable
class OffersAdjoint(Protocol):
    """A kernel that takes the steps of the adjoint method's system as well."""

    def adjoint_kernel(self, parameters: tuple[Tensor, ...], n_rows: int, *, controlled: bool) -> Steps | str:
        """Steps of y, a and the parameters' gradients on one flat vector, or why there are none.

        Args:
            parameters: Tensors that get gradients.
            n_rows: Rows of y.
            controlled: Whether the error of the gradients is estimated.
        """
        ...
