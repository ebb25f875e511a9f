"""Who takes a compiled engine's steps: the field's own kernel, a traced one, or torch's operations one by one."""

import logging

import torch
from torch import Tensor, nn

from repro.ode.kernels import StageTimes, StepResult, Steps, TracedKernel
from repro.ode.kernels.plain import autocast, changed, overridden
from repro.ode.meter import Meter
from repro.ode.tableau import Tableau
from repro.types import State, VectorField

_log = logging.getLogger(__name__)


def kernel_of(
    field: VectorField, y0: State, parameters: tuple[Tensor, ...] = (), *, native: bool = True
) -> Steps | None:
    """Choose who takes steps of this field; None is nobody, and why is logged once per reason.

    Args:
        field: Its own kernel comes first, then a traced one.
        y0: A state.
        parameters: Tensors whose gradients a traced kernel adds up.
        native: Whether the field's own kernel may be asked.
    """
    kernel = native_kernel_of(field, y0) if native else "autograd does not go through native code"
    if not isinstance(kernel, str):
        return kernel
    untraced = TracedKernel.why_not(field, y0)
    return TracedKernel(field, parameters) if untraced is None else _eager(type(field).__name__, kernel, untraced)


def native_kernel_of(field: VectorField, y0: State) -> Steps | str:
    """The field's own kernel for states like y0, or why there is none.

    A field that is not what its class says, by a subclass, a hook or a replaced part, has none.
    """
    offer = getattr(field, "step_kernel", None)
    if offer is None:
        return "it offers no kernel"
    reason = overridden(field) or autocast(y0.device) or (changed(field) if isinstance(field, nn.Module) else None)
    return reason or offer(y0)


_SAID: set[str] = set()


def _eager(*reasons: str) -> None:
    reason = "; ".join(reasons)
    if reason not in _SAID:
        _SAID.add(reason)
        _log.info("the compiled engine steps eagerly: %s", reason)


class _Counted:
    """A kernel whose evaluations are counted; nothing of a step is computed beyond the budget."""

    def __init__(self, kernel: Steps, meter: Meter) -> None:
        self._kernel, self._meter = kernel, meter

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
        self._meter.spend(len(tableau.alpha) - (f is not None))
        return self._kernel.step(tableau, at, y, f, tolerances, keep=keep)

    def evaluate(self, t: float, y: Tensor) -> Tensor:
        self._meter.spend(1)
        return self._kernel.evaluate(t, y)


class _Eager:
    """Steps of any field by torch's own operations."""

    def __init__(self, field: VectorField, meter: Meter) -> None:
        self._field = meter.watch(field)

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
        k = [self.evaluate(at.start, y) if f is None else f]
        for time, row in zip(at.of(tableau)[1:], tableau.beta[1:], strict=True):
            k.append(self.evaluate(time, _combined(y, at.size, row, k)))
        end = _combined(y, at.size, tableau.weights, k)
        if tolerances is None or tableau.mid is None or tableau.error is None:
            return StepResult(end, k[-1], None, None)
        rtol, atol = tolerances
        with torch.no_grad():
            error = _combined(None, at.size, tableau.error, k) / (torch.maximum(y.abs(), end.abs()) * rtol + atol)
        return StepResult(end, k[-1], _combined(y, at.size, tableau.mid, k), error)

    def evaluate(self, t: float, y: Tensor) -> Tensor:
        return self._field(torch.tensor(t, dtype=y.dtype, device=y.device), y)


def _combined(y: Tensor | None, size: float, weights: tuple[float, ...], k: list[Tensor]) -> Tensor:
    total = y
    for weight, slope in zip(weights, k, strict=False):
        if weight != 0:
            total = slope * (size * weight) if total is None else torch.add(total, slope, alpha=size * weight)
    return torch.zeros_like(k[0]) if total is None else total


Stepper = _Counted | _Eager


def stepper_of(field: VectorField, y0: State, meter: Meter, *, native: bool = True) -> Stepper:
    """Whoever takes the steps of this field, by its own kernel only if `native`."""
    kernel = kernel_of(field, y0, native=native)
    return _Eager(field, meter) if kernel is None else _Counted(kernel, meter)
