"""The native kernels' functions and structures, and how they run on the rows of a batch."""

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repro.ode.kernels.build import library
from repro.ode.kernels.layers import MAX_STAGES
from repro.ode.tableau import Tableau

_Pointers = ctypes.c_void_p * MAX_STAGES
TYPES = {torch.float32: (ctypes.c_float, "float32"), torch.float64: (ctypes.c_double, "float64")}


def why_not_of(like: Tensor) -> str | None:
    """Why native code does not compute with tensors of this device and dtype; None if it does."""
    if like.device.type != "cpu":
        return f"it runs on the CPU, the field is on {like.device}"
    if like.dtype not in TYPES:
        return f"it computes in float32 and float64, not in {like.dtype}"
    return None


def on_all_rows(
    function: Any,  # noqa: ANN401 (of ctypes)
    step: Any,  # noqa: ANN401
    rows: int,
    problems: Sequence[Any],
    tensors: list[Tensor | None],
    kept: Sequence[Tensor | None] | None = None,
    *,
    grain: int = 1,
) -> None:
    """Run a function of a kernel, each problem's part of the rows by a thread.

    Args:
        function: One of `Native`'s.
        step: As `Native.step` describes it.
        rows: How many there are.
        problems: The field as the kernel describes it, for each thread.
        tensors: What the function takes; None is null.
        kept: Every stage's numbers, where the function takes them.
        grain: Of how many rows each thread has a multiple, the last one apart.
    """
    pointers = list(map(address, tensors))
    stages = None if kept is None else _Pointers(*map(address, kept))
    parts = len(problems)
    grains = -(-rows // grain)
    bounds = [min(rows, grains * i // parts * grain) for i in range(parts + 1)]
    if parts == 1:
        failed = function(problems[0], step, *bounds, *pointers, stages)
    elif (together := _on_parts()) is not None:
        described = (ctypes.c_void_p * parts)(*map(ctypes.addressof, problems))
        arguments = (ctypes.c_void_p * 7)(*pointers, None if stages is None else ctypes.addressof(stages))
        bound = (ctypes.c_int64 * (parts + 1))(*bounds)
        pointer = ctypes.cast(function, ctypes.c_void_p)
        failed = together(pointer, parts, described, ctypes.byref(step), bound, arguments)
    else:
        jobs = [
            functools.partial(function, problem, step, bounds[i], bounds[i + 1], *pointers, stages)
            for i, problem in enumerate(problems)
        ]
        running = [_pool(parts).submit(job) for job in jobs]
        try:
            failed = any(part.result() for part in running)
        finally:  # whatever ends this: they write to memory of the caller's
            wait(running)
    if failed:
        raise torch.OutOfMemoryError("there is no memory for the native kernel's stages")


@functools.cache
def _on_parts() -> Callable[..., int] | None:
    """Run parts in the threads that torch's own operations run in; None where those are not to be had.

    Those go on turning for some milliseconds after an operation, and would hold up others on their processors.
    """
    built, _ = library()
    maps = Path("/proc/self/maps")
    if built is None or not built.with_openmp() or not maps.exists():
        return None
    loaded = {Path(line.split()[-1]) for line in maps.read_text().splitlines() if line.endswith("/libgomp.so.1")}
    torchs = {path for path in loaded if Path(torch.__file__).parent in path.parents}
    if not loaded or loaded != torchs:
        return None
    pointer = ctypes.c_void_p
    built.on_parts.restype, built.on_parts.argtypes = ctypes.c_int, [pointer, ctypes.c_int64, *[pointer] * 4]
    return built.on_parts


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernel")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay behind


class Native:
    """The functions of one kind of field for one dtype.

    Attributes:
        forward: Takes a step; as the others it gives 0, or 1 where there was no memory.
        backward: Pulls cotangents back through one.
        adjoint: Takes a step of the adjoint method's system.
        kept: How many numbers of a stage are kept for `backward`.
        lanes: How many numbers a vector has.
    """

    def __init__(self, kind: str, problem: type[ctypes.Structure], dtype: torch.dtype) -> None:
        scalar, name = TYPES[dtype]
        built, reason = library()
        if built is None:
            raise RuntimeError(f"there is no native kernel: {reason}")
        pointer, size = ctypes.c_void_p, ctypes.c_int64
        stages = scalar * MAX_STAGES

        class Step(ctypes.Structure):
            _fields_ = [
                *[(n, size) for n in ("n_stages", "given")],
                *[(n, scalar) for n in ("dt", "rtol", "atol")],
                ("time", stages),
                ("beta", stages * MAX_STAGES),
                *[(n, stages) for n in ("weights", "error", "mid")],
            ]

        self._step = Step
        self.forward, self.backward, self.adjoint = (
            getattr(built, f"{kind}_{function}_{name}") for function in ("forward", "backward", "adjoint")
        )
        for function in (self.forward, self.backward, self.adjoint):
            function.restype = ctypes.c_int
            arrays = [*[pointer] * 6, ctypes.POINTER(_Pointers)]
            function.argtypes = [ctypes.POINTER(problem), ctypes.POINTER(Step), size, size, *arrays]
        self.kept = getattr(built, f"{kind}_kept_{name}")
        self.kept.restype, self.kept.argtypes = size, [ctypes.POINTER(problem)]
        self.lanes = built.vector_bytes() // ctypes.sizeof(scalar)

    def step(self, tableau: Tableau, n_stages: int, given: bool) -> Any:  # noqa: ANN401
        """Describe a method's first `n_stages` stages; time and size are filled in by the caller."""
        step = self._step(n_stages=n_stages, given=int(given))
        for stage, row in enumerate(tableau.beta[:n_stages]):
            step.beta[stage][: len(row)] = row
        for name in ("weights", "error", "mid"):
            getattr(step, name)[:n_stages] = (getattr(tableau, name) or (0.0,) * n_stages)[:n_stages]
        return step


def address(x: Tensor | None) -> int | None:
    """Where a tensor's numbers lie; None is null."""
    return None if x is None else x.data_ptr()
