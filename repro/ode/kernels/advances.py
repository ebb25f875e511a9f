"""What torch.compile makes of a function that advances a state; on CUDA a graph that one launch replays."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_log = logging.getLogger(__name__)

Results = tuple[Tensor | None, ...]
Advance = Callable[..., Results]
Finish = Callable[[Results], Results]

TRIALS = 4
"""Calls whose results by a recorded graph are compared, for each shape and again whenever torch has compiled something:
it runs a function once as it is, then records it, then replays it."""
AGREEMENT = 1e-3
"""Distance of two results, relative to the largest norm of a call's, up to which they are the same but for rounding."""

WANTED = "REPRO_CUDA_GRAPHS"
"""Environment variable that switches recording off by 0."""

_ADVANCES: dict[Any, Advance] = {}
"""What steps by a key: compiled, or as it is where the compiler gave up."""
_RECORDED: dict[Any, "Recorded"] = {}
"""The same on CUDA where nothing is left for a later backward pass."""


def advance(
    make: Callable[..., Advance], key: tuple[Any, ...], given: tuple[Any, ...], finish: Finish | None = None
) -> Results:
    """Call the compiled function of this key, or the same function as it is where compiling fails.

    Args:
        make: Makes the function from the key.
        key: What of it is constant.
        given: Its arguments: a field, a state, and more.
        finish: Called on its results at once; what it returns needs no backward pass after it. None returns the
            results, whose backward pass may come any time later if autograd is on.

    Returns:
        The results.
    """
    key = (make, type(given[0]), *key)
    if key not in _ADVANCES:
        _ADVANCES[key] = _compiled(make(*key[2:]))
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException  # slow, and few solves come here

    alone = finish is not None or not torch.is_grad_enabled()
    finish = finish or _as_they_are
    try:
        if alone and recordable(given[1]):
            return _recorded(key)(given, finish)
        return finish(_ADVANCES[key](*given))
    except FailOnRecompileLimitHit:  # so many structures of one type of field: those that were compiled go on
        _say_once(f"{key[1].__name__} has more structures than torch compiles of one function")
        return finish(make(*key[2:])(*given))
    except TorchDynamoException as error:
        _log.info("the compiled engine steps eagerly: %s could not be traced: %s", key[1].__name__, _first(error))
        _ADVANCES[key] = make(*key[2:])
        _RECORDED.pop(key, None)
        return finish(_ADVANCES[key](*given))


_SAID: set[str] = set()


def _say_once(reason: str) -> None:
    if reason not in _SAID:
        _SAID.add(reason)
        _log.info("the compiled engine steps eagerly: %s", reason)


def recordable(y: Tensor) -> bool:
    """Whether steps from y are recorded as graphs of the device."""
    return y.is_cuda and graphs_wanted()


def graphs_wanted() -> bool:
    """Whether the user lets steps be recorded."""
    return os.environ.get(WANTED, "1") == "1"


class Recorded:
    """A step recorded as a CUDA graph, beside the same step without, by which its first results are judged.

    A graph that raises, or whose results are others, is given up with a logged reason: a step is never wrong for it.
    The results lie in memory that the next replay overwrites, and are copied out of it.

    Args:
        name: Of the field, for the log.
        graph: The function, recorded by torch.
        plain: The same function, compiled without.
    """

    def __init__(self, name: str, graph: Advance, plain: Advance) -> None:
        self._name, self._graph, self._plain = name, graph, plain
        self._tried: Counter[tuple[torch.Size, int]] = Counter()
        self.given_up: str | None = None

    def __call__(self, given: tuple[Any, ...], finish: Finish) -> Results:
        """The results of `finish`, by the graph as long as it is believed."""
        if self.given_up is not None:
            return finish(self._plain(*given))
        stream = torch.cuda.current_stream() if given[1].is_cuda else None
        try:
            found = tuple(None if x is None else x.clone() for x in finish(self._graph(*given)))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:  # of a capture, of CUDA, of torch's own checks of memory
            self._give_up(_first(error))
            if stream is not None:  # a capture that failed can leave its own stream behind
                torch.cuda.synchronize()
                torch.cuda.set_stream(stream)
            return finish(self._plain(*given))
        trial = given[1].shape, _compilations()
        if self._tried[trial] >= TRIALS:
            return found
        self._tried[trial] += 1
        expected = finish(self._plain(*given))
        if not _agree(found, expected):
            self._give_up("its results were others than without")
        return expected

    def _give_up(self, reason: str) -> None:
        self.given_up = reason
        _log.warning("the compiled engine steps without a CUDA graph of %s: %s", self._name, reason)


def _recorded(key: tuple[Any, ...]) -> Recorded:
    if key not in _RECORDED:
        graph = _compiled(key[0](*key[2:]), options={"triton.cudagraphs": True})
        _RECORDED[key] = Recorded(key[1].__name__, graph, _ADVANCES[key])
    return _RECORDED[key]


def _agree(found: Results, expected: Results) -> bool:
    if [x is None for x in found] != [x is None for x in expected]:
        return False
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if a is not None and b is not None]
    if not all(torch.isfinite(b).all() for _, b in pairs):
        return all(torch.equal(a.isfinite(), b.isfinite()) for a, b in pairs)
    largest = max(float(b.norm()) for _, b in pairs)
    return all(float((a - b).norm()) <= AGREEMENT * largest for a, b in pairs)


def _compilations() -> int:
    """How many graphs torch has compiled in this process."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def compile_seconds() -> float:
    """Time that this process has spent in torch.compile."""
    if not _ADVANCES:
        return 0.0
    from torch._dynamo.utils import calculate_time_spent

    return float(calculate_time_spent().get("total_wall_time", 0.0))


@functools.cache
def _decompose_zero_tensors() -> None:
    """Let torch.compile build forward mode's zero tangents as ordinary zeros.

    As the immutable zero tensors that they are by default they reach matrix products which write into given memory,
    and which refuse them ("ZeroTensors are immutable", torch 2.13).
    """
    from torch._inductor.decomposition import decompositions  # slow, as is all of the compiler

    def zeros(size: list[int], **settings: Any) -> Tensor:  # noqa: ANN401
        return torch.zeros(size, **settings)

    decompositions[torch.ops.aten._efficientzerotensor.default] = zeros


def _compiled(plain: Advance, **settings: Any) -> Advance:  # noqa: ANN401
    _decompose_zero_tensors()
    # a code object of its own: torch counts recompilations by code object, and all of a maker's share theirs
    code = plain.__code__  # pyright: ignore[reportFunctionMemberAccess]
    name = f"{code.co_name}_{len(_ADVANCES)}_{len(_RECORDED)}"
    plain.__code__ = code.replace(co_name=name)  # pyright: ignore[reportFunctionMemberAccess]
    return torch.compile(plain, fullgraph=True, **settings)


def _as_they_are(results: Results) -> Results:
    return results


def _first(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
