"""The table of every published number beside ours, with its verdict."""

from collections.abc import Sequence
from statistics import fmean, stdev

import pandas as pd

from repro.published import Published
from repro.report.evidence import Assessment, assess, is_cited
from repro.results import failures, outcomes


def comparison(published: Sequence[Published], rows: pd.DataFrame, local: pd.DataFrame | None) -> pd.DataFrame:
    """Tabulate one line per published number.

    Args:
        published: The papers' numbers.
        rows: Published runs of ours.
        local: This machine's runs, for a column of their own.
    """
    lines = []
    for number in published:
        line = _line(assess(number, rows, ("small", "paper")))
        if local is not None:
            mine = assess(number, local, ("smoke", "small", "paper"))
            line["this machine"] = f"{value_text(mine)} ({mine.level})" if mine.level else "not run"
        lines.append(line)
    return pd.DataFrame(lines)


def _line(assessment: Assessment) -> dict[str, str]:
    number, verdict = assessment.number, assessment.verdict
    values = assessment.evidence.values
    ours_by = f"ours by {assessment.source}" if values and assessment.source != number.cell else ""
    words = "" if verdict.status in ("cited", "not run", "no number", "agrees") else verdict.reason
    flag = f"not trusted: {assessment.evidence.trust.reason}" if _needs_flag(assessment) else ""
    return {
        "experiment": number.experiment,
        "cell": number.cell,
        "metric": number.metric,
        "method": number.method,
        "paper": number.with_spread or number.note.split(";")[0],
        "unit": number.unit,
        "ours": value_text(assessment),
        "tier": str(assessment.level) if values and assessment.level else "",
        "runs": "" if is_cited(number) else outcomes(assessment.rows, "seeds"),
        "verdict": verdict_text(assessment),
        "note": "; ".join(filter(None, [number.note, ours_by, words, flag, _failures_elsewhere(assessment)])),
    }


def _failures_elsewhere(assessment: Assessment) -> str:
    """Count the failed runs of the number's cells at other levels: none is hidden by a level that ended well."""
    text = failures(assessment.other_rows)
    return f"other runs: {text}" if text else ""


def _needs_flag(assessment: Assessment) -> bool:
    return assessment.evidence.trust.holds is False and assessment.verdict.status != "untrusted"


def verdict_text(assessment: Assessment) -> str:
    """Print a verdict; one of a training that still improves with its gain."""
    verdict, gain = assessment.verdict, assessment.evidence.complete.gain
    if verdict.status != "still improving" or gain is None:
        return verdict.status
    return f"still improving by {gain:.2g} per doubling"


def value_text(assessment: Assessment) -> str:
    """Print the mean over the seeds with one digit more than the paper's, and the spread of several seeds."""
    values = list(assessment.evidence.values.values())
    if not values:
        return "-"
    number = assessment.number
    digits = len(number.printed.partition(".")[2]) + 1 if number.printed else 3
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"
