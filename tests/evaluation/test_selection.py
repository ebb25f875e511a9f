"""The level whose runs stand for an artefact or a number, on tables of synthetic runs."""

import pandas as pd
import pytest

from repro.evaluation.budgets import Variants
from repro.evaluation.selection import Level, rank_levels, rows_at, select_source, strongest_source
from repro.experiment import TIERS
from repro.papers import EXPERIMENTS

NAME = "paper/table"
VARIANTS = Variants(
    multiples={"a": {2: "a_x2"}, "b_fast": {2: "b_fast_x2", 4: "b_fast_x4"}}, equivalents={"b": "b_fast"}
)


def runs(*specifications):
    """Rows of runs given as (cell, tier, number of seeds) or with a status."""
    lines = []
    for cell, tier, seeds, *status in specifications:
        for seed in range(seeds):
            keys = {"experiment": NAME, "cell": cell, "tier": tier, "seed": seed, "machine": "m", "digest": cell}
            keys |= {"status": status[0] if status else "ok", "source": "runs", "run": f"{cell}/{tier}/{seed}"}
            lines.append({**keys, "metric": "value", "value": 1.0, "unit": "", "step": None})
    return pd.DataFrame(lines)


def best(rows, cells=("a", "b", "c"), seeds=3):
    return next(iter(rank_levels(rows, NAME, cells, VARIANTS, TIERS, seeds)), None)


@pytest.mark.parametrize(
    ("level", "specifications"),
    [
        (None, [("other", "small", 3)]),
        (Level("small", 1), [("a", "small", 3)]),
        (Level("paper", 1), [("a", "small", 3), ("a", "paper", 3)]),
        (Level("small", 1), [("a", "small", 3), ("a", "paper", 1)]),  # too few seeds at the larger budget
        (Level("paper", 1), [("a", "small", 1), ("a", "paper", 1)]),  # too few at either
        (Level("small", 2), [("a", "small", 3), ("a_x2", "small", 3)]),
        (Level("small", 1), [("a", "small", 3), ("a_x2", "small", 2)]),
        (Level("paper", 1), [("a", "paper", 3), ("a_x2", "small", 3)]),
        (Level("small", 1), [("a", "small", 3), ("c", "small", 3), ("a", "paper", 3)]),  # one network of a table
        (Level("small", 1), [("a", "small", 1), ("c", "small", 1), ("a", "paper", 1)]),
        (Level("small", 1), [("a", "small", 1), ("a", "smoke", 3), ("b", "smoke", 3)]),
        (Level("small", 2), [("b", "small", 3), ("b_fast_x2", "small", 3)]),
        (Level("paper", 1), [("a", "paper", 3, "diverged"), ("a", "smoke", 3)]),
    ],
)
def test_the_best_level_has_most_cells_with_enough_seeds_then_the_largest_budget(level, specifications):
    assert best(runs(*specifications)) == level


@pytest.mark.parametrize(
    ("source", "specifications"),
    [
        (None, []),
        ("b", [("b", "small", 2)]),
        ("b_fast", [("b_fast", "small", 1)]),
        ("b_fast", [("b", "small", 1), ("b_fast", "small", 2)]),
        ("b", [("b", "small", 2), ("b_fast", "small", 2)]),
        ("b", [("b", "small", 1, "diverged"), ("b_fast", "small", 2)]),  # a failure is never hidden
    ],
)
def test_an_equivalent_engine_stands_for_a_cell_where_it_has_more_seeds(source, specifications):
    rows = runs(*specifications) if specifications else runs(("c", "small", 1))
    assert select_source(rows, "b", 1, VARIANTS) == source


def test_rows_carry_the_papers_names_and_keep_where_they_come_from():
    rows = runs(("b", "small", 1), ("b_fast", "small", 2), ("a", "small", 1), ("a_x2", "small", 1), ("c", "paper", 1))
    chosen = rows_at(rows, NAME, VARIANTS, Level("small", 1)).drop_duplicates("run")
    assert dict(zip(chosen["source_cell"], chosen["cell"], strict=True)) == {"b_fast": "b", "a": "a", "a_x2": "a_x2"}
    doubled = rows_at(rows, NAME, VARIANTS, Level("small", 2)).drop_duplicates("run")
    assert dict(zip(doubled["source_cell"], doubled["cell"], strict=True)) == {"a_x2": "a", "b_fast": "b_fast"}


def test_a_cell_by_itself_takes_its_largest_budget_with_enough_seeds():
    rows = runs(("a", "small", 3), ("a_x2", "small", 2))
    assert strongest_source(rows, NAME, "a", VARIANTS, 3) == "a"
    assert strongest_source(rows, NAME, "a", VARIANTS, 2) == "a_x2"
    assert strongest_source(rows, NAME, "c", VARIANTS, 2) == "c"


@pytest.mark.parametrize("name", [name for name, experiment in EXPERIMENTS.items() if experiment.budget])
def test_cells_of_a_multiple_have_that_budget_and_otherwise_the_same_settings(name):
    experiment = EXPERIMENTS[name]
    for cell, multiples in experiment.budget.multiples.items():
        for multiple, larger in multiples.items():
            base, config = (vars(experiment.config(each, "small")) for each in (cell, larger))
            assert config == base | {experiment.budget.setting: multiple * base[experiment.budget.setting]}


@pytest.mark.parametrize("name", [name for name, experiment in EXPERIMENTS.items() if experiment.equivalents])
def test_equivalents_differ_in_the_engine_alone(name):
    experiment = EXPERIMENTS[name]
    for cell, other in experiment.equivalents.items():
        first, second = (vars(experiment.cells[each]) for each in (cell, other))
        differing = {key for key in first if first[key] != second[key]}
        assert differing == {"solver"}
        assert vars(first["solver"]) | {"engine": "compiled"} == vars(second["solver"])
