"""Evidence behind published numbers and artefacts: the runs at the level that the rule selects, and their verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import pandas as pd

from repro.data import DATASETS
from repro.evaluation.completeness import Completeness, Pair, RuleError, completeness, gain_within_run
from repro.evaluation.margins import Margins, published_margins, required_seeds
from repro.evaluation.selection import Level, rank_levels, rows_at, select_source
from repro.evaluation.verdicts import Comparability, Evidence, Trust, Verdict, compare_exactly, judge
from repro.experiment import Experiment
from repro.papers import EXPERIMENTS
from repro.published import Published
from repro.results import OK, final_values, seed_values

SCALES = {("parameters", "M"): 1e-6}
"""(unit in rows.csv, published unit) -> factor, where the two differ."""

EXACT = frozenset({"parameters"})
"""Metrics without noise, comparable at any level."""


def select_evidence(rows: pd.DataFrame, name: str, tiers: Sequence[str]) -> tuple[pd.DataFrame, Level | None]:
    """Select the rows behind an artefact's figures, tables and page, with their level; None where it was not run.

    Args:
        rows: As `repro.results.load` gives them.
        name: Of the experiment.
        tiers: The lowest first.
    """
    level = next(iter(levels_of(rows, name, tiers)), None)
    return (rows[:0] if level is None else rows_at(rows, name, EXPERIMENTS[name].variants, level)), level


def levels_of(rows: pd.DataFrame, name: str, tiers: Sequence[str], cells: Sequence[str] = ()) -> list[Level]:
    """Rank the levels at which an experiment was run, the best first; see `rank_levels`.

    Args:
        rows: As `repro.results.load` gives them.
        name: Of the experiment.
        tiers: The lowest first.
        cells: Cells that are compared; the main cells by default.
    """
    experiment = EXPERIMENTS[name]
    compared = cells or experiment.main_cells or tuple(experiment.cells)
    return rank_levels(rows, name, compared, experiment.variants, tiers, required_seeds(name)) or rank_levels(
        rows, name, tuple(experiment.cells), experiment.variants, tiers, required_seeds(name)
    )


@dataclass(frozen=True)
class Assessment:
    """A published number with its evidence and verdict.

    Attributes:
        number: The paper's.
        verdict: Of the rule.
        evidence: What it rests on.
        level: At which the runs were made; None where there is none.
        source: The cell whose runs stand beside the number.
        rows: Rows of that cell at that level, failed runs included.
        other_rows: Rows of all cells that may stand for the number's at the other levels.
    """

    number: Published
    verdict: Verdict
    evidence: Evidence
    level: Level | None
    source: str
    rows: pd.DataFrame
    other_rows: pd.DataFrame

    @property
    def runs(self) -> list[str]:
        """List the folders of the successful runs, below their root."""
        return sorted(set(self.rows.loc[self.rows["status"] == OK, "run"]))


def assess(number: Published, rows: pd.DataFrame, tiers: Sequence[str]) -> Assessment:
    """Give the verdict on a published number.

    Args:
        number: The paper's.
        rows: Valid runs, as `repro.results.load` gives them.
        tiers: The lowest first; smoke runs never stand beside a number of the published results.
    """
    experiment = EXPERIMENTS.get(number.experiment)
    verdict = Verdict("not run", "no run of ours")
    nothing = Assessment(number, verdict, Evidence({}), None, number.cell, rows[:0], rows[:0])
    if number.value is None:
        return replace(nothing, verdict=judge(number, Evidence({})))
    if experiment is None:
        return nothing
    if is_cited(number):
        return replace(nothing, verdict=Verdict("cited", "the suite quotes this model and does not run it"))
    margins = published_margins(number)
    seeds = margins.seeds if margins else 1
    levels = rank_levels(rows, number.experiment, [number.cell], experiment.variants, tiers, seeds)
    if not levels:
        lacks_data = not _data_ship(experiment, number.cell)
        return replace(nothing, verdict=Verdict("no data", "the data do not ship")) if lacks_data else nothing
    return _assess_at(levels[0], number, experiment, margins, rows)


def is_cited(number: Published) -> bool:
    """Check that a number belongs to a model that the suite quotes and does not run."""
    experiment = EXPERIMENTS.get(number.experiment)
    methods = (None, number.method) if experiment is None else (experiment.method, *experiment.baselines)
    return None not in methods and number.method not in methods


def is_exact(number: Published) -> bool:
    """Check that ours depends on no training, so that it may be compared at any level."""
    return number.metric in EXACT or metric_of(number) != number.metric


def metric_of(number: Published) -> str:
    """Look up the metric by which our runs give a published number."""
    experiment = EXPERIMENTS.get(number.experiment)
    return experiment.baselines.get(number.method, number.metric) if experiment else number.metric


def _data_ship(experiment: Experiment[Any], cell: str) -> bool:
    dataset = DATASETS.get(getattr(experiment.cells.get(cell), "data", ""))
    return dataset is None or all(file.ships for file in dataset.files)


def _assess_at(
    level: Level, number: Published, experiment: Experiment[Any], margins: Margins | None, rows: pd.DataFrame
) -> Assessment:
    of_tier = rows[(rows["experiment"] == number.experiment) & (rows["tier"] == level.tier)]
    source = select_source(of_tier, number.cell, level.multiple, experiment.variants) or number.cell
    runs = of_tier[of_tier["cell"] == source]
    others = _rows_of_variants(number, experiment, rows).drop(index=runs.index, errors="ignore")
    values = _values(number, runs, source)
    if is_exact(number):
        value = next(iter(values.values()), None)
        verdict = Verdict("not run", "no run of ours") if value is None else compare_exactly(number, value)
        first = dict(list(values.items())[:1])
        return Assessment(number, verdict, Evidence(first), level, source, runs, others)
    evidence = _evidence(number, experiment, margins, _Runs(of_tier, source, level, values))
    return Assessment(number, judge(number, evidence), evidence, level, source, runs, others)


def _rows_of_variants(number: Published, experiment: Experiment[Any], rows: pd.DataFrame) -> pd.DataFrame:
    variants = experiment.variants
    cells = [cell for multiple in variants.factors for cell in variants.at(number.cell, multiple)]
    return rows[(rows["experiment"] == number.experiment) & rows["cell"].isin(cells) & (rows["tier"] != "smoke")]


def _values(number: Published, runs: pd.DataFrame, cell: str) -> dict[int, float]:
    """Read the final value of each seed in the published unit."""
    metric = metric_of(number)
    units = runs.loc[runs["metric"] == metric, "unit"]
    scale = SCALES.get((units.iloc[0], number.unit), 1.0) if len(units) else 1.0
    return {seed: scale * value for seed, value in seed_values(runs, number.experiment, cell, metric).items()}


@dataclass(frozen=True)
class _Runs:
    """Runs of a cell at a level, among all of its experiment in that tier."""

    of_tier: pd.DataFrame
    source: str
    level: Level
    values: dict[int, float]


def _evidence(number: Published, experiment: Experiment[Any], margins: Margins | None, runs: _Runs) -> Evidence:
    config = _config(experiment, runs.source, runs.level.tier)
    comparability = experiment.comparability(runs.source, config) if experiment.comparability else Comparability()
    limit = (margins.completeness or margins.agreement or 0.0) if margins else 0.0
    trust = _trust(runs, number, limit)
    errors = final_values(runs.of_tier, number.experiment, runs.source, f"{number.metric}_error")
    test_error = max(errors, default=0.0) if not comparability.same_test_set else 0.0
    complete, problem = Completeness("", "no budget is declared"), ""
    try:
        complete = _completeness(number, experiment, margins, runs)
    except RuleError as error:
        problem = str(error)
    return Evidence(runs.values, comparability, complete, trust, test_error, problem)


def _config(experiment: Experiment[Any], cell: str, tier: str) -> Any:  # noqa: ANN401 (any experiment's config)
    return experiment.config(cell, tier)  # pyright: ignore[reportArgumentType] (a table's tier is a string)


def _trust(runs: _Runs, number: Published, limit: float) -> Trust:
    def largest(metric: str) -> float | None:
        values = final_values(runs.of_tier, number.experiment, runs.source, metric)
        return max(values, key=abs) if values else None

    return Trust(largest("reconstruction_error"), largest("value_drift"), limit)


def _completeness(number: Published, experiment: Experiment[Any], margins: Margins | None, runs: _Runs) -> Completeness:
    if experiment.budget is None or margins is None:
        return Completeness("", "no budget is declared")
    budget = experiment.budget
    config = _config(experiment, runs.source, runs.level.tier)
    pairs = list(_pairs(number, experiment, runs))
    if not pairs and number.metric in budget.curves:
        pairs = [_pair_within_runs(number, experiment, runs)]
    size, stopped = budget.of(config), _all_stopped(number, experiment, runs, config)
    full = budget.full(config)
    result = completeness(margins, number.better, budget=size, full=full, stopped=stopped, pairs=pairs)
    if result.gain is None and not result.holds and (larger := _larger_pair(number, experiment, runs)):
        beyond = completeness(margins, number.better, budget=larger.budgets[1], full=full, pairs=[larger])
        return Completeness("", f"to {larger.budgets[1]:g}: {beyond.reason}", larger.budgets, beyond.gain, beyond.upper)
    return result


def _all_stopped(number: Published, experiment: Experiment[Any], runs: _Runs, config: object) -> bool:
    assert experiment.budget is not None
    if experiment.budget.stopped is None:
        return False
    final = runs.of_tier[(runs.of_tier["cell"] == runs.source) & runs.of_tier["step"].isna()]
    by_seed = [
        dict(zip(table["metric"], table["value"], strict=True))
        for seed, table in final.groupby("seed")
        if seed in runs.values
    ]
    return bool(by_seed) and all(experiment.budget.stopped(config, values) for values in by_seed)


def _pairs(number: Published, experiment: Experiment[Any], runs: _Runs) -> Iterator[Pair]:
    """Find the doublings that end at the runs' budget: at most two, the last one last."""
    multiple, chain = runs.level.multiple, [(runs.level.multiple, runs.source)]
    while multiple % 2 == 0 and len(chain) < 3:
        multiple //= 2
        smaller = _smaller_cell(number, experiment, runs, multiple, chain[-1][1])
        if smaller is None:
            break
        chain.append((multiple, smaller))
    for (_, larger), (_, smaller) in reversed(list(pairwise(chain))):
        yield _pair(number, experiment, runs, smaller, larger)


def _smaller_cell(
    number: Published, experiment: Experiment[Any], runs: _Runs, multiple: int, larger: str
) -> str | None:
    """Find the cell of half the budget: one with otherwise equal settings, if there is one."""
    ran = set(runs.of_tier.loc[runs.of_tier["status"] == OK, "cell"])
    names = [name for name in experiment.variants.at(number.cell, multiple) if name in ran]
    return min(names, key=lambda name: len(_differing(experiment, runs.level.tier, name, larger)), default=None)


def _larger_pair(number: Published, experiment: Experiment[Any], runs: _Runs) -> Pair | None:
    """Find the doubling that begins at the runs' budget, whose larger half has too few seeds to be the evidence."""
    ran = set(runs.of_tier.loc[runs.of_tier["status"] == OK, "cell"])
    for name in experiment.variants.at(number.cell, 2 * runs.level.multiple):
        if name in ran and not _differing(experiment, runs.level.tier, runs.source, name):
            return _pair(number, experiment, runs, runs.source, name)
    return None


def _pair(number: Published, experiment: Experiment[Any], runs: _Runs, smaller: str, larger: str) -> Pair:
    assert experiment.budget is not None
    configs = [_config(experiment, cell, runs.level.tier) for cell in (smaller, larger)]
    first, second = (_values(number, runs.of_tier[runs.of_tier["cell"] == cell], cell) for cell in (smaller, larger))
    budgets = (experiment.budget.of(configs[0]), experiment.budget.of(configs[1]))
    return Pair(budgets, first, second, _differing(experiment, runs.level.tier, smaller, larger))


def _differing(experiment: Experiment[Any], tier: str, a: str, b: str) -> tuple[str, ...]:
    """Name the settings besides the budget in which two cells differ."""
    assert experiment.budget is not None
    first, second = (asdict(_config(experiment, cell, tier)) for cell in (a, b))
    return tuple(key for key in first if key != experiment.budget.setting and first[key] != second[key])


def _pair_within_runs(number: Published, experiment: Experiment[Any], runs: _Runs) -> Pair:
    """Read every run at half and at all of its budget."""
    assert experiment.budget is not None
    curves = runs.of_tier[
        (runs.of_tier["cell"] == runs.source)
        & (runs.of_tier["metric"] == experiment.budget.curves[number.metric])
        & runs.of_tier["step"].notna()
        & (runs.of_tier["status"] == OK)
    ]
    ends = {
        int(seed): gain_within_run(table["step"].tolist(), table["value"].tolist())  # pyright: ignore[reportArgumentType]
        for seed, table in curves.sort_values("step").groupby("seed")
    }
    size = experiment.budget.of(_config(experiment, runs.source, runs.level.tier))
    first, second = ({seed: values[place] for seed, values in ends.items()} for place in (0, 1))
    return Pair((size / 2, size), first, second)
