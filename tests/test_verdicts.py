"""The rule that compares ours with the paper's, and the table of published numbers."""

import dataclasses
import math
from collections import Counter
from pathlib import Path
from statistics import NormalDist

import pytest
from scipy import stats

from repro.published import HEADER, RUN_SPREAD, TEST_POINT_SPREAD
from repro.verdicts import (
    Published,
    PublishedError,
    binomial_interval,
    error_verdict,
    load_published,
    verdict,
    z_statistic,
)

TABLE = Path(__file__).parents[1] / "results" / "published.csv"


def paper(printed="10.00", spread="", better="lower", note="", source="FFJORD v3, Table 3"):
    return Published("paper/table", "cell", "metric", "method", printed, spread, "nats", better, source, note)


def status(published, ours, **options):
    return verdict(published, ours, **{"tier": "paper", **options}).status


# --- the rule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expected", "published", "ours", "options"),
    [
        ("not run", paper(), [], {}),
        ("not run", paper(printed=""), [], {"tier": "smoke"}),
        ("not comparable", paper(printed=""), [1.0], {}),
        ("not comparable", paper(), [10.0, 10.0], {"tier": "small"}),
        ("not comparable", paper(), [10.0, 10.0], {"comparable": False}),
        ("match", paper(), [10.004, 9.999], {}),
        ("match", paper(), [10.3, 9.8, 10.1], {}),
        ("worse", paper(), [10.3, 10.31, 10.29], {}),
        ("better", paper(), [9.7, 9.71, 9.69], {}),
        ("worse", paper(better="higher"), [9.7, 9.71, 9.69], {}),
        ("match", paper(spread="0.20", note=RUN_SPREAD), [10.3, 10.31, 10.29], {}),
        ("inconclusive", paper(), [10.0], {}),
        ("inconclusive", paper(), [99.0], {}),
        ("inconclusive", paper(spread="0.20"), [10.5], {}),
        ("worse", paper(spread="0.20"), [10.7], {}),
        ("better", paper(spread="0.20"), [9.3], {}),
        ("inconclusive", paper(spread="0.20"), [10.7], {"common_error": 0.5}),
        ("better", paper(), [9.0], {"common_error": 0.3}),
        ("differs", paper(better=""), [12.0, 12.0], {}),
        ("match", paper(better=""), [10.0, 10.0], {}),
        ("inconclusive", paper(), [10.0, math.nan], {}),
        ("inconclusive", paper(), [10.0, math.inf], {}),
        ("inconclusive", paper(), [math.nan], {"deterministic": True}),
    ],
)
def test_known_cases(expected, published, ours, options):
    assert status(published, ours, **options) == expected


@pytest.mark.parametrize("options", [{}, {"tier": "smoke"}, {"comparable": False}])
@pytest.mark.parametrize(("ours", "expected"), [(0.224, "match"), (0.208266, "better"), (0.232970, "worse")])
def test_what_has_no_noise_compares_at_any_tier(ours, expected, options):
    assert status(paper("0.22"), [ours], deterministic=True, **options) == expected


@pytest.mark.parametrize(
    ("printed", "half_unit"),
    [("1.60", 0.005), ("0.6", 0.05), ("-157.40", 0.005), ("0.3937", 5e-5), ("12", 0.5), ("44.0", 0.05), ("", 0.0)],
)
def test_half_a_unit_of_the_last_printed_digit(printed, half_unit):
    assert paper(printed).printed_half_unit == pytest.approx(half_unit)


@pytest.mark.parametrize("printed", ["0.42", "1.60", "-157.40", "104.28", "8"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_boundary_belongs_to_match_and_what_is_beyond_does_not(printed, sign):
    row = paper(printed)
    edge = row.value + sign * row.printed_half_unit
    assert status(row, [edge, edge]) == "match"
    beyond = row.value + sign * 1.001 * row.printed_half_unit
    assert status(row, [beyond, beyond]) == ("worse" if sign > 0 else "better")


def test_one_seed_at_exactly_three_spreads_is_inconclusive():
    row = paper(spread="0.20")
    assert status(row, [10.6]) == "inconclusive"
    assert status(row, [10.601]) == "worse"


def test_one_seed_must_also_leave_the_printed_rounding():
    assert status(paper(), [10.004], common_error=1e-9) == "inconclusive"
    assert status(paper(), [10.006], common_error=1e-9) == "worse"


def test_the_tolerance_is_welchs_interval():
    ours, theirs = [10.3, 9.8, 10.1, 10.6], stats.norm.ppf([0.2, 0.5, 0.8])
    spread = f"{theirs.std(ddof=1):.6f}"
    result = verdict(paper(f"{theirs.mean():.6f}", spread), ours, tier="paper", n_published=3)
    interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert result.tolerance == pytest.approx((interval.high - interval.low) / 2, rel=1e-5)
    assert result.difference == pytest.approx((interval.high + interval.low) / 2, abs=1e-5)


def test_without_a_published_spread_it_is_the_one_sample_interval():
    ours = [10.3, 9.8, 10.1]
    interval = stats.ttest_1samp(ours, 10.0).confidence_interval(0.95)
    assert verdict(paper(), ours, tier="paper").tolerance == pytest.approx((interval.high - interval.low) / 2)


def test_what_the_published_spread_is_over_sets_its_share():
    ours = [10.0, 10.0]

    def tolerance(note, n=None):
        return verdict(paper(spread="0.30", note=note), ours, tier="paper", n_published=n).tolerance

    three_runs = stats.t.ppf(0.975, 2) * 0.30 / math.sqrt(3)
    assert tolerance(RUN_SPREAD) == pytest.approx(three_runs)
    assert tolerance("", n=3) == pytest.approx(three_runs)
    two_errors = NormalDist().inv_cdf(0.975) * 0.15
    assert tolerance(TEST_POINT_SPREAD) == tolerance("") == pytest.approx(two_errors)


def test_a_spread_cannot_come_from_one_run():
    with pytest.raises(ValueError, match="at least 2"):
        verdict(paper(spread="0.1"), [1.0, 2.0], tier="paper", n_published=1)


@pytest.mark.parametrize("sd", [-0.1, math.nan, math.inf])
def test_a_common_error_must_be_one(sd):
    with pytest.raises(ValueError, match="common_error"):
        verdict(paper(), [10.0], tier="paper", common_error=sd)


MIRROR = {"better": "worse", "worse": "better"}
SHIFTS = (-2.0, -0.5, -0.01, -0.001, 0.0, 0.002, 0.02, 0.4, 3.0)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("spread", ["", "0.10"])
@pytest.mark.parametrize("residuals", [[0.0], [0.0, 0.0], [-0.2, 0.2, 0.0]])
@pytest.mark.parametrize("deterministic", [False, True])
def test_exchanging_lower_and_higher_or_the_sign_exchanges_better_and_worse(shift, spread, residuals, deterministic):
    row = paper(spread=spread)
    options = {"tier": "paper", "deterministic": deterministic}
    given = verdict(row, [10 + shift + r for r in residuals], **options)
    swapped = verdict(dataclasses.replace(row, better="higher"), [10 + shift + r for r in residuals], **options)
    negated = verdict(row, [10 - shift - r for r in residuals], **options)
    assert swapped.status == negated.status == MIRROR.get(given.status, given.status)
    assert negated.difference == pytest.approx(-given.difference)
    assert negated.tolerance == pytest.approx(given.tolerance)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_more_noise_never_makes_a_verdict_more_decided(shift, n):
    # true where that noise is all there is; else noise known with more degrees of freedom may narrow the interval
    results = [
        verdict(paper(spread="0.05"), [10 + shift] * n, tier="paper", common_error=error)
        for error in (0.0, 0.01, 0.1, 1.0, 10.0)
    ]
    tolerances = [result.tolerance for result in results]
    assert tolerances == sorted(tolerances)
    decided = [result.status in MIRROR for result in results]
    assert decided == sorted(decided, reverse=True)


# --- error rates ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("errors", "n"), [(42, 10_000), (0, 100), (100, 100), (1, 1), (160, 10_000)])
def test_binomial_interval_is_wilsons(errors, n):
    expected = stats.binomtest(errors, n).proportion_ci(0.95, method="wilson")
    assert binomial_interval(errors, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("errors", "n"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_rejected(errors, n):
    with pytest.raises(ValueError, match="not a rate"):
        binomial_interval(errors, n)
    with pytest.raises(ValueError, match="not a rate"):
        z_statistic(0, errors, n)


def test_the_papers_three_mnist_errors_cannot_be_told_apart():
    for a, b in ((41, 42), (42, 47), (41, 47)):
        assert abs(z_statistic(a, b, 10_000)) < 1
        assert z_statistic(a, b, 10_000) == -z_statistic(b, a, 10_000) < 0
    assert z_statistic(160, 42, 10_000) > 8


def test_two_proportion_z_is_the_root_of_chi_squared():
    table = [[60, 940], [40, 960]]
    assert z_statistic(60, 40, 1000) ** 2 == pytest.approx(stats.chi2_contingency(table, correction=False)[0])
    assert z_statistic(0, 0, 10) == z_statistic(10, 10, 10) == 0


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    return load_published(TABLE)


def find(table, experiment, cell, metric, method):
    (row,) = [r for r in table if (r.experiment, r.cell, r.metric, r.method) == (experiment, cell, metric, method)]
    return row


def test_every_experiment_has_the_rows_of_its_table(table):
    # Rows that NSF's and MAF's tables repeat from FFJORD's (FFJORD, NAF = MAF-DDSF, MADE) stand here once.
    assert Counter(row.experiment for row in table) == {
        "neural_ode/table1_mnist": 4 + 4 + 3 + 3,  # error, parameters; memory and time but for the MLP
        "neural_ode/table2_spirals": 2 * 3,
        "ffjord/table2_tabular": (7 + 8 + 7) * 5,  # FFJORD's own table, NSF's, MAF's
        "ffjord/table2_images": 2 * 5 + 1 + 2 + 3,  # FFJORD's; its single flow; NSF's bits/dim and parameters
        "ffjord/table3_vae": 5 * 4,
    }


def test_cells_and_metrics_are_the_agreed_ones(table):
    cells = {}
    for row in table:
        cells.setdefault((row.experiment, row.metric, row.unit), set()).add(row.cell)
    models = {"mlp", "resnet", "rknet", "odenet"}
    assert cells == {
        ("neural_ode/table1_mnist", "test_error", "%"): models,
        ("neural_ode/table1_mnist", "parameters", "M"): models,
        ("neural_ode/table1_mnist", "memory", ""): models - {"mlp"},
        ("neural_ode/table1_mnist", "time", ""): models - {"mlp"},
        ("neural_ode/table2_spirals", "test_rmse", "data units"): {"30", "50", "100"},
        ("ffjord/table2_tabular", "test_nll", "nats"): {"power", "gas", "hepmass", "miniboone", "bsds300"},
        ("ffjord/table2_images", "bits_per_dim", "bits/dim"): {"mnist", "cifar10"},
        ("ffjord/table2_images", "parameters", "M"): {"cifar10"},
        ("ffjord/table3_vae", "negative_elbo", "nats"): {"mnist", "omniglot", "caltech101"},
        ("ffjord/table3_vae", "negative_elbo", "bits/dim"): {"freyfaces"},
    }


@pytest.mark.parametrize(
    ("key", "printed", "spread"),
    [
        (("neural_ode/table1_mnist", "mlp", "test_error", "1-layer MLP"), "1.60", ""),
        (("neural_ode/table1_mnist", "odenet", "test_error", "ODE-Net"), "0.42", ""),
        (("neural_ode/table1_mnist", "rknet", "test_error", "RK-Net"), "0.47", ""),
        (("neural_ode/table1_mnist", "resnet", "parameters", "ResNet"), "0.60", ""),
        (("neural_ode/table1_mnist", "odenet", "memory", "ODE-Net"), "", ""),
        (("neural_ode/table2_spirals", "30", "test_rmse", "RNN"), "0.3937", ""),
        (("neural_ode/table2_spirals", "100", "test_rmse", "Latent ODE"), "0.1346", ""),
        (("ffjord/table2_tabular", "power", "test_nll", "FFJORD"), "-0.46", "0.01"),
        (("ffjord/table2_tabular", "miniboone", "test_nll", "FFJORD"), "10.43", "0.04"),
        (("ffjord/table2_tabular", "bsds300", "test_nll", "Real NVP"), "-153.28", "1.78"),
        (("ffjord/table2_tabular", "gas", "test_nll", "RQ-NSF (AR)"), "-13.09", ""),
        (("ffjord/table2_tabular", "bsds300", "test_nll", "Gaussian"), "-96.67", "0.25"),
        (("ffjord/table2_images", "mnist", "bits_per_dim", "FFJORD"), "0.99", ""),
        (("ffjord/table2_images", "mnist", "bits_per_dim", "FFJORD (encoder-decoder)"), "1.05", ""),
        (("ffjord/table2_images", "cifar10", "bits_per_dim", "Glow"), "3.35", ""),
        (("ffjord/table3_vae", "mnist", "negative_elbo", "FFJORD"), "82.82", "0.01"),
        (("ffjord/table3_vae", "caltech101", "negative_elbo", "No flow"), "110.80", "0.46"),
    ],
)
def test_spot_values_with_the_printed_digits(table, key, printed, spread):
    row = find(table, *key)
    assert (row.printed, row.printed_spread) == (printed, spread)


def test_log_likelihoods_changed_sign_and_say_so(table):
    others = [row for row in table if row.experiment == "ffjord/table2_tabular" and "FFJORD" not in row.source]
    assert len(others) == 15 * 5
    assert all("secondary source" in row.note and "sign changed" in row.note for row in others)
    # the same architecture in two papers: Real NVP of 10 layers is FFJORD's baseline on POWER
    ours, theirs = (find(table, "ffjord/table2_tabular", "power", "test_nll", m) for m in ("Real NVP", "Real NVP (10)"))
    assert ours.value == theirs.value


def test_lower_is_better_wherever_there_is_a_number(table):
    sizes = [row for row in table if row.metric == "parameters"]
    assert all(row.better == "" for row in sizes)
    assert all(row.better == ("lower" if row.printed else "") for row in table if row not in sizes)
    assert all(row.note.startswith("O(") for row in table if not row.printed)


def test_spreads_over_runs_are_told_from_those_over_test_points(table):
    for row in table:
        if row.method == "FFJORD" and row.printed_spread:
            assert row.n_runs == 3
        if row.method in ("MADE", "MAF", "Real NVP", "Gaussian") and row.printed_spread:
            assert row.n_runs is None
            assert TEST_POINT_SPREAD in row.note


# --- the schema -----------------------------------------------------------------------------------------------------

GOOD = "e,c,m,method,1.0,0.1,nats,lower,source,note"


@pytest.mark.parametrize(
    ("lines", "line", "complaint"),
    [
        ([], 1, "header"),
        (["experiment,cell"], 1, "header"),
        ([",".join((*HEADER[1:], HEADER[0])), GOOD], 1, "header"),
        ([",".join(HEADER), GOOD, GOOD], 3, "came before"),
        ([",".join(HEADER), GOOD, "e,c,m,other,2.0"], 3, "5 fields, expected 10"),
        ([",".join(HEADER), GOOD, ""], 3, "0 fields"),
        ([",".join(HEADER), GOOD + ",more"], 2, "11 fields"),
        ([",".join(HEADER), GOOD.replace("1.0", "1.0*")], 2, "value is '1.0*'"),
        ([",".join(HEADER), GOOD.replace("1.0", "\N{MINUS SIGN}1.0")], 2, "value is "),
        ([",".join(HEADER), GOOD.replace("1.0", "nan")], 2, "value is 'nan'"),
        ([",".join(HEADER), GOOD.replace("0.1", " .1")], 2, "spread is ' .1'"),
        ([",".join(HEADER), GOOD.replace("0.1", "-0.1")], 2, "negative"),
        ([",".join(HEADER), GOOD.replace("1.0", "")], 2, "needs a value"),
        ([",".join(HEADER), GOOD.replace("lower", "less")], 2, "better is 'less'"),
        ([",".join(HEADER), GOOD.replace("source", "")], 2, "may not be empty"),
        ([",".join(HEADER), GOOD.replace("note", '"two\nlines"'), GOOD], 4, "came before"),
    ],
)
def test_a_broken_table_is_rejected_with_the_line(tmp_path, lines, line, complaint):
    path = tmp_path / "published.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(PublishedError) as caught:
        load_published(path)
    assert f"{path}, line {line}: " in str(caught.value)
    assert complaint in str(caught.value)


def test_a_sound_table_is_read_as_printed(tmp_path):
    path = tmp_path / "published.csv"
    path.write_text("\n".join([",".join(HEADER), GOOD, "e,c,m,none,,,,,source,"]) + "\n", encoding="utf-8")
    first, second = load_published(path)
    assert (first.value, first.spread, first.printed, first.printed_half_unit) == (1.0, 0.1, "1.0", 0.05)
    assert (second.value, second.spread, second.better) == (None, None, "")


def errors(printed="0.42"):
    return paper(printed)


@pytest.mark.parametrize(
    ("expected", "ours"),
    [
        ("inconclusive", [0.45]),
        ("inconclusive", [0.60]),
        ("worse", [1.00]),
        ("match", [0.45, 0.47, 0.44]),
        ("match", [0.50, 0.51, 0.50, 0.51, 0.50]),
        ("worse", [0.80, 0.81, 0.80, 0.81, 0.80]),
        ("worse", [1.50, 1.52]),
        ("worse", [0.75, 0.77, 0.79]),
        ("not run", []),
    ],
)
def test_error_rates_carry_the_noise_of_a_finite_test_set(expected, ours):
    assert error_verdict(errors(), ours, 10_000, tier="paper").status == expected


def test_two_seeds_do_not_make_the_test_sets_noise_uncertain():
    of_test = [100 * math.sqrt(p * (1 - p) / 10_000) for p in (0.0151, 0.0042)]
    tolerance = error_verdict(errors(), [1.51, 1.51], 10_000, tier="paper").tolerance
    assert tolerance == pytest.approx(stats.norm.ppf(0.975) * math.hypot(*of_test))


def test_more_seeds_do_not_make_the_test_set_larger():
    ours = [0.50, 0.51] * 50
    assert error_verdict(errors(), ours, 10_000, tier="paper").status == "match"
    assert error_verdict(errors(), ours, 10_000_000, tier="paper").status == "worse"


def test_an_error_of_a_lower_tier_or_another_protocol_is_not_compared():
    assert error_verdict(errors(), [0.42], 10_000, tier="small").status == "not comparable"
    assert error_verdict(errors(), [0.42], 10_000, tier="paper", comparable=False).status == "not comparable"
