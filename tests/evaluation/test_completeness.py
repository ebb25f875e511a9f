"""Completeness of trainings: synthetic learning curves with known limits, and pairs that break the rule."""

import math

import numpy as np
import pytest

from repro.evaluation.completeness import Pair, RuleError, completeness, gain_within_run
from repro.evaluation.margins import Margins

MARGINS = Margins(0.10, 0.25, 5)


def pair(gain, budget=10.0, seeds=5, noise=0.0, **changes):
    stream = np.random.default_rng(0)
    first = {seed: 1.0 + 0.01 * seed for seed in range(seeds)}
    second = {seed: value - gain + noise * stream.standard_normal() for seed, value in first.items()}
    return Pair(**{"budgets": (budget, 2 * budget), "first": first, "second": second} | changes)


def decide(pairs=(), budget=20.0, full=160.0, **options):
    return completeness(MARGINS, "lower", budget=budget, full=full, pairs=pairs, **options)


def test_the_full_budget_is_complete_and_less_is_not():
    assert decide(budget=160.0).by == "full budget"
    assert not decide(budget=159.0).holds
    assert "12.5% of the budget" in decide().reason


def test_a_stopping_rule_is_complete():
    assert decide(stopped=True).by == "stopping rule"


def test_what_is_not_trained_is_complete():
    assert decide(budget=None).by == "no training"


@pytest.mark.parametrize(
    ("gain", "holds"),
    [(0.03, True), (0.034, False), (-0.5, True)],  # three doublings from 20 to 160: 0.1 / 3
)
def test_the_gain_is_extrapolated_to_the_full_budget(gain, holds):
    result = decide([pair(gain)])
    assert result.holds == holds
    assert result.gain == pytest.approx(gain)
    assert result.upper == pytest.approx(gain)
    assert result.by == ("doubling" if holds else "")


def test_noise_over_seeds_counts_by_its_upper_bound():
    assert decide([pair(0.0, noise=0.001)]).holds
    noisy = decide([pair(0.0, noise=0.2)])
    assert not noisy.holds
    assert noisy.upper > noisy.gain


def test_one_seed_has_no_bound():
    result = decide([pair(0.0, seeds=1)])
    assert not result.holds
    assert result.upper is None
    assert "one seed" in result.reason


def test_an_unknown_full_budget_needs_two_successive_doublings():
    small, large = pair(0.01, 10.0), pair(0.01, 20.0)
    assert not decide([large], budget=40.0, full=None).holds
    assert decide([small, large], budget=40.0, full=None).by == "doubling"
    assert not decide([pair(0.5, 10.0), large], budget=40.0, full=None).holds


def test_without_a_margin_only_the_stopping_rule_is_complete():
    margins = Margins(None, 1.0, 3)
    assert not completeness(margins, "lower", budget=1.0, full=None, pairs=[pair(0.0)]).holds
    assert completeness(margins, "lower", budget=1.0, full=None, stopped=True).holds


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings_differ": ("batch", "solver")}, "differs in batch, solver"),
        ({"budgets": (10.0, 30.0)}, "budgets 10 and 30"),
        ({"second": {0: 1.0, 7: 1.0}}, "seeds of the doubling pair differ: 0 1 2 3 4 and 0 7"),
        ({"second": {0: math.nan, 1: 1.0}}, "not finite"),
    ],
)
def test_a_pair_that_breaks_the_rule_is_one_sentence_and_no_verdict(changes, words):
    with pytest.raises(RuleError, match=words):
        decide([pair(0.0, **changes)])


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_gain_is_positive_where_more_is_better(better):
    sign = 1 if better == "lower" else -1
    values = dict.fromkeys(range(3), 1.0)
    gains = Pair((1.0, 2.0), values, dict.fromkeys(values, 1.0 - 0.2 * sign)).gains(better)
    assert gains == pytest.approx([0.2] * 3)


def test_one_run_is_read_at_half_and_at_all_of_its_budget():
    steps = np.arange(1.0, 1001.0)
    half, whole = gain_within_run(steps.tolist(), (1 / steps).tolist())
    assert half == pytest.approx(np.mean(1 / np.arange(451, 501)))
    assert whole == pytest.approx(np.mean(1 / np.arange(901, 1001)))


@pytest.mark.parametrize("steps", [[], [1000.0], [100.0, 1000.0]])
def test_a_curve_without_points_in_the_last_tenths_is_refused(steps):
    with pytest.raises(RuleError, match="last tenth"):
        gain_within_run(steps, [1.0] * len(steps))


def test_a_curve_of_known_limit_becomes_complete_when_its_rest_is_small():
    """Error a + c / b: the gain per doubling is c / 2b, the rest below it; complete means the rest is in the margin."""
    for budget in (10.0, 20.0, 40.0, 80.0):
        values = [dict.fromkeys(range(3), 0.4 + 2.0 / b) for b in (budget, 2 * budget)]
        result = decide([Pair((budget, 2 * budget), *values)], budget=2 * budget)
        if result.holds:
            assert 2.0 / (2 * budget) - 2.0 / 160 <= MARGINS.completeness
