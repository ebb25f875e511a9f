"""Runge-Kutta steps of perceptron fields by the native kernel: one call a step, one call for its gradient."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from repro.ode.kernels.adjoint import AdjointKernel, Tolerances
from repro.ode.kernels.build import library
from repro.ode.kernels.layers import MAX_STAGES, Numbers, Source, laid_out, numbers_of
from repro.ode.kernels.native import TYPES, native, on_all_rows
from repro.ode.kernels.protocol import Cotangents, Kept, StageTimes, StepResult
from repro.ode.tableau import EVALUATION, Tableau

ROWS_PER_THREAD = 256
"""Fewer are not worth waking another thread."""
WORTH_KEEPING = 128 * 1024
"""Weights of a field from which on its products are kept for the gradient where that is asked for. To make those of a
smaller field again takes no longer than to write them to memory and read them back."""
ACTIVATIONS = ("tanh", "softplus")


class PerceptronKernel:
    """Steps of dy/dt = f(t, y), or of (y, ∫ trace) with d/dt = (f, scale · Σ_p probe_pᵀ (∂f/∂y) probe_p).

    Args:
        source: Gives the affine layers; the activation stands between them.
        activation: One of `ACTIVATIONS`.
        probes: Tangents [probe batch dim]; None leaves the trace out.
        scale: Of the sum over probes.
        folded: Integrate the exact trace by folding the weights of two layers, which must have no gates.
    """

    def __init__(
        self,
        source: Source,
        activation: str,
        probes: Float[Tensor, "probe batch dim"] | None = None,
        scale: float = 1.0,
        *,
        folded: bool = False,
    ) -> None:
        self._folded = folded
        self._source, self._softplus = source, ACTIVATIONS.index(activation) == 1
        self._probes = None if probes is None else probes.detach().contiguous()
        self._dim, self._scale = source.like.shape[1], scale
        self._native = native(source.like.dtype)
        self._steps: dict[tuple[Tableau, int, bool], Any] = {}
        self._problems: dict[tuple[int, int], Any] = {}
        self._stages_apart: dict[tuple[int, int], tuple[Tensor, Any]] = {}

    @staticmethod
    def why_not(
        like: Tensor, activation: str, y: Tensor, probes: Tensor | None = None, *, traced: bool = False
    ) -> str | None:
        """Why there is no kernel for steps from y [batch columns]; None if there is.

        Args:
            like: A weight [out in] of the field's first layer.
            activation: The field's.
            y: State.
            probes: Tangents.
            traced: Whether the state has a column for the trace, also without probes.
        """
        if y.ndim != 2 or y.shape[1] != like.shape[1] + (traced or probes is not None) or y.dtype != like.dtype:
            return f"it takes {like.dtype} states of {like.shape[1]} numbers a row, not {y.dtype} {tuple(y.shape)}"
        if like.device.type != "cpu":
            return f"it runs on the CPU, the field is on {like.device}"
        if like.dtype not in TYPES:
            return f"it computes in float32 and float64, not in {like.dtype}"
        if activation not in ACTIVATIONS:
            return f"it knows the activations {', '.join(ACTIVATIONS)}, not {activation}"
        if probes is not None and probes.requires_grad:
            return "it gives no gradient for the probes"
        built, reason = library()
        return reason if built is None else None

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
        """Take a step from y [batch columns]; see `StepKernel`."""
        y, adaptive, given = y.contiguous(), tolerances is not None, f is not None
        step = self._step(tableau, at, len(tableau.alpha), given=given)
        if tolerances is not None:
            step.rtol, step.atol = tolerances
        f = None if f is None else f.contiguous()
        # the end is kept as the next step's start, so it must not hold the others' memory
        end, (last, *others) = torch.empty_like(y), y.new_empty(3 if adaptive else 1, *y.shape)
        mid, error = others if adaptive else (None, None)
        n_rows = y.shape[0]
        parts = self._parts(n_rows)
        kept = self._room(len(tableau.alpha) - given, y, parts) if keep else None
        rows = [None] * given + list(kept.numbers) if kept else None
        problems = [self._problem(i, n_rows) for i in range(parts)]
        on_all_rows(self._native.forward, step, n_rows, problems, [y, f, end, last, mid, error], rows)
        return StepResult(end, last, mid, error, kept)

    def evaluate(self, t: float, y: Tensor) -> Tensor:
        """The field at one time, as the only stage of a step."""
        return self.step(EVALUATION, StageTimes(t, 0.0, t), y, None, None).last

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
        gy = torch.empty_like(y)
        given = [None if g is None else g.contiguous() for g in cotangents]
        n_rows = y.shape[0]
        parts, rows = (kept.parts, list(kept.numbers)) if kept else (self._parts(n_rows), None)
        problems = [self._problem(i, n_rows) for i in range(parts)]
        on_all_rows(self._native.backward, step, n_rows, problems, [y.contiguous(), *given, gy], rows)
        self._source.collect()
        return gy

    def gradients(self, parameters: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        """What `pull` added up since the last time; see `StepKernel`."""
        return self._source.gradients(parameters)

    def adjoint_kernel(self, parameters: tuple[Tensor, ...], n_rows: int, *, controlled: bool) -> AdjointKernel | str:
        """Native steps of the adjoint method's system; see `OffersAdjoint`."""
        places = self._source.places(parameters)
        if places is None:
            return "the kernel's layers do not hold the parameters as views"
        return AdjointKernel(self._adjoint_step, places, n_rows, controlled=controlled)

    def _adjoint_step(
        self, tableau: Tableau, at: StageTimes, n_rows: int, flat: list[Tensor | None], tolerances: Tolerances
    ) -> Float[Tensor, "stage numbers_and_zero"]:
        """Write a step's results into `flat`; see `Advance`."""
        n_stages = len(tableau.alpha)
        step = self._step(tableau, at, n_stages, given=flat[1] is not None)
        if tolerances is not None:
            step.rtol, step.atol = tolerances
        parts = self._parts(n_rows)
        problems = [self._apart(i, n_rows) for i in range(parts)]
        for integrand, _ in problems:
            integrand[:n_stages].zero_()
        on_all_rows(self._native.adjoint, step, n_rows, [problem for _, problem in problems], flat)
        return functools.reduce(torch.add, [integrand[:n_stages] for integrand, _ in problems])

    def _apart(self, thread: int, rows: int) -> tuple[Tensor, Any]:
        """Where a thread puts every stage's gradients by themselves, and the description of the field that says so."""
        key = (thread, rows)
        if key not in self._stages_apart:
            held = self._source.held
            n = sum(x.numel() for x in numbers_of(held))
            integrand = self._source.like.new_empty(MAX_STAGES, n + 1)
            description = self._described([held], [laid_out(integrand[0, :n], held)], rows, apart=n + 1)
            self._stages_apart[key] = integrand, description
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

    def _parts(self, rows: int) -> int:
        """Into how many parts a batch is split: torch's threads, where that pays."""
        n_probes = 0 if self._probes is None else len(self._probes)
        return max(1, min(torch.get_num_threads(), rows * (1 + n_probes) // ROWS_PER_THREAD))

    def _room(self, stages: int, y: Tensor, parts: int) -> Kept | None:
        """Room for the products of so many stages; None where they are not worth keeping."""
        weights = sum(held[0].numel() for held in self._source.held if held[0] is not None)
        if weights < WORTH_KEEPING:
            return None
        numbers = y.new_empty(stages, self._native.kept(self._problem(0, y.shape[0])))
        self._native.in_large_pages(numbers.data_ptr(), numbers.nbytes)
        return Kept(numbers, parts)

    def _problem(self, thread: int, rows: int) -> Any:  # noqa: ANN401
        key = (thread, rows)
        if key not in self._problems:
            held, into = (_by_stage(x, self._source.n_stages) for x in (self._source.held, self._source.into(thread)))
            self._problems[key] = self._described(held, into, rows)
        return self._problems[key]

    def _described(
        self, held: Sequence[Sequence[Numbers]], into: Sequence[Sequence[Numbers]], rows: int, apart: int = 0
    ) -> Any:  # noqa: ANN401
        """The field by its layers at each stage, or at all; the tensors must outlive the description."""
        return self._native.problem(
            held, into, self._probes, self._dim, rows, self._softplus, self._scale, self._folded, apart
        )


def _by_stage(layers: Sequence[Numbers], n_stages: int) -> list[Sequence[Numbers]]:
    if n_stages == 1:
        return [layers]
    return [[tuple(None if x is None else x[s] for x in layer) for layer in layers] for s in range(n_stages)]
