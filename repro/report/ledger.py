"""The claims ledger: each testable sentence of the papers with verdict and evidence; and the table of deviations."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from repro.evaluation.selection import Level, rows_at
from repro.experiment import NOT_ATTEMPTED, Claim, Judgement, Origin
from repro.papers import EXPERIMENTS
from repro.report.benchmarks import MeasuredClaim
from repro.report.evidence import levels_of, select_evidence
from repro.report.machines import join_judgements


def ledger(rows: pd.DataFrame, tiers: Sequence[str], measured: Sequence[MeasuredClaim] = ()) -> pd.DataFrame:
    """Tabulate one line per claim, judged at the best level that has the runs it needs, or by a benchmark.

    Args:
        rows: published runs.
        tiers: the lowest first.
        measured: claims that benchmarks have judged.
    """
    by_id = {claim.id: claim for claim in measured}
    lines = []
    for name, experiment in EXPERIMENTS.items():
        for claim in experiment.claims:
            judgement, level = judge_claim(name, claim, rows, tiers)
            both = join_measured(claim, judgement, str(level or ""), by_id.pop(claim.id, None))
            lines.append(_line(claim, both, claim.origin))
    for claim in by_id.values():
        lines.append(_line(claim, Judged(claim.judgement, claim.rule, level_of_measured(claim)), "paper"))
    return pd.DataFrame(lines)


def level_of_measured(claim: MeasuredClaim) -> str:
    """Name what a benchmark's verdict rests on; empty where nothing was measured."""
    return "" if claim.judgement.verdict == NOT_ATTEMPTED.verdict else "benchmark"


@dataclass(frozen=True)
class Judged:
    """What is said of a claim, by which rule, and what it rests on: a level of runs, a benchmark or both."""

    judgement: Judgement
    rule: str
    level: str


def join_measured(claim: Claim, judgement: Judgement, level: str, measured: MeasuredClaim | None) -> Judged:
    """Join what runs and a benchmark say of one claim; who did not try has no say.

    Args:
        claim: The claim.
        judgement: By the runs.
        level: Of the runs; empty without any.
        measured: The same claim as a benchmark judges it; None where none does.
    """
    if measured is None:
        return Judged(judgement, claim.rule, level)
    rule = f"By the runs: {claim.rule} By the benchmark: {measured.rule} Partly if both differ."
    tried = {
        name: one
        for name, one in (("runs", judgement), ("benchmark", measured.judgement))
        if one.verdict != NOT_ATTEMPTED.verdict
    }
    sources = [level if name == "runs" else name for name in tried]
    return Judged(join_judgements(tried) if tried else judgement, rule, ", ".join(sources) or level)


def _line(claim: Claim | MeasuredClaim, judged: Judged, origin: Origin) -> dict[str, str]:
    return {
        "claim": claim.statement,
        "source": claim.source,
        "verdict": judged.judgement.verdict,
        "tier": judged.level,
        "evidence": judged.judgement.evidence,
        "rule": judged.rule,
        "id": claim.id,
        "origin": origin,
    }


def papers_claims(claims: pd.DataFrame) -> pd.DataFrame:
    """The ledger's lines that papers claim; the others are questions of the suite's own."""
    return claims[claims["origin"] == "paper"] if len(claims) else claims


def questions(claims: pd.DataFrame) -> pd.DataFrame:
    """The ledger's lines that are questions of the suite's own."""
    return claims[claims["origin"] == "suite"] if len(claims) else claims


def remarks(rows: pd.DataFrame, tiers: Sequence[str]) -> dict[str, list[str]]:
    """Collect what the runs show beside the claims, by experiment, at the level that its page shows."""
    said = {}
    for name, experiment in EXPERIMENTS.items():
        if experiment.remarks:
            chosen, level = select_evidence(rows, name, tiers)
            said[name] = [text for remark in experiment.remarks if level and (text := remark(chosen))]
    return {name: texts for name, texts in said.items() if texts}


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
        if best[1] is None and judgement != best[0]:  # runs that do not suffice
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
