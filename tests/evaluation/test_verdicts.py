"""Each word of the verdict on synthetic runs with known answers, and negative controls."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from repro.evaluation.completeness import Completeness
from repro.evaluation.verdicts import MEANING, Comparability, Evidence, Trust, compare_exactly, judge
from repro.published import RUN_SPREAD, Published

COMPLETE = Completeness("full budget", "160 of 160")
SHORT = Completeness("", "12.5% of the budget; no doubling was measured")
IMPROVING = Completeness("", "12.5% of the budget", gain=0.08, upper=0.1)
FEW, ENOUGH = range(3), range(5)


def error(printed="0.42", better="lower"):
    return Published("neural_ode/table1_mnist", "odenet", "test_error", "ODE-Net", printed, "", "%", better, "v5", "")


def nll(printed="-0.46", spread="0.01"):
    note = RUN_SPREAD if spread else ""
    key = ("ffjord/table2_tabular", "power", "test_nll", "FFJORD")
    return Published(*key, printed, spread, "nats", "lower", "FFJORD v3", note)


def spread_around(mean, deviation, seeds=ENOUGH):
    """Values with exactly this mean and standard deviation."""
    raw = np.linspace(-1, 1, len(seeds)) if len(seeds) > 1 else np.zeros(1)
    scale = deviation / raw.std(ddof=1) if len(seeds) > 1 else 0.0
    return dict(zip(seeds, (mean + scale * raw).tolist(), strict=True))


def status(number, values, complete=COMPLETE, **options):
    return judge(number, Evidence(values, complete=complete, **options)).status


@pytest.mark.parametrize(
    ("word", "values", "complete"),
    [
        ("agrees", spread_around(0.45, 0.05), COMPLETE),
        ("agrees", spread_around(0.42, 0.0), COMPLETE),
        ("not told apart", spread_around(0.45, 0.05), SHORT),
        ("not told apart", spread_around(0.45, 0.30), COMPLETE),
        ("not told apart", spread_around(0.54, 0.055), COMPLETE),  # [-0.05, 0.29]: a failure to reject is no agreement
        ("worse", spread_around(0.80, 0.05), COMPLETE),
        ("still improving", spread_around(0.80, 0.05), IMPROVING),
        ("incomplete", spread_around(0.80, 0.05), SHORT),
        ("better", spread_around(0.10, 0.01), SHORT),
        ("better", spread_around(0.10, 0.01), COMPLETE),
        ("agrees", spread_around(0.30, 0.02), SHORT),  # no worse by the interval's bad end: needs no completeness
        ("not told apart", spread_around(0.42, 0.01, FEW), COMPLETE),
        ("not told apart", spread_around(0.80, 0.01, FEW), COMPLETE),
        ("still improving", spread_around(0.80, 0.01, FEW), IMPROVING),
        ("incomplete", {0: 0.80}, SHORT),
        ("not told apart", {0: 0.42}, COMPLETE),
        ("no verdict", {0: 0.42, 1: math.nan}, COMPLETE),
        ("no verdict", {0: math.inf}, COMPLETE),
        ("not run", {}, COMPLETE),
    ],
)
def test_words_of_error_rates(word, values, complete):
    assert status(error(), values, complete) == word


@pytest.mark.parametrize(
    ("word", "values", "complete"),
    [
        ("agrees", spread_around(-0.46, 0.002, FEW), COMPLETE),
        ("worse", spread_around(-0.34, 0.005, FEW), COMPLETE),
        ("better", spread_around(-0.60, 0.005, FEW), SHORT),
        ("not told apart", spread_around(-0.44, 0.005, FEW), COMPLETE),
        ("incomplete", {0: -0.34}, SHORT),
    ],
)
def test_words_of_likelihoods_with_a_printed_spread(word, values, complete):
    assert status(nll(), values, complete) == word


@pytest.mark.parametrize(
    ("word", "settings"),
    [
        ("other protocol", Comparability(data=False, reason="other rows")),
        ("other protocol", Comparability(test=False, reason="another test")),
        ("reaches", Comparability(model=False, reason="one CNF")),
        ("other protocol", Comparability(model=False, data=False, reason="both")),
        ("better", Comparability(open=("optimiser",))),
    ],
)
def test_words_of_other_models_data_and_tests(word, settings):
    verdict = judge(nll(), Evidence(spread_around(-0.60, 0.005, FEW), settings, SHORT))
    assert verdict.status == word
    assert word == "better" or verdict.reason == settings.reason


def test_another_model_that_falls_short_or_is_uncertain_reaches_nothing():
    settings = Comparability(model=False)
    for values in (spread_around(-0.34, 0.005, FEW), spread_around(-0.50, 0.2, FEW)):
        assert judge(nll(), Evidence(values, settings)).status == "other protocol"


@pytest.mark.parametrize(
    ("trust", "holds"),
    [
        (Trust(1e-3, 0.001, 0.02), True),
        (Trust(0.5, 0.001, 0.02), False),
        (Trust(1e-3, -0.1, 0.02), False),
        (Trust(math.inf, 0.0, 0.02), False),
        (Trust(math.nan, 0.0, 0.02), False),
        (Trust(1e-3, None, 0.02), None),
        (Trust(0.5, None, 0.02), False),
        (Trust(), None),
    ],
)
def test_neither_check_alone_makes_a_number_trusted(trust, holds):
    assert trust.holds is holds
    assert bool(trust.reason) == (holds is False)
    verdict = judge(nll(), Evidence(spread_around(-0.46, 0.002, FEW), complete=COMPLETE, trust=trust))
    assert verdict.status == ("untrusted" if holds is False else "agrees")


def test_error_rates_keep_the_papers_tolerance_and_are_judged_all_the_same():
    trust = Trust(0.5, 0.0, 0.10)
    assert status(error(), spread_around(0.45, 0.05), trust=trust) == "agrees"


def test_a_broken_rule_is_never_a_verdict():
    assert status(error(), spread_around(0.45, 0.05), problem="seeds differ") == "no verdict"
    unlisted = dataclasses.replace(error(), metric="test_accuracy")
    assert status(unlisted, spread_around(0.45, 0.05)) == "no verdict"


def test_an_order_of_growth_is_no_number():
    assert status(error(printed=""), {0: 1.0}) == "no number"


@pytest.mark.parametrize(
    ("ours", "word"), [(0.224, "agrees"), (0.2249, "agrees"), (0.208, "differs"), (0.23, "differs")]
)
def test_what_has_no_noise_is_equal_up_to_the_printed_rounding(ours, word):
    assert compare_exactly(error("0.22", ""), ours).status == word


def test_every_word_has_a_meaning():
    words = {"agrees", "better", "worse", "not told apart", "still improving", "incomplete", "untrusted", "reaches"}
    rest = {"other protocol", "differs", "no verdict", "no data", "not run", "cited", "no number"}
    assert set(MEANING) == words | rest


def test_the_interval_without_a_printed_spread_takes_the_papers_run_for_one_of_ours():
    values = list(spread_around(0.5, 0.1).values())
    interval = judge(error(), Evidence(dict(enumerate(values)), complete=COMPLETE)).difference
    half = stats.t.ppf(0.975, 4) * 0.1 * math.sqrt(1 / 5 + 1)
    assert (interval.low, interval.high) == pytest.approx((0.08 - half, 0.08 + half))


def test_the_interval_with_a_printed_spread_is_welchs():
    values = spread_around(-0.40, 0.02, FEW)
    interval = judge(nll(spread="0.03"), Evidence(values, complete=COMPLETE)).difference
    theirs = spread_around(-0.46, 0.03, FEW)
    expected = stats.ttest_ind(list(values.values()), list(theirs.values()), equal_var=False).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_another_test_set_adds_its_noise():
    values = spread_around(-0.46, 0.002, FEW)
    narrow, wide = (judge(nll(), Evidence(values, complete=COMPLETE, test_error=e)).difference for e in (0.0, 0.05))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    assert judge(nll(), Evidence(values, complete=COMPLETE, test_error=0.05)).status == "not told apart"


MIRROR = {"better": "worse", "worse": "better"}


@pytest.mark.parametrize("shift", [-2.0, -0.5, -0.2, -0.01, 0.0, 0.002, 0.02, 0.2, 0.4, 3.0])
@pytest.mark.parametrize("deviation", [0.0, 0.02, 0.3])
def test_exchanging_lower_and_higher_or_the_sign_exchanges_better_and_worse(shift, deviation):
    given = status(error(), spread_around(0.42 + shift, deviation))
    swapped = status(error(better="higher"), spread_around(0.42 + shift, deviation))
    negated = status(error(), spread_around(0.42 - shift, deviation))
    assert swapped == negated == MIRROR.get(given, given)


@pytest.mark.parametrize("shift", [-1.0, -0.2, 0.0, 0.1, 1.0])
def test_more_noise_never_decides_more(shift):
    decided = [
        status(error(), spread_around(0.42 + shift, deviation)) != "not told apart"
        for deviation in (0.001, 0.01, 0.05, 0.2, 1.0, 10.0)
    ]
    assert decided == sorted(decided, reverse=True)


def test_a_wrong_model_is_rarely_said_to_agree():
    """Simulate networks whose true error lies on the margin: at most 5 % of the verdicts may say that they agree."""
    stream = np.random.default_rng(0)
    agreements = 0
    for _ in range(500):
        paper = f"{0.42 + 0.05 * stream.standard_normal():.2f}"
        values = dict(enumerate((0.42 + 0.25 + 0.05 * stream.standard_normal(5)).tolist()))
        agreements += status(error(paper), values) == "agrees"
    assert agreements <= 25
