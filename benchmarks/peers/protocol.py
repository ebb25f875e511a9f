"""What a way to take a training step is, and what a step leaves behind."""

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.settings import DEVICE
from repro.metrics import synchronize


class NotPossible(Exception):
    """A library cannot do a workload; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """What one step gives.

    Attributes:
        loss: Mean loss of the batch.
        gradient: Its gradient, an array for each parameter in the order of the workload's own model.
        nfe_forward: Evaluations of the field before the loss is known; None where the step does not say.
        nfe_backward: Evaluations after that; None where it does not say, or there are none.
    """

    loss: Any
    gradient: tuple[Any, ...]
    nfe_forward: int | None = None
    nfe_backward: int | None = None

    def flat(self) -> np.ndarray:
        """All of the gradient in one float64 vector."""
        parts = (part.cpu() if isinstance(part, Tensor) else part for part in self.gradient)
        return np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts])


Step = Callable[[], Outcome]


@dataclass(frozen=True)
class Way:
    """A library and one of its modes.

    Attributes:
        peer: The distribution's name.
        name: The mode.
        build: Makes a step from a workload, rtol and atol; raises `NotPossible`.
        modules: What has to be importable.
        kinds: Kinds of workload (their classes' names) that the mode is meant for; others have no row.
        trial: Seconds that a first step may take, tried in a process of its own; None is no limit.
        count: Evaluations forward and backward, for a library whose steps cannot count them.
    """

    peer: str
    name: str
    build: Callable[[Any, float, float], Step]
    modules: tuple[str, ...]
    kinds: tuple[str, ...] = ("Likelihood", "Classification")
    trial: float | None = None
    count: Callable[[Any, float, float], tuple[int, int]] | None = None

    @property
    def key(self) -> str:
        """Peer and mode in one word."""
        return f"{self.peer}/{self.name}"

    def missing(self) -> str | None:
        """Why the library cannot be imported, or None if it can."""
        for module in self.modules:
            try:
                importlib.import_module(module)
            except Exception as error:  # a library that breaks at import is as missing as one that is not there
                return first_line(error)
        return None

    def version(self) -> str:
        """The installed version."""
        try:
            return version(self.peer)
        except PackageNotFoundError:
            return "n/a"


def first_line(error: BaseException) -> str:
    """Kind and first line of an error, short enough for a table."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and its seconds, until the device is done."""
    start = time.perf_counter()
    result = call()
    synchronize(DEVICE)
    return result, time.perf_counter() - start
