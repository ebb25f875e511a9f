"""Guard a user's right-hand side: check what it returns, and keep apart its memory and the solver's."""

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from repro.ode.inference import count_writes
from repro.ode.transforms import is_transformed
from repro.types import Scalar, State, VectorField


class GuardedField:
    """Evaluate a field; refuse values that are no derivative, copy values whose memory is not the solver's alone.

    Args:
        field: Right-hand side.
    """

    def __init__(self, field: VectorField) -> None:
        self._field = field
        self._value: Tensor | None = None
        self._recorded: Tensor | None = None
        self.n_evaluations = 0
        self.fills_memory = False
        """Whether a value was written to in place: it may be written to again, which shows at the next evaluation."""
        self.side_effect: str | None = None
        """What an evaluation leaves behind, so that no graph may stand for it; None as far as is seen."""

    def __call__(self, t: Scalar, y: State) -> State:
        """Return dy/dt in y's dtype.

        Raises:
            TypeError: The field's value is no tensor, or of a dtype or on a device that does not fit y's.
            ValueError: The field's value has another shape than y, or the field writes into y.
        """
        if self._recorded is not None:  # every engine begins at (t[0], y0)
            value, self._recorded = self._recorded, None
            return value
        if torch.compiler.is_compiling():
            return self._field(t, y)
        # The state of the first evaluation may be the caller's tensor, which must stay as it is.
        given = y.clone() if self._value is None else y if y.requires_grad else y.view_as(y)
        n_writes = count_writes(given)
        value = self._field(t, given)
        check_derivative(value, y)
        if count_writes(given) != n_writes:
            raise ValueError(f"{_name(self._field)} writes into its state y; let it write into a copy, y.clone()")
        return self._separate(value if value.dtype == y.dtype else value.to(y.dtype), given)

    def record_first(self, t: Scalar, y: State) -> Tensor:
        """Evaluate at the start with a graph to what the field learns; the next call returns the same value."""
        # The graph is read and dropped: a caller's hooks of saved tensors are for what is kept.
        with torch.enable_grad(), saved_tensors_hooks(_keep, _keep):
            value = self(t, y)
        self._recorded = value.detach()
        return value

    def release(self) -> None:
        """Let go of the last value, which a solve that waits for its backward pass need not hold."""
        self._value = None

    def _separate(self, value: Tensor, given: Tensor) -> Tensor:
        """Copy a value whose memory the field may write to again, or that is a view of the state.

        A buffer that is filled at every evaluation has been written to in place; one that NumPy fills has not, but is
        returned again, which shows from the second evaluation on, so that the first value is always a copy.
        """
        last, self._value = self._value, value.detach()
        if is_transformed(value) or is_transformed(given):  # without memory of their own
            return value
        self.n_evaluations += 1
        self.fills_memory |= count_writes(value) > 0
        again = last is not None and _share_memory(value, last)
        if again:
            self.side_effect = "the field returns memory that it writes to again"
        return value.clone() if again or last is None or count_writes(value) or _share_memory(value, given) else value


def check_derivative(value: object, y: State) -> None:
    """Check that a field's value is a derivative of the state y.

    Raises:
        TypeError: It is no tensor, not floating, or on another device.
        ValueError: It has another shape than y.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"the field must return a tensor, the derivative of y; got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"the field must return floating numbers, as y's {y.dtype}; got {value.dtype}")
    if value.device != y.device:
        raise TypeError(f"the field must return its value on y's device, {y.device}; got {value.device}")
    if value.shape != y.shape:
        raise ValueError(f"the field must return y's shape, {tuple(y.shape)}; got {tuple(value.shape)}")


def _keep(tensor: Tensor) -> Tensor:
    return tensor


def _share_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _name(field: VectorField) -> str:
    return f"the field {getattr(field, '__name__', type(field).__name__)}"
