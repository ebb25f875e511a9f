"""A check that every evaluation of a field makes: whether the solve may go on.

The solvers know nothing of runs, and a run sees its solves only at their ends; so what wants to stop a solve, as a run
that is out of time, sets a check here, and the count of evaluations asks it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Check = Callable[[Any], None]
"""Gets the meter of the pass; raises what shall end the solve."""


class _Current:
    """The check of this process: of all its threads, since on a GPU autograd evaluates fields in threads of its own."""

    check: Check | None = None


def check_interruption(meter: Any) -> None:  # noqa: ANN401 (a meter, of a higher layer)
    """Let the current check end the solve, if there is one."""
    if _Current.check is not None:
        _Current.check(meter)


@contextmanager
def interruptible(check: Check) -> Iterator[None]:
    """Make a check at every evaluation of a field in the block, in place of one that was made before."""
    before, _Current.check = _Current.check, check
    try:
        yield
    finally:
        _Current.check = before
