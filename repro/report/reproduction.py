"""The report of the reproduction, in the order that reproducibility venues ask for, from ledger, numbers and runs.

Scope, what held, what did not, the numbers, the compute: generated. Method, what was easy and hard: `remarks`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from repro.papers import EXPERIMENTS, PAPERS
from repro.published import Published
from repro.report import remarks
from repro.results import final_values, hours_of

VERDICTS = {
    "reproduced": "What held",
    "partly": "What held in part",
    "not reproduced": "What did not hold",
    "not attempted": "What we can't say yet",
}
"""Headings, in their order, of the claims by verdict."""

JUDGED = ("match", "better", "worse", "differs", "inconclusive")
"""Verdicts on a number that compare ours with the paper's."""


Point = tuple[str, str]
"""What it is about, and what there is to say."""


@dataclass(frozen=True)
class Part:
    """A section: paragraphs, then points of a list, then a table."""

    heading: str
    paragraphs: Sequence[str] = ()
    points: Sequence[Point] = ()
    table: pd.DataFrame | None = None


def reproduction(
    root: Path, rows: pd.DataFrame, published: Sequence[Published], comparison: pd.DataFrame, claims: pd.DataFrame
) -> list[Part]:
    """All sections.

    Args:
        root: The folder of the runs.
        rows: Of the valid runs.
        published: The papers' numbers.
        comparison: A line for each of them.
        claims: The ledger.
    """
    runs = _runs(root, rows)
    return [
        Part("Scope", _scope(claims, comparison, runs), table=_artefacts(rows, published, comparison)),
        Part("Method", remarks.METHOD),
        *_claims(claims),
        Part("What was easy", points=remarks.EASY),
        Part("What was hard", points=remarks.HARD),
        Part("Compute", _compute(runs), table=_hours(runs)),
        Part("Communication with the authors", (remarks.AUTHORS,)),
    ]


def as_markdown(parts: Sequence[Part], note: str) -> str:
    """The whole report as one page of Markdown."""
    return "\n\n".join(["# Report of the reproduction", f"<!-- {note} -->", *_blocks(parts)]) + "\n"


def _blocks(parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        yield f"## {part.heading}"
        yield from part.paragraphs
        if part.points:
            yield "\n".join(f"- **{lead}** {text}" for lead, text in part.points)
        if part.table is not None and not part.table.empty:
            yield part.table.to_markdown(index=False, disable_numparse=True)


# --- scope -----------------------------------------------------------------------------------------------------------


def _scope(claims: pd.DataFrame, comparison: pd.DataFrame, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    titles = " and ".join(f'"{title}"' for title in PAPERS.values())
    printed = comparison[~comparison["verdict"].str.startswith(("cited", "an order"))]
    judged = printed["verdict"].isin(JUDGED).sum()
    return [
        f"{titles}: {len(claims)} claims that can be tested, {_counted(claims['verdict'])}; "
        f"{len(printed)} printed numbers of the papers' own methods, {judged} of them with a verdict against ours and "
        f"{(printed['ours'] != '-').sum()} beside a number of ours in whatever tier. All rests on {len(runs)} recorded "
        "runs and the benchmarks' files.",
    ]


def _counted(verdicts: pd.Series) -> str:
    return ", ".join(f"{(verdicts == verdict).sum()} {verdict}" for verdict in VERDICTS if (verdicts == verdict).any())


def _artefacts(rows: pd.DataFrame, published: Sequence[Published], comparison: pd.DataFrame) -> pd.DataFrame:
    """A line for each artefact: tiers, runs, share of the budget, and how its numbers fared."""
    lines = []
    names = pd.Series([number.experiment for number in published], dtype=str)
    for name, experiment in EXPERIMENTS.items():
        own = rows[rows["experiment"] == name]
        verdicts = comparison.loc[(names == name).to_numpy(), "verdict"].value_counts()
        lines.append(
            {
                "artefact": experiment.artefact,
                "tiers": ", ".join(tier for tier in ("small", "paper") if (own["tier"] == tier).any()) or "not run",
                "runs": str(own["run"].nunique()),
                "share of the budget": _share(own, name),
                "its printed numbers": ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()) or "none",
            }
        )
    return pd.DataFrame(lines)


def _share(rows: pd.DataFrame, name: str) -> str:
    shares = [value for cell in EXPERIMENTS[name].cells for value in final_values(rows, name, cell, "budget_share")]
    ends = list(dict.fromkeys(f"{100 * value:.3g} %" for value in (min(shares), max(shares)))) if shares else ["-"]
    return " to ".join(ends)


# --- claims ----------------------------------------------------------------------------------------------------------


def _claims(claims: pd.DataFrame) -> Iterator[Part]:
    for verdict, heading in VERDICTS.items():
        found = claims[claims["verdict"] == verdict].to_dict("records")
        points = [(line["claim"], f"{line['source']}: {line['evidence']}.") for line in found]
        if points:
            yield Part(heading, points=points)


# --- compute ---------------------------------------------------------------------------------------------------------


def _runs(root: Path, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """What each valid run's record says, with its hours."""
    final = rows[rows["step"].isna() & (rows["metric"] == "wall_time")]
    seconds = dict(zip(final["run"], final["value"], strict=True))
    runs = []
    for folder in sorted(set(rows["run"])):
        info = json.loads((root / folder / "run.json").read_text())
        runs.append({**info, "hours": hours_of(info, seconds.get(folder))})
    return runs


def _compute(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    hours = pd.Series([run["hours"] for run in runs], dtype=float)
    if not runs:
        return ["No run yet."]
    machines = "; ".join(sorted({_hardware(run) for run in runs}))
    unknown = f" ({hours.isna().sum()} resumed runs kept no time)" if hours.isna().any() else ""
    return [
        f"{hours.sum():.1f} hours of runs in all{unknown}, mostly on one core each, several side by side, on: "
        f"{machines}. Failed runs are counted, benchmarks and trials that were not published are not."
    ]


def _hardware(run: Mapping[str, Any]) -> str:
    cores = f", {run['cpu_count']} cores" if run.get("cpu_count") else ""
    return str(run.get("gpu") or f"{run.get('cpu') or run['machine']}{cores}")


def _hours(runs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(runs, columns=["experiment", "tier", "machine", "hours", "status"])
    grouped = table.groupby(["experiment", "tier", "machine"], sort=False)
    lines = [
        {
            "artefact": EXPERIMENTS[str(name)].artefact,
            "tier": tier,
            "machine": machine,
            "runs": f"{len(group)}{f', {failed} failed' if (failed := (group['status'] != 'ok').sum()) else ''}",
            "hours": f"{group['hours'].sum():.2f}",
        }
        for (name, tier, machine), group in grouped  # pyright: ignore[reportGeneralTypeIssues]
    ]
    return pd.DataFrame(lines)
