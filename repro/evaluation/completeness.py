"""Completeness of a training: full budget, the paper's stopping rule, or a small gain by doubling the budget."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from repro.evaluation.margins import Margins
from repro.evaluation.statistics import upper_bound

By = Literal["", "full budget", "stopping rule", "doubling", "no training"]


class RuleError(ValueError):
    """Runs from which the rule can't conclude anything; the message is one sentence."""


@dataclass(frozen=True)
class Completeness:
    """Completeness of a training.

    Attributes:
        by: The criterion that holds; empty if none does.
        reason: The criterion or what is missing, in words.
        budgets: Budgets of the doubling, in the budget's unit, the smaller first.
        gain: Mean gain by the last doubling, in the metric's unit; positive is better.
        upper: Its one-sided 95 % upper bound.
        margin: Gain that is still allowed up to the full budget.
    """

    by: By
    reason: str
    budgets: tuple[float, ...] = ()
    gain: float | None = None
    upper: float | None = None
    margin: float | None = None

    @property
    def holds(self) -> bool:
        """Check that the training counts as complete."""
        return self.by != ""


@dataclass(frozen=True)
class Pair:
    """Final values of the same seeds at a budget b and at 2b.

    Attributes:
        budgets: b and 2b, in one unit.
        first: Value by seed at b.
        second: Value by seed at 2b.
        settings_differ: Names of the settings besides the budget in which both differ.
    """

    budgets: tuple[float, float]
    first: Mapping[int, float]
    second: Mapping[int, float]
    settings_differ: tuple[str, ...] = ()

    def gains(self, better: str) -> list[float]:
        """Compute the gain of every seed; positive is better.

        Args:
            better: `lower` or `higher`.

        Raises:
            RuleError: Settings or seeds differ, the second budget is not twice the first, or a value is not finite.
        """
        if self.settings_differ:
            raise RuleError(f"the doubling pair differs in {', '.join(self.settings_differ)} besides its budget")
        if not math.isclose(self.budgets[1], 2 * self.budgets[0]):
            raise RuleError(f"the doubling pair has the budgets {self.budgets[0]:g} and {self.budgets[1]:g}")
        if not set(self.second) <= set(self.first):
            seeds = f"{_print_seeds(self.first)} and {_print_seeds(self.second)}"
            raise RuleError(f"the seeds of the doubling pair differ: {seeds}")
        sign = 1 if better == "lower" else -1
        gains = [sign * (self.first[seed] - value) for seed, value in sorted(self.second.items())]
        if not all(map(math.isfinite, gains)):
            raise RuleError("a value of the doubling pair is not finite")
        return gains


def _print_seeds(seeds: Mapping[int, float]) -> str:
    return " ".join(map(str, sorted(seeds))) or "none"


def completeness(
    margins: Margins,
    better: str,
    *,
    budget: float | None,
    full: float | None,
    stopped: bool = False,
    pairs: Sequence[Pair] = (),
) -> Completeness:
    """Decide on the completeness of a training.

    Complete is what was trained with the full budget, ended by the paper's own stopping rule, or gains little by
    doubling: with u the 95 % upper bound of the gain from b to 2b over the seeds, u · max(1, log2(B / 2b)) must be
    within the margin for a full budget B; where B is not stated, u must be within it for two successive doublings.

    Args:
        margins: Of the metric, absolute.
        better: `lower` or `higher`.
        budget: Of the runs, in the unit of `full`; None for what is not trained.
        full: The paper's or the public code's budget; None where neither states one.
        stopped: Every run ended by the paper's stopping rule.
        pairs: Doublings up to the runs' budget, the last one last.

    Raises:
        RuleError: See `Pair.gains`.
    """
    if budget is None:
        return Completeness("no training", "nothing is trained")
    if full is not None and budget >= full * (1 - 1e-9):
        return Completeness("full budget", f"{budget:,g} of {full:,g}", (budget,))
    if stopped:
        return Completeness("stopping rule", "the paper's stopping rule ended every run", (budget,))
    share = f"{budget / full:.1%} of the budget" if full else "the full budget is not stated"
    if margins.completeness is None:
        return Completeness("", f"{share}; only the paper's stopping rule makes it complete", (budget,))
    bounds = [_bound(pair, better) for pair in pairs]
    if not bounds:
        return Completeness("", f"{share}; no doubling was measured", (budget,), margin=margins.completeness)
    return _by_doubling(margins.completeness, full, pairs, bounds, share)


def _bound(pair: Pair, better: str) -> tuple[float, float | None]:
    """Compute the mean gain and its upper bound; None for a single seed."""
    gains = pair.gains(better)
    return fmean(gains), upper_bound(gains) if len(gains) > 1 else None


def _by_doubling(
    margin: float, full: float | None, pairs: Sequence[Pair], bounds: Sequence[tuple[float, float | None]], share: str
) -> Completeness:
    gain, upper = bounds[-1]
    budgets, last = pairs[-1].budgets, pairs[-1].budgets[1]
    doublings = 1.0 if full is None else max(1.0, math.log2(full / last))
    needed = bounds[-2:] if full is None else bounds[-1:]
    small = all(bound is not None and doublings * bound <= margin for _, bound in needed)
    enough = len(needed) == (2 if full is None else 1)
    words = f"{gain:+.3g} per doubling, at most {upper:+.3g}" if upper is not None else f"{gain:+.3g} by one seed"
    scope = f"over {doublings:.1f} doublings to the full budget" if full else "two successive doublings are needed"
    reason = f"{share}; {words}, {scope}, margin {margin:g}"
    return Completeness("doubling" if small and enough else "", reason, budgets, gain, upper, margin)


def gain_within_run(steps: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Read one run of constant learning rate at half and at all of its budget.

    Args:
        steps: Of the curve, increasing; the last one is the whole budget.
        values: A metric at each step.

    Returns:
        The metric averaged over the last tenth of the first half, and over the last tenth of the whole.

    Raises:
        RuleError: A tenth holds no point.
    """
    total = steps[-1] if len(steps) else 0.0

    def average(end: float) -> float:
        chosen = [value for step, value in zip(steps, values, strict=True) if 0.9 * end < step <= end]
        if not chosen:
            raise RuleError("the curve has no point in the last tenth of half its budget or of all of it")
        return fmean(chosen)

    return average(total / 2), average(total)
