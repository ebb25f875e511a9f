"""Export of numbers and claims as JSON: sorted keys, no time stamps, the same bytes for the same runs and commit."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from repro.evaluation.selection import rows_at
from repro.evaluation.verdicts import interval_of_ours
from repro.experiment import TIERS, Claim
from repro.papers import EXPERIMENTS, PAPERS
from repro.provenance import git_state, suite_version
from repro.published import Published, load_published
from repro.report.benchmarks import MeasuredClaim
from repro.report.build import PUBLISHED_TIERS, load_runs
from repro.report.comparison import verdict_text
from repro.report.evidence import Assessment, assess
from repro.report.ledger import join_measured, judge_claim, level_of_measured
from repro.report.subjects import judged, measured
from repro.results import final_values

SCHEMA = 1
DIGITS = 12
"""Significant digits of floats: the last bits of an interval differ between machines."""


def export(results: Path, *, local: bool = False, numbers: bool = True, claims: bool = True) -> dict[str, Any]:
    """Export the verdicts on published numbers and claims.

    Args:
        results: The folder results/.
        local: From this machine's runs instead of the published ones.
        numbers: With the published numbers.
        claims: With the claims.
    """
    source, tiers = ("local", TIERS) if local else ("runs", PUBLISHED_TIERS)
    rows = load_runs(results / source)
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "suite": {"version": suite_version(), **git_state()},
        "runs": "local" if local else "published",
    }
    if numbers:
        content["numbers"] = export_numbers(load_published(results / "published.csv"), rows, tiers)
    if claims:
        benchmarks = results / "local" / "benchmarks" if local else results / "benchmarks"
        changes = rule_changes(results.parent / "CHANGELOG.md")
        content["claims"] = export_claims(rows, tiers, judged(measured(benchmarks)), changes)
    return content


def to_json(content: dict[str, Any]) -> str:
    """Print an export with sorted keys; infinite and missing floats as null."""
    return json.dumps(_round_floats(content), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _round_floats(value: Any) -> Any:  # noqa: ANN401 (JSON)
    if isinstance(value, dict):
        return {key: _round_floats(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_round_floats(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


# --- numbers ---------------------------------------------------------------------------------------------------------


def export_numbers(published: Sequence[Published], rows: pd.DataFrame, tiers: Sequence[str]) -> list[dict[str, Any]]:
    """Export one record per published number, in the order of the table."""
    ids = number_ids(published)
    return [_number(id_, assess(number, rows, tiers)) for id_, number in zip(ids, published, strict=True)]


def number_ids(published: Sequence[Published]) -> list[str]:
    """Name the published numbers: experiment, cell and metric, and the method where that is not the experiment's."""
    keys = [f"{number.experiment}/{number.cell}/{number.metric}" for number in published]
    counts = Counter(keys)
    return [
        key if counts[key] == 1 or _is_main_method(number) else f"{key}/{_slug(number.method)}"
        for key, number in zip(keys, published, strict=True)
    ]


def _is_main_method(number: Published) -> bool:
    experiment = EXPERIMENTS.get(number.experiment)
    return experiment is not None and experiment.method == number.method


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _number(id_: str, assessment: Assessment) -> dict[str, Any]:
    number, evidence, verdict = assessment.number, assessment.evidence, assessment.verdict
    complete, trust = evidence.complete, evidence.trust
    trained = bool(evidence.values) and complete.by != "no training"
    return {
        "id": id_,
        "experiment": number.experiment,
        "cell": number.cell,
        "metric": number.metric,
        "method": number.method,
        "unit": number.unit,
        "better": number.better,
        "source": number.source,
        "paper": {"value": number.value, "spread": number.spread, "spread_of": _spread_of(number)},
        "ours": _ours(assessment),
        "complete": {
            "by": complete.by,
            "budgets": list(complete.budgets),
            "gain": complete.gain,
            "upper": complete.upper,
            "margin": complete.margin,
        }
        if trained
        else None,
        "open": list(evidence.comparability.open) if evidence.values else [],
        "trusted": {
            "reconstruction_error": trust.reconstruction_error,
            "value_drift": trust.value_drift,
            "ok": trust.holds,
        },
        "verdict": verdict_text(assessment),
        "margin": verdict.margin,
        "reason": verdict.reason,
        "runs": assessment.runs if evidence.values else [],
        "command": _command(assessment),
    }


def _spread_of(number: Published) -> str | None:
    if number.spread is None:
        return None
    return f"{number.n_runs} runs" if number.n_runs else "test points or unknown"


def _ours(assessment: Assessment) -> dict[str, Any] | None:
    values = assessment.evidence.values
    if not values or assessment.level is None:
        return None
    interval = interval_of_ours(assessment.evidence)
    number = assessment.number
    shares = final_values(assessment.rows, number.experiment, assessment.source, "budget_share")
    return {
        "value": fmean(values.values()),
        "interval": [interval.low, interval.high] if interval else None,
        "seeds": sorted(values),
        "tier": assessment.level.tier,
        "budget_share": min(shares) if shares else None,
    }


def _command(assessment: Assessment) -> str | None:
    name = assessment.number.experiment
    if name not in EXPERIMENTS or assessment.verdict.status in ("cited", "no number"):
        return None
    tier = assessment.level.tier if assessment.level else "small"
    seeds = " ".join(map(str, sorted(assessment.evidence.values))) or "0"
    return f"python -m repro run {name} {assessment.source} --tier {tier} --seed {seeds}"


# --- claims ----------------------------------------------------------------------------------------------------------


def export_claims(
    rows: pd.DataFrame, tiers: Sequence[str], benchmarks: Iterable[MeasuredClaim], changes: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """Export one record per claim, those of the benchmarks last."""
    by_id = {claim.id: claim for claim in benchmarks}
    records = [
        _claim(name, claim, rows, tiers, by_id.pop(claim.id, None))
        for name, experiment in EXPERIMENTS.items()
        for claim in experiment.claims
    ]
    records += [_measured_claim(claim) for claim in by_id.values()]
    return [record | {"rule_changes": changes.get(record["id"], [])} for record in records]


def _claim(
    name: str, claim: Claim, rows: pd.DataFrame, tiers: Sequence[str], measured: MeasuredClaim | None
) -> dict[str, Any]:
    judgement, level = judge_claim(name, claim, rows, tiers)
    judged = join_measured(claim, judgement, str(level or ""), measured)
    used = rows[:0] if level is None else rows_at(rows, name, EXPERIMENTS[name].variants, level)
    used = used[used["experiment"] == name]
    used = used[used["cell"].isin(claim.cells)] if claim.cells else used
    tier = level.tier if level else "small"
    cells = "".join(f" {cell}" for cell in claim.cells)
    return {
        "id": claim.id,
        "paper": PAPERS[name.partition("/")[0]],
        "source": claim.source,
        "text": claim.statement,
        "rule": judged.rule,
        "origin": claim.origin,
        "verdict": judged.judgement.verdict,
        "evidence": judged.judgement.evidence,
        "tier": judged.level or None,
        "runs": sorted(set(used["run"])),
        "command": f"python -m repro run {name}{cells} --tier {tier}",
    }


def _measured_claim(claim: MeasuredClaim) -> dict[str, Any]:
    return {
        "id": claim.id,
        "paper": PAPERS["neural_ode" if claim.id.startswith("node-") else "ffjord"],
        "source": claim.source,
        "text": claim.statement,
        "rule": claim.rule,
        "origin": "paper",
        "verdict": claim.judgement.verdict,
        "evidence": claim.judgement.evidence,
        "tier": level_of_measured(claim) or None,
        "runs": [],
        "command": "python -m benchmarks",
    }


def rule_changes(changelog: Path) -> dict[str, list[str]]:
    """Read the changes of rules from the changelog: entries under *Rules* that name a claim by its id in backticks.

    Returns:
        Entries by claim; empty where there is no changelog, as in an installed package.
    """
    if not changelog.exists():
        return {}
    section = changelog.read_text(encoding="utf-8").partition("### Rules\n")[2].partition("\n#")[0]
    entries = [" ".join(entry.split()) for entry in re.split(r"^- ", section, flags=re.MULTILINE) if entry.strip()]
    changes: dict[str, list[str]] = {}
    for entry in entries:
        for id_ in re.findall(r"`((?:node|ffjord)-[a-z0-9-]+)`", entry):
            changes.setdefault(id_, []).append(entry)
    return changes
