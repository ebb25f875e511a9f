"""The verdict on a published number: an equivalence test of the suite's trained runs against the paper's value.

The rule in words is `repro/report/rules.md`; it was fixed before the runs that it decides on, and later
changes are listed in CHANGELOG.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Literal

from repro.evaluation.completeness import Completeness
from repro.evaluation.margins import RECONSTRUCTION_LIMIT, Margins, published_margins
from repro.evaluation.statistics import Interval, Source, student_interval, welch_half_width
from repro.published import Published

Status = Literal[
    "agrees",
    "better",
    "worse",
    "not told apart",
    "still improving",
    "incomplete",
    "untrusted",
    "reaches",
    "other protocol",
    "differs",
    "no verdict",
    "no data",
    "not run",
    "cited",
    "no number",
]

MEANING: Mapping[Status, str] = {
    "agrees": "The 95 % interval of ours minus the paper's lies within the agreement margin, by complete trainings or "
    "with a bound that is no worse than the paper's; of a quantity without noise: equal up to the printed rounding.",
    "better": "That interval excludes zero and leaves the margin, in the better direction; this needs no completeness.",
    "worse": "That interval excludes zero and leaves the margin, in the worse direction, by complete trainings.",
    "not told apart": "Neither of these, or fewer seeds than the metric needs, or agreement by incomplete trainings.",
    "still improving": "Worse by incomplete trainings; the gain by the last doubling of the budget is given.",
    "incomplete": "Worse by incomplete trainings of which no doubling was measured.",
    "untrusted": "The value does not pass the two checks of its solve.",
    "reaches": "Another model attains the value, by the worse bound of its interval; no verdict on the paper's model.",
    "other protocol": "Another model, other data or another test protocol.",
    "differs": "A quantity without noise that differs by more than the printed rounding.",
    "no verdict": "The runs break the rule (settings, seeds, values that are not finite); the reason names what.",
    "no data": "The data ship neither with the package nor were they fetched by any run.",
    "not run": "No run of ours.",
    "cited": "A model that the suite quotes and does not run.",
    "no number": "The paper prints an order of growth; see its claims.",
}
"""Every word of a verdict with its meaning."""


@dataclass(frozen=True)
class Comparability:
    """Relation of a cell's model, data and test to those of the paper's number.

    Attributes:
        model: The model is the paper's, or one that its text leaves open.
        data: Training and test data are the paper's.
        test: The test protocol is the paper's.
        same_test_set: The test points are the paper's, so that their number adds no noise.
        open: Settings that the paper leaves open and that were fixed before the runs.
        reason: What differs, where something does.
    """

    model: bool = True
    data: bool = True
    test: bool = True
    same_test_set: bool = True
    open: tuple[str, ...] = ()
    reason: str = ""

    @property
    def comparable(self) -> bool:
        """Check that a verdict may be given."""
        return self.model and self.data and self.test


@dataclass(frozen=True)
class Trust:
    """Checks of a number's solves, the worst over the seeds.

    Attributes:
        reconstruction_error: Largest relative error after a solve forward and back; None if it was not measured.
        value_drift: Largest change at a tenth of the tolerance, in the metric's unit; None if it was not measured.
        limit: Largest drift of a trusted number.
    """

    reconstruction_error: float | None = None
    value_drift: float | None = None
    limit: float = math.inf

    @property
    def holds(self) -> bool | None:
        """Check both; None where one of them was not measured and none fails."""
        checks = [self._reconstructs(), self._is_stable()]
        return False if False in checks else None if None in checks else True

    def _reconstructs(self) -> bool | None:
        error = self.reconstruction_error
        return None if error is None else error <= RECONSTRUCTION_LIMIT  # false for nan

    def _is_stable(self) -> bool | None:
        return None if self.value_drift is None else abs(self.value_drift) <= self.limit

    @property
    def reason(self) -> str:
        """Name the check that fails; empty where none does."""
        failures = []
        if self._reconstructs() is False:
            size = (
                f"{self.reconstruction_error:.2g}" if math.isfinite(self.reconstruction_error or 0.0) else "not finite"
            )
            failures.append(f"reconstruction error {size}, limit {RECONSTRUCTION_LIMIT:g}")
        if self._is_stable() is False:
            failures.append(f"drift {self.value_drift:+.2g} at a tenth of the tolerance, limit {self.limit:g}")
        return "; ".join(failures)


@dataclass(frozen=True)
class Evidence:
    """Runs that stand beside a published number.

    Attributes:
        values: Final value by seed, in the published unit.
        comparability: Their relation to the paper's model, data and test.
        complete: Completeness of their training.
        trust: Checks of their solves.
        test_error: Standard error of the test set's finite size, for a test set other than the paper's.
        problem: One sentence if the runs break the rule; no verdict is given then.
    """

    values: Mapping[int, float]
    comparability: Comparability = field(default_factory=Comparability)
    complete: Completeness = field(default_factory=lambda: Completeness("no training", "nothing is trained"))
    trust: Trust = field(default_factory=Trust)
    test_error: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Verdict:
    """Verdict on a published number.

    Attributes:
        status: The word.
        reason: What decided, in one line.
        difference: Ours minus the paper's with its 95 % interval; None where there is none.
        margin: The agreement margin; None where it was not asked for.
    """

    status: Status
    reason: str
    difference: Interval | None = None
    margin: float | None = None

    def __str__(self) -> str:
        return self.status


def compare_exactly(number: Published, ours: float) -> Verdict:
    """Compare a quantity without noise, such as a parameter count, up to the printed rounding."""
    if number.value is None:
        return Verdict("no number", "the paper prints no number")
    if not math.isfinite(ours):
        return Verdict("no verdict", "the value is not finite")
    difference = ours - number.value
    equal = _at_most(abs(difference), number.printed_half_unit)
    reason = "equal up to the printed rounding" if equal else "beyond the printed rounding"
    return Verdict("agrees" if equal else "differs", reason, Interval(difference, difference, difference))


def judge(number: Published, evidence: Evidence) -> Verdict:
    """Judge a trained number by the rule of this module."""
    if number.value is None:
        return Verdict("no number", "the paper prints no number")
    if not evidence.values:
        return Verdict("not run", "no run of ours")
    if not all(map(math.isfinite, evidence.values.values())):
        return Verdict("no verdict", "a value of ours is not finite")
    margins = published_margins(number)
    if margins is None or margins.agreement is None or not number.better:
        return Verdict("no verdict", "the metric has no margins")
    difference, excess = _differences(number, evidence)
    status, reason = _decide(number, evidence, margins, excess)
    return Verdict(status, reason, difference, margins.agreement)


def _differences(number: Published, evidence: Evidence) -> tuple[Interval, Interval]:
    """Compute ours minus the paper's with its 95 % interval, and the same signed so that positive is worse.

    Without any spread the interval is the whole line.
    """
    values = list(evidence.values.values())
    assert number.value is not None
    value = fmean(values) - number.value
    sources = _sources(number, values, evidence.test_error)
    half = math.inf if sources is None else welch_half_width(*sources)
    difference = Interval(value, value - half, value + half)
    return difference, difference if number.better == "lower" else -difference


def _sources(number: Published, values: list[float], test_error: float) -> list[Source] | None:
    """List the sources of noise of ours minus the paper's; None if no spread over seeds is available on either side."""
    n, test = len(values), [(test_error, math.inf)] if test_error else []
    if number.spread is not None and number.n_runs:
        theirs = (number.spread / math.sqrt(number.n_runs), number.n_runs - 1.0)
        ours = (stdev(values) / math.sqrt(n), n - 1.0) if n > 1 else (number.spread, number.n_runs - 1.0)
        return [ours, theirs, *test]
    if n < 2:
        return None
    return [(stdev(values) * math.sqrt(1 / n + 1), n - 1.0), *test]  # the paper's single run spreads as ours do


def _decide(number: Published, evidence: Evidence, margins: Margins, excess: Interval) -> tuple[Status, str]:
    """Decide on finite values; `excess` is positive where ours is worse."""
    settings, rounding = evidence.comparability, number.printed_half_unit
    if not settings.comparable:
        reaches = settings.data and settings.test and _at_most(excess.high, rounding)
        return ("reaches" if reaches else "other protocol"), settings.reason
    if evidence.problem:
        return "no verdict", evidence.problem
    if evidence.trust.holds is False and not margins.keeps_tolerance:
        return "untrusted", evidence.trust.reason
    if len(evidence.values) < margins.seeds:
        return _decide_on_few(evidence, margins, excess)
    return _test_equivalence(evidence.complete, margins, excess, rounding)


def _decide_on_few(evidence: Evidence, margins: Margins, excess: Interval) -> tuple[Status, str]:
    """Decide on fewer seeds than the metric needs: at most an incomplete training can be told from them."""
    assert margins.agreement is not None
    count = f"{len(evidence.values)} of {margins.seeds} seeds"
    if not evidence.complete.holds and excess.value > margins.agreement:
        return _incomplete(evidence.complete, count)
    return "not told apart", count


def _test_equivalence(
    complete: Completeness, margins: Margins, excess: Interval, rounding: float
) -> tuple[Status, str]:
    """Test for equivalence within the agreement margin, and else for a difference."""
    assert margins.agreement is not None
    if excess.lies_within(margins.agreement):
        settled = complete.holds or _at_most(excess.high, rounding)
        return ("agrees", complete.reason) if settled else ("not told apart", f"incomplete: {complete.reason}")
    if excess.high < -rounding:
        return "better", complete.reason
    if excess.low > rounding:
        return ("worse", complete.reason) if complete.holds else _incomplete(complete)
    return "not told apart", "the interval lies neither within the margin nor apart from the paper's value"


def _incomplete(complete: Completeness, note: str = "") -> tuple[Status, str]:
    reason = "; ".join(filter(None, (complete.reason, note)))
    return ("incomplete" if complete.gain is None else "still improving"), reason


def _at_most(value: float, bound: float) -> bool:
    """Compare with the slack that decimal fractions need in binary: 0.425 − 0.42 is not above 0.005."""
    return value <= bound or math.isclose(value, bound, rel_tol=1e-9, abs_tol=1e-12)


def interval_of_ours(evidence: Evidence) -> Interval | None:
    """Compute Student's 95 % interval of the mean over the seeds; None for one seed."""
    return student_interval(list(evidence.values.values()))
