"""Runge-Kutta steps of perceptron fields, with the trace of their Jacobian or an estimate of it, by native code."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from repro.ode.kernels.build import why_none
from repro.ode.kernels.layers import Numbers, Source
from repro.ode.kernels.native import TYPES, Native, address, why_not_of
from repro.ode.kernels.steps import NativeKernel

ROWS_PER_THREAD = 256
"""Fewer are not worth waking another thread."""
WORTH_KEEPING = 128 * 1024
"""Weights of a field from which on its products are kept for the gradient where that is asked for. To make those of a
smaller field again takes no longer than to write them to memory and read them back."""
ACTIVATIONS = ("tanh", "softplus")


class PerceptronKernel(NativeKernel):
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
        self._softplus = ACTIVATIONS.index(activation) == 1
        self._probes = None if probes is None else probes.detach().contiguous()
        self._dim, self._scale = source.like.shape[1], scale
        self._layer, self._problem_type, native = _structures(source.like.dtype)
        super().__init__(source, native)

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
        if reason := why_not_of(like):
            return reason
        if activation not in ACTIVATIONS:
            return f"it knows the activations {', '.join(ACTIVATIONS)}, not {activation}"
        if probes is not None and probes.requires_grad:
            return "it gives no gradient for the probes"
        if probes is not None and (probes.shape[1:] != (len(y), like.shape[1]) or probes.dtype != like.dtype):
            return f"it takes {like.dtype} probes like the state's rows, not {probes.dtype} {tuple(probes.shape)}"
        return why_none()

    def _parts(self, rows: int) -> int:
        n_probes = 0 if self._probes is None else len(self._probes)
        return max(1, min(torch.get_num_threads(), rows, rows * (1 + n_probes) // ROWS_PER_THREAD))

    def _worth_keeping(self) -> bool:
        return sum(held[0].numel() for held in self._source.held if held[0] is not None) >= WORTH_KEEPING

    def _described(
        self, held: Sequence[Sequence[Numbers]], into: Sequence[Sequence[Numbers]], rows: int, apart: int = 0
    ) -> Any:  # noqa: ANN401
        entries = [self._entry(*pair) for stage in zip(held, into, strict=True) for pair in zip(*stage, strict=True)]
        array = (self._layer * len(entries))(*entries)
        n_probes, per_stage = 0 if self._probes is None else len(self._probes), len(held) > 1
        flags = (int(self._softplus), int(per_stage), int(self._folded), apart)
        sizes = (len(held[0]), self._dim, n_probes, rows, *flags)
        return self._problem_type(array, address(self._probes), *sizes, self._scale)

    def _entry(self, held: Numbers, into: Numbers) -> Any:  # noqa: ANN401
        """One layer at one stage."""
        weight = held[0]
        assert weight is not None
        return self._layer(*map(address, (*held, *into)), weight.shape[1], weight.shape[0], weight.stride(0))


@functools.cache
def _structures(dtype: torch.dtype) -> tuple[type[ctypes.Structure], type[ctypes.Structure], Native]:
    """Layer and Problem of source/perceptron.hpp, and the functions that read them."""
    pointer, size = ctypes.c_void_p, ctypes.c_int64

    class Layer(ctypes.Structure):
        _fields_ = [
            *[(f"pointer{i}", pointer) for i in range(10)],
            *[(n, size) for n in ("n_in", "n_out", "stride")],
        ]

    sizes = ("n_layers", "dim", "n_probes", "rows", "softplus", "per_stage", "folded", "apart")

    class Problem(ctypes.Structure):
        _fields_ = [
            ("layers", ctypes.POINTER(Layer)),
            ("noise", pointer),
            *[(n, size) for n in sizes],
            ("scale", TYPES[dtype][0]),
        ]

    return Layer, Problem, Native("perceptron", Problem, dtype)
