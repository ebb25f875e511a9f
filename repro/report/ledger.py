"""The claims ledger: each testable sentence of the papers with verdict and evidence; and the table of deviations."""

from collections.abc import Sequence

import pandas as pd

from repro.evaluation.selection import Level, rows_at
from repro.experiment import Claim, Judgement
from repro.papers import EXPERIMENTS
from repro.report.benchmarks import MeasuredClaim
from repro.report.evidence import levels_of


def ledger(rows: pd.DataFrame, tiers: Sequence[str], measured: Sequence[MeasuredClaim] = ()) -> pd.DataFrame:
    """Tabulate one line per claim, judged at the best level that has the runs it needs, or by a benchmark.

    Args:
        rows: published runs.
        tiers: the lowest first.
        measured: claims that benchmarks have judged.
    """
    claims = [(name, claim) for name, experiment in EXPERIMENTS.items() for claim in experiment.claims]
    judgements = [(claim, judge_claim(name, claim, rows, tiers)) for name, claim in claims]
    lines = [_line(claim, judgement, str(level or "")) for claim, (judgement, level) in judgements]
    return pd.DataFrame([*lines, *(_line(claim, claim.judgement, "benchmark") for claim in measured)])


def _line(claim: Claim | MeasuredClaim, judgement: Judgement, tier: str) -> dict[str, str]:
    return {
        "claim": claim.statement,
        "source": claim.source,
        "verdict": judgement.verdict,
        "tier": tier,
        "evidence": judgement.evidence,
        "rule": claim.rule,
        "id": claim.id,
    }


def judge_claim(name: str, claim: Claim, rows: pd.DataFrame, tiers: Sequence[str]) -> tuple[Judgement, Level | None]:
    """Judge a claim at the best level that has its runs.

    Args:
        name: Of the claim's experiment.
        claim: The claim.
        rows: Valid runs.
        tiers: The lowest first.

    Returns:
        The judgement and its level; None without runs.
    """
    best: tuple[Judgement, Level | None] = claim.check(rows[:0]), None
    for level in levels_of(rows, name, tiers, claim.cells):
        judgement = claim.check(rows_at(rows, name, EXPERIMENTS[name].variants, level))
        if judgement.verdict != "not attempted":
            return judgement, level
        if judgement != best[0]:  # runs that do not suffice
            best = judgement, level
    return best


def deviations() -> pd.DataFrame:
    """Every point in which a paper, its public code and this suite differ."""
    return pd.DataFrame(
        [
            {
                "artefact": experiment.artefact,
                "subject": deviation.subject,
                "as published": deviation.published,
                "as released": deviation.released,
                "as we run it": deviation.ours,
            }
            for experiment in EXPERIMENTS.values()
            for deviation in experiment.deviations
        ]
    )
