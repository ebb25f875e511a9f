"""The claims ledger: each testable sentence of the papers with verdict and evidence; and the table of deviations."""

from collections.abc import Sequence

import pandas as pd

from repro.experiment import Claim, Judgement
from repro.papers import EXPERIMENTS
from repro.report.benchmarks import MeasuredClaim


def ledger(rows: pd.DataFrame, tiers: Sequence[str], measured: Sequence[MeasuredClaim] = ()) -> pd.DataFrame:
    """One line per claim, judged in the highest tier that has the runs it needs, or by a benchmark.

    Args:
        rows: published runs.
        tiers: highest first.
        measured: claims that benchmarks have judged.
    """
    claims = [claim for experiment in EXPERIMENTS.values() for claim in experiment.claims]
    judged = [_line(claim, *judge(claim, rows, tiers)) for claim in claims]
    return pd.DataFrame([*judged, *(_line(claim, claim.judgement, "benchmark") for claim in measured)])


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


def judge(claim: Claim, rows: pd.DataFrame, tiers: Sequence[str]) -> tuple[Judgement, str]:
    """Judge a claim tier by tier until one has its runs."""
    best = claim.check(rows[:0]), ""
    for tier in tiers:
        judgement = claim.check(rows[rows["tier"] == tier])
        if judgement.verdict != "not attempted":
            return judgement, tier
        if judgement != best[0]:  # there are runs, though they say nothing yet
            best = judgement, tier
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
