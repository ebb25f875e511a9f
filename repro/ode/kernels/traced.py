"""Runge-Kutta steps of any module's field, each traced and fused by torch.compile into one call."""

import os

import torch
from torch import Tensor, nn

from repro.ode.kernels.advances import Advance, Results, advance
from repro.ode.kernels.plain import hooked, transformed
from repro.ode.kernels.protocol import Cotangents, HoldsNoise, Kept, StageTimes, StepResult
from repro.ode.stages import combined, slope, stages
from repro.ode.tableau import EVALUATION, Tableau
from repro.types import VectorField


class TracedKernel:
    """Steps of a module's field on flat states, each one graph of torch.compile; eager where the compiler gives up.

    A graph belongs to a type of field, a tableau and what of a step is asked for; torch.compile makes another for a new
    structure or dtype, one with free sizes at the second shape, and none beyond its limit of recompilations. Graphs are
    cached on disk by torch, so that another process traces anew but does not build. On CUDA a step that nothing goes
    back through later is replayed by one launch, see `Recorded`.

    Args:
        field: Right-hand side; deterministic, with its parameters registered.
        parameters: Tensors that get gradients.
    """

    def __init__(self, field: VectorField, parameters: tuple[Tensor, ...] = ()) -> None:
        self._field, self._parameters = field, parameters
        self._held = field.held if isinstance(field, HoldsNoise) else None
        self._grads: list[Tensor | None] = [None for _ in parameters]

    @staticmethod
    def why_not(field: VectorField, y: Tensor) -> str | None:
        """Why steps from y are not traced; None if they are."""
        if os.environ.get("REPRO_KERNELS", "1") != "1":
            return f"tracing is switched off by REPRO_KERNELS={os.environ['REPRO_KERNELS']}"
        if not isinstance(field, nn.Module):
            return "only a torch.nn.Module is traced, since a function may be a new one at every call"
        if any(isinstance(part, torch.jit.ScriptModule) for part in field.modules()):
            return "a scripted module has a graph already"
        if reason := transformed(y) or hooked(field):  # one graph serves all objects of a class
            return reason
        if y.device.type == "cpu" and y.ndim > 2:
            return f"a state {tuple(y.shape)} is not flat, and the compiler gains nothing on a CPU's convolutions"
        return None

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
        """Take a step from y; autograd keeps what it needs, so there is nothing to `keep`; see `StepKernel`."""
        if tableau == EVALUATION:
            return StepResult(y, self.evaluate(at.start, y), None, None)  # not worth a graph
        given = (self._field, y, f, _numbers((*at, *(tolerances or ())), y), self._held)
        end, last, mid, error = advance(_forward_of, (tableau, len(tableau.alpha), tolerances is not None), given)
        assert end is not None
        assert last is not None
        return StepResult(end, last, mid, error)

    def evaluate(self, t: float, y: Tensor) -> Tensor:
        """The field at one time."""
        return self._field(torch.tensor(t, dtype=y.dtype, device=y.device), y)

    def pull(
        self,
        tableau: Tableau,
        at: StageTimes,
        n_stages: int,
        y: Tensor,
        cotangents: Cotangents,
        kept: Kept | None = None,
    ) -> Tensor:
        """Replay the step's first stages and pull cotangents back through one compiled graph; see `StepKernel`."""
        y = y.detach().requires_grad_()
        key = (tableau, n_stages, cotangents.mid is not None)

        def pulled(results: Results) -> Results:
            pairs = zip(results, cotangents, strict=True)
            used = [(x, v) for x, v in pairs if x is not None and v is not None and x.requires_grad]
            outputs, vectors = zip(*used, strict=True)
            return torch.autograd.grad(outputs, (y, *self._parameters), vectors, allow_unused=True)

        with torch.enable_grad():
            by_y, *grads = advance(_replay_of, key, (self._field, y, _numbers(at, y), self._held), pulled)
        self._grads = [_sum(total, grad) for total, grad in zip(self._grads, grads, strict=True)]
        return torch.zeros_like(y) if by_y is None else by_y

    def gradients(self, parameters: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """What `pull` added up since the last time; `parameters` are those that the kernel was made with."""
        grads = tuple(self._grads)
        self._grads = [None for _ in parameters]
        return grads


def _numbers(numbers: tuple[float, ...], like: Tensor) -> Tensor:
    """A step's times and tolerances in one tensor, one copy to the device: as numbers they would be constants."""
    here = torch.tensor(numbers, dtype=like.dtype, pin_memory=like.is_cuda)
    return here.to(like.device, non_blocking=True)  # from pinned memory nobody waits for it


def _with(held: Tensor | None, field: VectorField) -> VectorField:
    if held is None:
        return field
    return lambda t, y: field.with_held(t, y, held)  # pyright: ignore[reportAttributeAccessIssue]


def _sum(total: Tensor | None, more: Tensor | None) -> Tensor | None:
    return more if total is None else total if more is None else total + more


def _forward_of(tableau: Tableau, n_stages: int, adaptive: bool) -> Advance:
    def forward(field: VectorField, y: Tensor, f: Tensor | None, numbers: Tensor, held: Tensor | None) -> Results:
        at = numbers[:3]
        k = stages(_with(held, field), tableau, n_stages, y, f, *at)
        end = combined(y, at[1], tableau.weights, k)
        if not adaptive or tableau.mid is None or tableau.error is None:
            return end, k[-1], None, None
        scale = torch.maximum(y.abs(), end.abs()) * numbers[3] + numbers[4]
        return end, k[-1], combined(y, at[1], tableau.mid, k), at[1] * slope(tableau.error, k) / scale

    return forward


def _replay_of(tableau: Tableau, n_stages: int, with_mid: bool) -> Advance:
    def replay(field: VectorField, y: Tensor, at: Tensor, held: Tensor | None) -> Results:
        k = stages(_with(held, field), tableau, n_stages, y, None, *at)
        mid = combined(y, at[1], tableau.mid, k) if with_mid and tableau.mid is not None else None
        return combined(y, at[1], tableau.weights, k), mid, k[0], k[-1]

    return replay
