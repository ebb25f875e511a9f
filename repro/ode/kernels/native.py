"""The native kernel's functions and structures, and how they run on the rows of a batch."""

import ctypes
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from repro.ode.kernels.build import library
from repro.ode.kernels.layers import MAX_STAGES, Numbers
from repro.ode.tableau import Tableau

_Pointers = ctypes.c_void_p * MAX_STAGES


def on_all_rows(
    function: Callable[..., None],
    step: Any,  # noqa: ANN401
    rows: int,
    problems: Sequence[Any],
    tensors: list[Tensor | None],
    kept: Sequence[Tensor | None] | None = None,
) -> None:
    """Run a function of the kernel, each problem's part of the rows by a thread.

    Args:
        function: One of `Native`'s.
        step: As `Native.step` describes it.
        rows: How many there are.
        problems: The field as `Native.problem` describes it, for each thread.
        tensors: What the function takes; None is null.
        kept: Every stage's numbers, where the function takes them.
    """
    pointers = [None if x is None else x.data_ptr() for x in tensors]
    stages = None if kept is None else _Pointers(*[None if x is None else x.data_ptr() for x in kept])
    parts = len(problems)
    bounds = [rows * i // parts for i in range(parts + 1)]
    jobs = [
        functools.partial(function, problem, step, bounds[i], bounds[i + 1], *pointers, stages)
        for i, problem in enumerate(problems)
    ]
    if parts == 1:
        jobs[0]()
    else:
        list(_pool(parts).map(lambda job: job(), jobs))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernel")


class Native:
    """The kernel's functions and structures for one dtype."""

    def __init__(self, scalar: Any, name: str) -> None:  # noqa: ANN401
        built, reason = library()
        if built is None:
            raise RuntimeError(f"there is no native kernel: {reason}")
        pointer, size = ctypes.c_void_p, ctypes.c_int64

        class Layer(ctypes.Structure):
            _fields_ = [
                *[(f"pointer{i}", pointer) for i in range(10)],
                *[(n, size) for n in ("n_in", "n_out", "stride")],
            ]

        class Problem(ctypes.Structure):
            _fields_ = [
                ("layers", ctypes.POINTER(Layer)),
                ("noise", pointer),
                *[
                    (n, size)
                    for n in ("n_layers", "dim", "n_probes", "rows", "softplus", "per_stage", "folded", "apart")
                ],
                ("scale", scalar),
            ]

        stages = scalar * MAX_STAGES

        class Step(ctypes.Structure):
            _fields_ = [
                *[(n, size) for n in ("n_stages", "given")],
                *[(n, scalar) for n in ("dt", "rtol", "atol")],
                ("time", stages),
                ("beta", stages * MAX_STAGES),
                *[(n, stages) for n in ("weights", "error", "mid")],
            ]

        self._layer, self._problem, self._step, self._scalar = Layer, Problem, Step, scalar
        self.forward, self.backward, self.adjoint = (
            getattr(built, f"{function}_{name}") for function in ("forward", "backward", "adjoint")
        )
        for function in (self.forward, self.backward, self.adjoint):
            function.restype = None
            arrays = [*[pointer] * 6, ctypes.POINTER(_Pointers)]
            function.argtypes = [ctypes.POINTER(Problem), ctypes.POINTER(Step), size, size, *arrays]
        self.kept = getattr(built, f"kept_{name}")
        self.kept.restype, self.kept.argtypes = size, [ctypes.POINTER(Problem)]
        self.in_large_pages = built.in_large_pages
        self.in_large_pages.restype, self.in_large_pages.argtypes = None, [pointer, size]

    def problem(
        self,
        held: Sequence[Sequence[Numbers]],
        into: Sequence[Sequence[Numbers]],
        probes: Tensor | None,
        dim: int,
        rows: int,
        softplus: bool,
        scale: float,
        folded: bool,
        apart: int,
    ) -> Any:  # noqa: ANN401
        """Describe the field; `apart`: how far apart the gradients of two stages go, 0 for into one sum."""
        entries = [self._entry(*pair) for stage in zip(held, into, strict=True) for pair in zip(*stage, strict=True)]
        array = (self._layer * len(entries))(*entries)
        noise = None if probes is None else probes.data_ptr()
        n_probes, per_stage = 0 if probes is None else len(probes), len(held) > 1
        sizes = (len(held[0]), dim, n_probes, rows, int(softplus), int(per_stage), int(folded), apart)
        return self._problem(array, noise, *sizes, scale)

    def _entry(self, held: Numbers, into: Numbers) -> Any:  # noqa: ANN401
        """One layer at one stage."""
        weight = held[0]
        assert weight is not None
        pointers = [None if x is None else x.data_ptr() for x in (*held, *into)]
        return self._layer(*pointers, weight.shape[1], weight.shape[0], weight.stride(0))

    def step(self, tableau: Tableau, n_stages: int, given: bool) -> Any:  # noqa: ANN401
        """Describe a method's first `n_stages` stages; time and size are filled in by the caller."""
        step = self._step(n_stages=n_stages, given=int(given))
        for stage, row in enumerate(tableau.beta[:n_stages]):
            step.beta[stage][: len(row)] = row
        for name in ("weights", "error", "mid"):
            getattr(step, name)[:n_stages] = (getattr(tableau, name) or (0.0,) * n_stages)[:n_stages]
        return step


TYPES = {torch.float32: (ctypes.c_float, "float32"), torch.float64: (ctypes.c_double, "float64")}


@functools.cache
def native(dtype: torch.dtype) -> Native:
    """The kernel for this dtype."""
    return Native(*TYPES[dtype])
