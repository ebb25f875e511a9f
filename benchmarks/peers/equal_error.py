"""The time that a way takes for a given error, from runs at several tolerances."""

import math
from collections.abc import Sequence
from itertools import pairwise


def time_at_error(runs: Sequence[tuple[float, float]], error: float) -> tuple[float | None, str]:
    """Interpolate the logarithm of the time in the logarithm of the error.

    A run that is both slower and less exact than another is left out, so that the time grows as the error falls.

    Args:
        runs: Error and seconds of each run.
        error: The error asked for, > 0.

    Returns:
        Seconds, and how they were found: "interpolated"; "at most", where the loosest run is already as exact; or None
        and "not reached", where no run is.
    """
    front = _front(runs)
    if not front or front[-1][0] > error:
        return None, "not reached"
    if front[0][0] <= error:
        return front[0][1], "at most"
    for (loose, fast), (tight, slow) in pairwise(front):
        if tight <= error:
            share = math.log(loose / error) / math.log(loose / tight)
            return fast * (slow / fast) ** share, "interpolated"
    raise AssertionError("the front brackets the error")


def _front(runs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The runs that no other beats in both, from the fastest to the most exact."""
    front: list[tuple[float, float]] = []
    for error, seconds in sorted(runs, key=lambda run: (run[1], run[0])):
        if error > 0 and math.isfinite(error) and (not front or error < front[-1][0]):
            front.append((error, seconds))
    return front
