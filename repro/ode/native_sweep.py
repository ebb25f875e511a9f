"""Go back through the steps of a solve by a kernel: one native or compiled call a step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from repro.ode.kernels import Cotangents, Kept, StageTimes, StepKernel
from repro.ode.meter import Meter
from repro.ode.replay import Grid, dense_weights
from repro.ode.torchdiffeq_backend import runge_kutta_tableau
from repro.types import State, Times, Trajectory

STEPS_COLLECTED = 64
"""Steps whose gradients a kernel collects before they are added up: some collect as much as the layers of each step."""


class NativeSweep:
    """Go through the steps, last one first, and add up the gradients.

    Args:
        kernel: Takes the steps.
        method: Name of the Runge-Kutta method.
        meter: Counts the replayed evaluations.
        t: Output times.
        parameters: Tensors that get gradients.
        kept: What the forward pass left, of every step or of the first evaluation and every step; empty replays.
    """

    def __init__(
        self,
        kernel: StepKernel,
        method: str,
        meter: Meter,
        t: Times,
        parameters: Sequence[Tensor],
        kept: Sequence[Kept] = (),
    ) -> None:
        self._kernel, self._tableau, self._meter = kernel, runge_kutta_tableau(method), meter
        self._t, self._parameters = t.detach().cpu(), tuple(parameters)  # read at every step
        self._kept = kept
        self.grad_t = None
        self.grad_parameters: Sequence[Tensor | None] = [None] * len(self._parameters)

    def run(self, grid: Grid, states: list[Tensor], derivatives: list[Tensor], grad_y: Trajectory) -> State:
        """Return the gradient of y0; `derivatives` are of methods that the compiled engine does not have."""
        assert not derivatives
        grad = torch.zeros_like(grad_y[0])
        try:
            for n in reversed(range(len(grid))):
                kept = self._kept_of(n, len(grid))
                grad = self._step(grid.times(n, self._t), grid.outputs(n), states[n], grad, grad_y, kept)
                if n % STEPS_COLLECTED == 0 and n > 0:
                    self._take_gradients()
        finally:  # taken also when interrupted: the next pass may have this kernel too
            self._take_gradients()
        return grad + grad_y[0]

    def _take_gradients(self) -> None:
        """Add what the kernel has collected for the parameters, so that it holds no more than some steps' share."""
        pairs = zip(self.grad_parameters, self._kernel.gradients(self._parameters), strict=True)
        self.grad_parameters = [
            more if total is None else total if more is None else total + more for total, more in pairs
        ]

    def _kept_of(self, n: int, n_steps: int) -> Kept | None:
        """What step n's stages left; where there is an entry before the steps', each begins with the one before."""
        if len(self._kept) <= n_steps:
            return self._kept[n] if self._kept else None
        before, own = self._kept[n : n + 2]
        assert before.parts == own.parts, "the number of threads changed within a solve"
        return Kept([before.numbers[-1], *own.numbers], own.parts)

    def _step(
        self, at: StageTimes, outputs: slice, y: State, grad_end: State, grad_y: Trajectory, kept: Kept | None
    ) -> State:
        times = self._t[outputs].tolist()
        cotangents, own = Cotangents(grad_end), None
        for time, g in zip(times, grad_y[outputs], strict=True):
            cotangents, start = self._with_output(cotangents, at, time, g)
            own = start if own is None else own + start
        # an FSAL method's last stage is needed by dense output alone
        n_stages = len(self._tableau.alpha) - (self._tableau.is_fsal and not times)
        if kept is None:
            self._meter.spend(n_stages)
        self._meter.step(at.start, abs(at.size), accepted=True)
        grad = self._kernel.pull(self._tableau, at, n_stages, y, cotangents, kept)
        return grad if own is None else grad + own

    def _with_output(self, given: Cotangents, at: StageTimes, time: float, g: State) -> tuple[Cotangents, State]:
        """Add the cotangent of an output inside the step; return also what goes to the step's start directly."""
        share = (time - at.start) / at.size
        if self._tableau.mid is None:
            share = 1.0 if time == at.end else share
            return given._replace(end=torch.add(given.end, g, alpha=share)), (1 - share) * g
        start, mid, end, first, last = dense_weights(share)
        added = Cotangents(
            torch.add(given.end, g, alpha=end),
            _plus(given.mid, mid * g),
            _plus(given.first, at.size * first * g),
            _plus(given.last, at.size * last * g),
        )
        return added, start * g


def _plus(total: Tensor | None, more: Tensor) -> Tensor:
    return more if total is None else total + more
