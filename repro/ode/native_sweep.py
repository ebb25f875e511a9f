"""Go back through the steps of a solve by the field's kernel: one native call a step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from repro.ode.kernels import Cotangents, StageTimes, StepKernel
from repro.ode.meter import Meter
from repro.ode.replay import Grid, dense_weights
from repro.ode.torchdiffeq_backend import runge_kutta_tableau
from repro.types import State, Times, Trajectory


class NativeSweep:
    """Replay the steps, last one first, and add up the gradients.

    Args:
        kernel: Takes the steps.
        method: Name of the Runge-Kutta method.
        meter: Counts the replayed evaluations.
        t: Output times.
        parameters: Tensors that get gradients.
    """

    def __init__(self, kernel: StepKernel, method: str, meter: Meter, t: Times, parameters: Sequence[Tensor]) -> None:
        self._kernel, self._tableau, self._meter = kernel, runge_kutta_tableau(method), meter
        self._t, self._parameters = t.detach(), tuple(parameters)
        self.grad_t = None
        self.grad_parameters: Sequence[Tensor | None] = [None] * len(self._parameters)

    def run(self, grid: Grid, states: list[Tensor], derivatives: list[Tensor], grad_y: Trajectory) -> State:
        """Return the gradient of y0; `derivatives` are of methods that the compiled engine does not have."""
        assert not derivatives
        grad = torch.zeros_like(grad_y[0])
        for n in reversed(range(len(grid))):
            grad = self._step(grid.times(n, self._t), grid.outputs(n), states[n], grad, grad_y)
        self.grad_parameters = self._kernel.gradients(self._parameters)
        return grad + grad_y[0]

    def _step(self, at: StageTimes, outputs: slice, y: State, grad_end: State, grad_y: Trajectory) -> State:
        times = self._t[outputs].tolist()
        cotangents, own = Cotangents(grad_end), None
        for time, g in zip(times, grad_y[outputs], strict=True):
            cotangents, start = self._with_output(cotangents, at, time, g)
            own = start if own is None else own + start
        # an FSAL method's last stage is needed by dense output alone
        n_stages = len(self._tableau.alpha) - (self._tableau.is_fsal and not times)
        self._meter.spend(n_stages)
        self._meter.step(at.start, abs(at.size), accepted=True)
        grad = self._kernel.pull(self._tableau, at, n_stages, y, cotangents)
        return grad if own is None else grad + own

    def _with_output(self, given: Cotangents, at: StageTimes, time: float, g: State) -> tuple[Cotangents, State]:
        """Add the cotangent of an output inside the step; return also what goes to the step's start directly."""
        share = (time - at.start) / at.size
        if self._tableau.mid is None:
            share = 1.0 if time == at.end else share
            return given._replace(end=given.end + share * g), (1 - share) * g
        start, mid, end, first, last = dense_weights(share)
        added = Cotangents(
            given.end + end * g,
            _plus(given.mid, mid * g),
            _plus(given.first, at.size * first * g),
            _plus(given.last, at.size * last * g),
        )
        return added, start * g


def _plus(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total + more
