"""The report of the reproduction, in the order that reproducibility venues ask for, from ledger, numbers and runs.

Scope, what held, what did not, the numbers, the compute: generated. Method, what was easy and hard: `remarks`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from repro.papers import EXPERIMENTS, PAPERS
from repro.report import remarks
from repro.report.ledger import papers_claims, questions
from repro.report.site.material import Material, Run, hardware
from repro.results import hours_of

VERDICTS = {
    "reproduced": "What held",
    "partly": "What held in part",
    "not reproduced": "What did not hold",
    "inconclusive": "What our runs don't decide",
    "not attempted": "What we can't say yet",
}
"""Headings, in their order, of the claims by verdict."""

JUDGED = ("agrees", "better", "worse", "differs", "not told apart")
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


def reproduction(material: Material) -> list[Part]:
    """All sections."""
    runs = [run for of_experiment in material.runs.values() for run in of_experiment]
    seconds = _training_seconds(material.rows)
    hours = pd.Series([hours_of(run.info, seconds.get(run.folder)) for run in runs], dtype=float)
    return [
        Part("Scope", _scope(material, len(runs)), table=_artefacts(material)),
        Part("Method", remarks.METHOD),
        *_claims(papers_claims(material.claims)),
        *_beside(material),
        Part("What was easy", points=remarks.EASY),
        Part("What was hard", points=remarks.HARD),
        Part("Compute", _compute(material, runs, hours), table=_hours(runs, hours)),
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


def _scope(material: Material, runs: int) -> list[str]:
    titles = " and ".join(f'"{title}"' for title in PAPERS.values())
    claims = papers_claims(material.claims).get("verdict", pd.Series(dtype=str))
    printed = material.comparison[~material.comparison["verdict"].isin(("cited", "no number"))]
    beside = (printed["ours"] != "-").sum()
    return [
        f"{titles}: {len(claims)} claims that can be tested, {_counted(claims) or 'none judged'}, from {runs} runs"
        f"{' of this machine' if material.own else ''} and the benchmarks' files.",
        f"Of what we run ourselves {len(printed)} numbers are printed; {beside} stand beside one of our published "
        f"runs' in whatever tier, {printed['verdict'].isin(JUDGED).sum()} with a verdict.",
        remarks.NOT_COVERED,
    ]


def _counted(verdicts: pd.Series) -> str:
    return ", ".join(f"{(verdicts == verdict).sum()} {verdict}" for verdict in VERDICTS if (verdicts == verdict).any())


def _artefacts(material: Material) -> pd.DataFrame:
    """A line for each artefact: tiers, runs, share of the budget, and how its numbers fared."""
    lines = []
    for name, experiment in EXPERIMENTS.items():
        tiers = {run.info["tier"] for run in material.runs[name]}
        verdicts = pd.Series([line["verdict"] for _, line in material.lines(name)], dtype=str).value_counts()
        lines.append(
            {
                "artefact": experiment.artefact,
                "tiers": ", ".join(tier for tier in material.tiers if tier in tiers) or "not run",
                "runs": str(len(material.runs[name])),
                "shown": str(material.level(name) or "-"),
                "share of the budget": material.share(name) or "-",
                "its printed numbers": ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()) or "none",
            }
        )
    return pd.DataFrame(lines)


# --- claims ----------------------------------------------------------------------------------------------------------


def _claims(claims: pd.DataFrame) -> Iterator[Part]:
    for verdict, heading in VERDICTS.items():
        found = claims[claims["verdict"] == verdict].to_dict("records") if len(claims) else []
        points = [(line["claim"], f"{line['source']}: {line['evidence']}.") for line in found]
        if points:
            yield Part(heading, points=points)


def _beside(material: Material) -> Iterator[Part]:
    """What is not the papers': the suite's own questions, counted apart, and what else the runs show."""
    asked = questions(material.claims).to_dict("records")
    points = [(line["claim"], f"{line['verdict']}: {line['evidence']}.") for line in asked]
    if points:
        yield Part("Questions of this suite", ("No paper claims these; they are counted apart.",), points)
    shown = [(f"{EXPERIMENTS[name].artefact}.", text) for name, texts in material.remarks.items() for text in texts]
    if shown:
        yield Part("What else the runs show", points=shown)


# --- compute ---------------------------------------------------------------------------------------------------------


def _training_seconds(rows: pd.DataFrame) -> dict[str, float]:
    final = rows[rows["step"].isna() & (rows["metric"] == "wall_time")]
    return dict(zip(final["run"], final["value"], strict=True))


def _compute(material: Material, runs: Sequence[Run], hours: pd.Series) -> list[str]:
    if not runs:
        return ["No run yet."]
    unknown = f" ({hours.isna().sum()} resumed runs kept no time)" if hours.isna().any() else ""
    said = f"{hours.sum():.1f} hours of runs in all{unknown}, on: {hardware(runs)}. Failed runs are counted."
    return [said] if material.own else [said, remarks.COMPUTE]


def _hours(runs: Sequence[Run], hours: pd.Series) -> pd.DataFrame:
    """Runs and hours of each artefact, tier and machine."""
    keys = ("experiment", "tier", "machine", "status")
    table = pd.DataFrame([{key: run.info[key] for key in keys} for run in runs], columns=list(keys)).assign(hours=hours)
    lines = [
        {
            "artefact": EXPERIMENTS[str(name)].artefact,
            "tier": tier,
            "machine": machine,
            "runs": f"{len(group)}{f', {failed} failed' if (failed := (group['status'] != 'ok').sum()) else ''}",
            "hours": f"{group['hours'].sum():.2f}",
        }
        for (name, tier, machine), group in table.groupby(  # pyright: ignore[reportGeneralTypeIssues]
            ["experiment", "tier", "machine"], sort=False
        )
    ]
    return pd.DataFrame(lines)
