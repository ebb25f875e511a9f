"""The table of whole trainings says what their files say: speed-ups within one machine, spread over seeds."""

import json

import pytest

from repro.report.training import finding, load_trainings, trainings


def entry(work, engine, seed, seconds, outcome):
    extra = {"training": work, "engine": engine, "gradient": "adjoint", "seed": seed, "updates": 1_000}
    extra |= {"total_seconds": seconds, "outcome": outcome, "outcome_error": 0.125, "unit": "% test error"}
    return {"extra_info": {**extra, "nfe_forward": 20.0, "nfe_backward": 10.5}, "stats": {"median": 1.0}}


@pytest.fixture
def folder(tmp_path):
    for machine, factor in (("a", 1), ("b", 10)):
        (tmp_path / machine).mkdir()
        entries = [
            entry("one", "torchdiffeq", 0, 100.0 * factor, 2.0),
            entry("one", "compiled", 0, 25.0 * factor, 2.1),
            *(entry("many", "torchdiffeq", seed, 10.0, 1.0 + seed) for seed in (0, 1)),
            *(entry("many", "compiled", seed, 4.0 + 2 * seed, 1.0 + seed) for seed in (0, 1)),
        ]
        (tmp_path / machine / "training.json").write_text(json.dumps({"benchmarks": entries}))
    return tmp_path


def test_speed_ups_are_within_a_machine_and_means_over_seeds(folder):
    table = trainings(load_trainings(folder)).set_index(["machine", "training", "engine"])
    assert table.loc[("a", "one", "compiled"), "times as fast"] == "4.00"
    assert table.loc[("b", "one", "compiled"), "times as fast"] == "4.00"
    assert table.loc[("b", "one", "compiled"), "time"] == "250 s"
    assert table.loc[("a", "many", "compiled"), ["times as fast", "seeds"]].tolist() == ["2.00", "2"]
    assert table.loc[("a", "many", "torchdiffeq"), "times as fast"] == "1.00"


def test_an_ending_has_the_spread_over_seeds_or_else_over_the_test_set(folder):
    table = trainings(load_trainings(folder)).set_index(["machine", "training", "engine"])
    assert table.loc[("a", "one", "compiled"), "ends with"] == "2.100 ± 0.12 % test error"
    assert table.loc[("a", "many", "compiled"), "ends with"] == "1.500 ± 0.71 % test error"


def test_the_finding_says_what_is_saved(folder):
    said = finding(load_trainings(folder))
    assert said.startswith(
        "One takes 25 s by the compiled engine and adjoint instead of 100 s by torchdiffeq and adjoint (4.0 times as "
        "fast) and ends with 2.100"
    )


def test_the_finding_sets_the_difference_of_the_ends_against_its_error(folder):
    said = finding(load_trainings(folder))
    assert (
        "a difference of 0.1 [-0.25, 0.45] (95 % interval over the test set): one seed cannot tell" in said
    )  # 1.96 · 0.125 √2
    lines = load_trainings(folder)
    lines.loc[lines["engine"] == "compiled", "outcome"] += [0.0, 0.25, 0.5] * 2
    said = finding(lines)
    # paired 12.7 · 0.25 / √2 / √2; independent seeds by Welch 4.6 · 0.79
    assert (
        "a difference of 0.38 (95 % intervals [-1.2, 2] paired by seed and [-3.2, 4] by independent seeds, over 2 "
        "seeds): this test cannot tell" in said
    )


def test_ends_differ_only_where_both_intervals_exclude_zero(folder):
    lines = load_trainings(folder)
    fast = lines["engine"] == "compiled"
    lines.loc[fast, "outcome"] += 0.5  # paired without spread; seeds 0 and 1 are far apart
    assert "[0.5, 0.5] paired by seed and [" in (said := finding(lines))
    assert said.endswith("seeds): this test cannot tell.")
    lines.loc[fast, "outcome"] += 50.0
    assert finding(lines).endswith("seeds): the ends differ.")


def test_trainings_of_other_seeds_are_not_subtracted(folder):
    lines = load_trainings(folder)
    lines.loc[lines["engine"] == "compiled", "seed"] += 7
    assert "a difference that no common seed tells" in finding(lines)


def test_nothing_measured_is_nothing_said(tmp_path):
    assert len(load_trainings(tmp_path)) == 0
