"""Every published number beside ours, with the verdict of the rule in `repro.verdicts`."""

from collections.abc import Sequence
from statistics import fmean, stdev

import pandas as pd

from repro.papers import EXPERIMENTS
from repro.published import Published
from repro.results import final_values, outcomes, standing_for
from repro.verdicts import verdict

SCALES = {("parameters", "M"): 1e-6}
"""(unit in rows.csv, published unit) -> factor, where the two differ."""

DETERMINISTIC = frozenset({"parameters"})
"""Metrics without noise, comparable in any tier."""


def fullest_first(rows: pd.DataFrame, experiment: str, tiers: Sequence[str]) -> list[str]:
    """The tiers in which an experiment was run: that with most cells first, of equals the higher one; smoke last.

    The first run of a higher tier must not take the place of a whole table or figure.
    """
    ours = rows[rows["experiment"] == experiment]
    ended = ours[ours["status"] == "ok"].groupby("tier")["cell"].nunique()
    present = [tier for tier in reversed(tiers) if (ours["tier"] == tier).any()]
    return sorted(present, key=lambda tier: (tier == "smoke", -ended.get(tier, 0)))


def one_tier(rows: pd.DataFrame, experiment: str, tiers: Sequence[str]) -> tuple[pd.DataFrame, str | None]:
    """The rows of all experiments in the fullest of the tiers in which this experiment was run."""
    tier = next(iter(fullest_first(rows, experiment, tiers)), None)
    return rows[rows["tier"] == tier], tier


def comparison(published: Sequence[Published], rows: pd.DataFrame, own: pd.DataFrame | None) -> pd.DataFrame:
    """One line per published number.

    Args:
        published: the papers' numbers.
        rows: published runs of ours.
        own: this machine's runs, for a column of their own.
    """
    lines = []
    for number in published:
        line = _compare(number, rows, ("small", "paper"))
        if own is not None:
            mine = _compare(number, own, ("smoke", "small", "paper"))
            line["this machine"] = f"{mine['ours']} ({mine['tier']})" if mine["tier"] else "not run"
        lines.append(line)
    return pd.DataFrame(lines)


def _compare(number: Published, rows: pd.DataFrame, tiers: Sequence[str]) -> dict[str, str]:
    cell, tier = _our_runs(number, rows, tiers)
    chosen = rows[(rows["cell"] == cell) & (rows["tier"] == tier)]
    ours = _ours(number, cell, chosen)
    result = _judged(number, ours, chosen, tier)
    return {
        "artefact": number.source,
        "cell": number.cell,
        "metric": number.metric,
        "method": number.method,
        "paper": _printed(number),
        "unit": number.unit,
        "ours": _summary(ours, number),
        "tier": tier if ours else "",
        "runs": "" if _cited(number) else outcomes(chosen[chosen["experiment"] == number.experiment], "seeds"),
        "verdict": _cited(number) or result,
        "note": "; ".join(filter(None, [number.note, f"ours by {cell}" if ours and cell != number.cell else ""])),
    }


def _our_runs(number: Published, rows: pd.DataFrame, tiers: Sequence[str]) -> tuple[str, str]:
    """The cell and the tier whose runs stand beside a published number: the highest that has any."""
    ours = rows[rows["experiment"] == number.experiment]
    for tier in reversed(tiers):
        here = ours[ours["tier"] == tier]
        if (cell := our_cell(number, here)) in set(here["cell"]):
            return cell, tier
    return number.cell, ""


def our_cell(number: Published, rows: pd.DataFrame) -> str:
    """The cell whose runs stand beside a published number, in rows of one tier."""
    experiment = EXPERIMENTS.get(number.experiment)
    if experiment is None:
        return number.cell
    return standing_for(rows, number.experiment, number.cell, experiment.longer, experiment.alike)


def without_noise(number: Published) -> bool:
    """Whether ours depends on no training, so that it may be compared in any tier."""
    return number.metric in DETERMINISTIC or _metric(number) != number.metric


def _metric(number: Published) -> str:
    """By which metric our runs give the number."""
    experiment = EXPERIMENTS.get(number.experiment)
    return experiment.baselines.get(number.method, number.metric) if experiment else number.metric


def _judged(number: Published, ours: list[float], rows: pd.DataFrame, tier: str) -> str:
    if not number.printed:
        return "an order, no number: see the claims"
    experiment = EXPERIMENTS.get(number.experiment)
    if experiment is not None and number.metric in experiment.judges:
        return experiment.judges[number.metric](number, rows, tier).status
    return verdict(number, ours, tier=tier, deterministic=without_noise(number)).status


def _printed(number: Published) -> str:
    return number.with_spread or number.note.split(";")[0]


def _cited(number: Published) -> str:
    """A baseline that the suite quotes and does not rerun."""
    experiment = EXPERIMENTS.get(number.experiment)
    ours = experiment is None or experiment.method in (None, number.method) or number.method in experiment.baselines
    return "" if ours else "cited, not rerun"


def _ours(number: Published, cell: str, rows: pd.DataFrame) -> list[float]:
    if _cited(number):
        return []
    metric = _metric(number)
    values = final_values(rows, number.experiment, cell, metric)
    of_metric = rows[(rows["experiment"] == number.experiment) & (rows["metric"] == metric)]
    unit = of_metric["unit"].iloc[0] if len(of_metric) else number.unit
    values = [value * SCALES.get((unit, number.unit), 1.0) for value in values]
    return values[:1] if without_noise(number) else values


def _summary(values: list[float], number: Published) -> str:
    if not values:
        return "-"
    digits = len(number.printed.partition(".")[2]) + 1 if number.printed else 3
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"
