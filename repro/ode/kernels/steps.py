"""Runge-Kutta steps of a field by native code: one call a step, one call for its gradient."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from repro.ode.kernels.adjoint import AdjointKernel, Tolerances
from repro.ode.kernels.layers import MAX_STAGES, Numbers, Source, laid_out, numbers_of
from repro.ode.kernels.memory import room
from repro.ode.kernels.native import Native, on_all_rows
from repro.ode.kernels.protocol import Cotangents, Kept, StageTimes, StepResult, Steps
from repro.ode.tableau import Tableau


class NativeKernel(Steps, ABC):
    """Steps by `Native`'s functions; a subclass describes the field to them.

    Args:
        source: Gives the layers.
        native: The functions.
        grain: Of how many rows each thread has a multiple.
    """

    def __init__(self, source: Source, native: Native, grain: int = 1) -> None:
        self._source, self._native, self._grain = source, native, grain
        self._scratch: tuple[Tensor, ...] | None = None
        self._steps: dict[tuple[Tableau, int, bool], Any] = {}
        self._problems: dict[tuple[int, int], Any] = {}
        self._stages_apart: dict[tuple[int, int], tuple[Tensor, Any]] = {}

    @abstractmethod
    def _described(
        self, held: Sequence[Sequence[Numbers]], into: Sequence[Sequence[Numbers]], rows: int, apart: int = 0
    ) -> Any:  # noqa: ANN401
        """The field for native code, by its layers at each stage, or at all; the tensors must outlive it.

        Args:
            held: The layers' numbers.
            into: Where their gradients are added.
            rows: Of the batch.
            apart: How far apart the gradients of two stages go, 0 for into one sum.
        """
        ...

    @abstractmethod
    def _parts(self, rows: int) -> int:
        """Into how many parts a batch is split: torch's threads, where that pays."""
        ...

    @abstractmethod
    def _worth_keeping(self) -> bool:
        """Whether to make a stage's products again takes longer than to write them to memory and read them back."""
        ...

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
        """Take a step from y [batch *state]; see `StepKernel`."""
        y, adaptive, given = y.contiguous(), tolerances is not None, f is not None
        step = self._step(tableau, at, len(tableau.alpha), given=given)
        if tolerances is not None:
            step.rtol, step.atol = tolerances
        f = None if f is None else f.contiguous()
        end, last, mid, error = self._results(y, f, adaptive=adaptive)
        n_rows = y.shape[0]
        parts = self._parts(n_rows)
        kept = self._room(len(tableau.alpha) - given, y, parts) if keep and self._worth_keeping() else None
        rows = [None] * given + list(kept.numbers) if kept else None
        problems = [self._problem(i, n_rows) for i in range(parts)]
        self._run(self._native.forward, step, n_rows, problems, [y, f, end, last, mid, error], rows)
        return StepResult(end, last, mid, error, kept)

    def pull(
        self,
        tableau: Tableau,
        at: StageTimes,
        n_stages: int,
        y: Tensor,
        cotangents: Cotangents,
        kept: Kept | None = None,
    ) -> Tensor:
        """Pull cotangents back through a step; see `StepKernel`."""
        step = self._step(tableau, at, n_stages, given=False)
        gy = room(y, *y.shape)
        given = [None if g is None else g.contiguous() for g in cotangents]
        n_rows = y.shape[0]
        parts, rows = (kept.parts, list(kept.numbers)) if kept else (self._parts(n_rows), None)
        problems = [self._problem(i, n_rows) for i in range(parts)]
        self._run(self._native.backward, step, n_rows, problems, [y.contiguous(), *given, gy], rows)
        self._source.collect()
        return gy

    def gradients(self, parameters: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """What `pull` added up since the last time; see `StepKernel`."""
        return self._source.gradients(parameters)

    def adjoint_kernel(self, parameters: tuple[Tensor, ...], n_rows: int, *, controlled: bool) -> AdjointKernel:
        """Native steps of the adjoint method's system; see `OffersAdjoint`."""
        n_numbers = sum(p.numel() for p in parameters)
        carry = self._source.carry(parameters)
        return AdjointKernel(self._adjoint_step, carry, n_numbers, n_rows, controlled=controlled)

    def _adjoint_step(
        self, tableau: Tableau, at: StageTimes, n_rows: int, flat: list[Tensor | None], tolerances: Tolerances
    ) -> Float[Tensor, "stage numbers_and_zero"]:
        """Write a step's results into `flat`; see `Advance`."""
        n_stages = len(tableau.alpha)
        step = self._step(tableau, at, n_stages, given=flat[1] is not None)
        if tolerances is not None:
            step.rtol, step.atol = tolerances
        problems = [self._apart(i, n_rows) for i in range(self._parts(n_rows))]
        for integrand, _ in problems:
            integrand[:n_stages].zero_()
        self._run(self._native.adjoint, step, n_rows, [problem for _, problem in problems], flat)
        return functools.reduce(torch.add, [integrand[:n_stages] for integrand, _ in problems])

    def _apart(self, thread: int, rows: int) -> tuple[Tensor, Any]:
        """Where a thread puts every stage's gradients by themselves, and the description of the field that says so."""
        key = (thread, rows)
        if key not in self._stages_apart:
            held = _by_stage(self._source.held, self._source.n_stages)
            n = sum(x.numel() for x in numbers_of(held[0]))
            integrand = self._source.like.new_empty(MAX_STAGES, n + 1)
            into = [laid_out(integrand[0, :n], held[0])] * len(held)
            self._stages_apart[key] = integrand, self._described(held, into, rows, apart=n + 1)
        return self._stages_apart[key]

    def _step(self, tableau: Tableau, at: StageTimes, n_stages: int, *, given: bool) -> Any:  # noqa: ANN401
        key = (tableau, n_stages, given)
        step = self._steps.get(key)
        if step is None:
            step = self._steps[key] = self._native.step(tableau, n_stages, given)
        times = at.of(tableau)[:n_stages]
        step.dt = at.size
        step.time[:n_stages] = times
        self._source.prepare(times)
        return step

    def _results(
        self, y: Tensor, f: Tensor | None, *, adaptive: bool
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Room for a step's end, last stage, middle and error; all but the end is used again by the step after next."""
        end = room(y, *y.shape)
        if not adaptive:
            return end, room(y, *y.shape), None, None
        if self._scratch is None or self._scratch[0].shape != y.shape:
            self._scratch = room(y, 4, *y.shape).unbind()
        one, other, mid, error = self._scratch
        last = other if f is not None and f.data_ptr() == one.data_ptr() else one
        return end, last, mid, error

    def _room(self, stages: int, y: Tensor, parts: int) -> Kept:
        """Room for the products of so many stages."""
        return Kept(room(y, stages, self._native.kept(self._problem(0, y.shape[0]))), parts)

    def _problem(self, thread: int, rows: int) -> Any:  # noqa: ANN401
        key = (thread, rows)
        if key not in self._problems:
            held, into = (_by_stage(x, self._source.n_stages) for x in (self._source.held, self._source.into(thread)))
            self._problems[key] = self._described(held, into, rows)
        return self._problems[key]

    def _run(
        self,
        function: Any,  # noqa: ANN401
        step: Any,  # noqa: ANN401
        rows: int,
        problems: list[Any],
        tensors: list[Tensor | None],
        kept: Sequence[Tensor | None] | None = None,
    ) -> None:
        on_all_rows(function, step, rows, problems, tensors, kept, grain=self._grain)


def _by_stage(layers: Sequence[Numbers], n_stages: int) -> list[Sequence[Numbers]]:
    if n_stages == 1:
        return [layers]
    return [[tuple(None if x is None else x[s] for x in layer) for layer in layers] for s in range(n_stages)]
