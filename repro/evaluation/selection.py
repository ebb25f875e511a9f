"""Selection of evidence: the tier and budget whose runs stand for some cells in tables, figures, pages and verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from repro.evaluation.budgets import Variants
from repro.results import OK


@dataclass(frozen=True)
class Level:
    """A tier, and a multiple of its budget."""

    tier: str
    multiple: int

    @property
    def slug(self) -> str:
        """Name the level in a file's name."""
        return self.tier if self.multiple == 1 else f"{self.tier}_x{self.multiple}"

    @property
    def title(self) -> str:
        """Name the level in a table's title."""
        return f"tier `{self.tier}`" + (f", {self.multiple} times its budget" if self.multiple > 1 else "")

    def __str__(self) -> str:
        return self.title.removeprefix("tier ").replace("`", "")


def rank_levels(
    rows: pd.DataFrame, experiment: str, cells: Sequence[str], variants: Variants, tiers: Sequence[str], seeds: int
) -> list[Level]:
    """Rank the levels at which some cells were run: the best evidence first.

    The level at which most of the cells have enough seeds is the best; of equals that at which most cells ended well,
    then the largest budget. The tier `smoke`, whose numbers mean nothing, comes last. For a single cell this is the
    largest budget with enough seeds, or the largest budget where none has them.

    Args:
        rows: As `repro.results.load` gives them.
        experiment: Its name.
        cells: Cells that are compared with one another, so that one level stands for all.
        variants: Of the experiment's cells.
        tiers: The lowest first.
        seeds: Number of seeds that are enough.
    """
    runs = rows[rows["experiment"] == experiment]
    scores: dict[tuple[bool, int, int, int, int], Level] = {}
    for rank, tier in enumerate(tiers):
        of_tier = runs[runs["tier"] == tier]
        factors = [1] if tier == "paper" else variants.factors  # a multiple of the full budget is no cell's evidence
        for multiple in factors if len(of_tier) else ():
            sources = [select_source(of_tier, cell, multiple, variants) for cell in cells]
            if not any(sources):
                continue
            counts = [_seeds(of_tier, source) for source in sources if source]
            enough, ended = sum(n >= seeds for n in counts), sum(n > 0 for n in counts)
            scores[tier != "smoke", enough, ended, rank, multiple] = Level(tier, multiple)
    return [scores[score] for score in sorted(scores, reverse=True)]


def strongest_source(rows: pd.DataFrame, experiment: str, cell: str, variants: Variants, seeds: int) -> str:
    """Select the cell whose runs in one tier stand for a cell by itself: the largest budget with enough seeds.

    Args:
        rows: Rows of one tier.
        experiment: Its name.
        cell: The paper's cell.
        variants: Of the experiment's cells.
        seeds: Number of seeds that are enough.

    Returns:
        The cell itself where nothing was run.
    """
    levels = rank_levels(rows, experiment, [cell], variants, sorted(set(rows["tier"])), seeds)
    runs = rows[rows["experiment"] == experiment]
    return (select_source(runs, cell, levels[0].multiple, variants) if levels else None) or cell


def select_source(runs: pd.DataFrame, cell: str, multiple: int, variants: Variants) -> str | None:
    """Select the cell whose runs stand for a cell at a multiple of its budget; None where there is none.

    Of engines that take the same solver's steps the one with most seeds stands for the cell, but never in place of a
    failure.

    Args:
        runs: Rows of one experiment in one tier.
        cell: The paper's cell.
        multiple: Of its budget.
        variants: Of the experiment's cells.
    """
    candidates = [name for name in variants.at(cell, multiple) if (runs["cell"] == name).any()]
    if not candidates:
        return None
    if (runs.loc[runs["cell"] == candidates[0], "status"] != OK).any():
        return candidates[0]
    return max(candidates, key=lambda name: _seeds(runs, name))


def _seeds(runs: pd.DataFrame, cell: str) -> int:
    return runs.loc[(runs["cell"] == cell) & (runs["status"] == OK), "seed"].nunique()


def rows_at(rows: pd.DataFrame, experiment: str, variants: Variants, level: Level) -> pd.DataFrame:
    """Select the rows of a level; runs that stand for a cell of the paper carry its name.

    A cell that has no run at the level's multiple is left out. Rows of other experiments are those of the tier. The
    column `source_cell` keeps the name under which a run was made.

    Args:
        rows: As `repro.results.load` gives them.
        experiment: Its name.
        variants: Of the experiment's cells.
        level: Tier and multiple.
    """
    rows = rows[rows["tier"] == level.tier].assign(source_cell=lambda table: table["cell"])
    inside = rows["experiment"] == experiment
    runs = rows[inside]
    originals = [cell for cell in runs["cell"].unique() if cell not in variants.names] + [*variants.originals]
    sources = {cell: select_source(runs, cell, level.multiple, variants) for cell in dict.fromkeys(originals)}
    names = {source: cell for cell, source in sources.items() if source is not None}
    replaced = [cell for cell, source in sources.items() if source != cell and cell not in names]
    selected = runs[~runs["cell"].isin(replaced)]
    selected = selected.assign(cell=selected["cell"].replace(names))
    return pd.concat([selected, rows[~inside]]).sort_index()
