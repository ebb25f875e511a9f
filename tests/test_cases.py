"""Claims of several cases: only all of them reproduce a claim, and what failed is told."""

import math

import pandas as pd
import pytest

from repro.cases import at_most_partly, curve_cases, final_cases, paired_cases
from repro.experiment import NOT_ATTEMPTED

PAIRS = {"one": ("a", "b"), "two": ("c", "d")}


def runs(*lines):
    """Final rows of an experiment e, one a run, from (cell, seed, value, status)."""
    frame = pd.DataFrame(lines, columns=["cell", "seed", "value", "status"]).astype({"value": float})
    names = frame["cell"] + frame["seed"].astype(str)
    return frame.assign(experiment="e", metric="m", machine="m", step=math.nan, run=names)


def good(*cells):
    return [(cell, 0, 1.0, "ok") for cell in cells]


def test_all_cases_together_keep_their_verdict_and_their_words():
    judgement = paired_cases(runs(*good("a", "b", "c", "d")), "e", PAIRS, "m").judged("reproduced", "numbers")
    assert (judgement.verdict, judgement.evidence) == ("reproduced", "numbers; seeds in common: 1")


@pytest.mark.parametrize(
    ("verdict", "capped"), [("reproduced", "partly"), ("partly", "partly"), ("not reproduced",) * 2]
)
def test_an_incomplete_set_is_at_most_partly_reproduced_and_says_so(verdict, capped):
    rows = runs(*good("a", "b", "c"), ("d", 0, 1.0, "diverged"), ("d", 1, 1.0, "budget"))
    judgement = paired_cases(rows, "e", PAIRS, "m").judged(verdict, "numbers")
    assert judgement.verdict == at_most_partly(verdict) == capped
    assert judgement.evidence == "numbers; seeds in common: 1; 1 of 2 cases; failed runs: 1 diverged; 1 budget"


def test_a_failed_seed_beside_a_good_one_is_told_and_takes_no_case_away():
    rows = runs(*good("a", "b", "c", "d"), ("a", 1, 1.0, "diverged"))
    judgement = paired_cases(rows, "e", PAIRS, "m").judged("reproduced", "numbers")
    assert judgement.verdict == "reproduced"
    assert judgement.evidence == "numbers; seeds in common: 1; failed runs: 1 diverged"


def test_nothing_to_compare_is_no_attempt_until_every_cell_has_run():
    def judged(*lines):
        return paired_cases(runs(*lines), "e", {"one": ("a", "b")}, "m").judged("reproduced", "never read")

    assert judged() == judged(*good("a")) == NOT_ATTEMPTED
    failed = ("b", 0, 1.0, "diverged")
    assert judged(failed).verdict == "not attempted"
    assert judged(failed, *good("a")).verdict == "not reproduced"
    assert judged(failed).evidence == "0 of 1 cases have the runs they need; failed runs: 1 diverged"


def test_how_many_seeds_are_compared_is_told():
    rows = runs(*good("a", "b", "c", "d"), ("a", 1, 1.0, "ok"), ("b", 1, 1.0, "ok"), ("c", 2, 1.0, "ok"))
    assert paired_cases(rows, "e", PAIRS, "m").judged("partly", "x").evidence == "x; seeds in common: 1 to 2"


def test_cells_without_a_seed_in_common_make_no_pair():
    rows = runs(("a", 0, 1.0, "ok"), ("b", 1, 1.0, "ok"), *good("c", "d"))
    assert list(paired_cases(rows, "e", PAIRS, "m").found) == ["two"]


def test_cases_of_one_cell_hold_all_seeds_or_the_curve():
    rows = runs(("a", 1, 4.0, "ok"), ("a", 0, 2.0, "ok"))
    assert final_cases(rows, "e", {"A": "a", "B": "b"}, "m").found == {"A": [2.0, 4.0]}
    assert curve_cases(rows, "e", ["a"]).found == {}
    (table,) = curve_cases(rows.assign(step=[3.0, 5.0]), "e", ["a", "b"]).found.values()
    assert table["m"].to_dict() == {3.0: 4.0, 5.0: 2.0}
