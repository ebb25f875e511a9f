"""The front page: both papers' artefacts at a glance, the claims ledger, and what the benchmarks found."""

from collections.abc import Iterator

import pandas as pd

from repro.papers import EXPERIMENTS, PAPERS
from repro.report import remarks
from repro.report.ledger import papers_claims, questions
from repro.report.site.artefacts import of_experiment
from repro.report.site.figures import thumbnail
from repro.report.site.markup import ARXIV, Markup, link, markup, page, paragraph, section, tag
from repro.report.site.material import Material, dates, hardware
from repro.report.site.measurements import describe_missing, file_of_subject, sources_of
from repro.report.site.numbers import file_of
from repro.report.site.tables import Cell, Line, badge, counts, rank, sign_of, table
from repro.report.subjects import SUBJECTS, Subject, judge_by_subject

TITLE = "Do the claims of Neural ODE and FFJORD hold, and what do they cost?"
TIERS = (
    "A tier says how much of the paper's recipe was run: small means something, with its share of the budget stated "
    "where the paper or its code gives one; paper is the paper's recipe. What counts as complete is a rule of its own."
)


def front_page(material: Material) -> bytes:
    """The page that opens first."""
    papers = [link(ARXIV[key], name) for key, name in PAPERS.items()]
    verdicts = [str(verdict) for verdict in papers_claims(material.claims).get("verdict", [])]
    body = (
        paragraph(f"{len(EXPERIMENTS)} artefacts of ", papers[0], " and ", papers[1], _total(material), class_="lead"),
        _bar(verdicts),
        section(
            "Artefacts",
            _artefacts(material),
            paragraph(remarks.NOT_COVERED),
            paragraph(TIERS, class_="origin"),
            id="artefacts",
        ),
        section("Claims ledger", _ledger(material), id="claims"),
        section("Questions of this suite", _questions(material), id="questions"),
        section("Benchmarks", _benchmarks(material), _choose(), id="benchmarks"),
    )
    return page("index.html", TITLE, *body)


def _total(material: Material) -> str:
    runs = sum(len(runs) for runs in material.runs.values())
    days = dates(run for runs in material.runs.values() for run in runs)
    return (
        f", judged by {runs} recorded runs{f', {days}' if days else ''}. "
        f"{len(papers_claims(material.claims))} claims of the papers:"
    )


def _bar(verdicts: list[str]) -> Markup:
    """The verdicts on the claims as parts of a line, and the same in words."""
    names = sorted(set(verdicts), key=rank)
    parts = [tag("span", class_=_kind(name), style=f"flex-grow:{verdicts.count(name)}") for name in names]
    return markup(tag("div", parts, class_="bar", aria_hidden="true"), counts(verdicts))


def _kind(verdict: str) -> str:
    return sign_of(verdict)[0]


def _artefacts(material: Material) -> Markup:
    headers = (
        "artefact",
        "figure",
        "claims",
        "published numbers",
        "tier",
        "share of budget",
        "runs",
        "hardware",
        "last run",
    )
    return table(
        headers, [_artefact(material, name) for name in EXPERIMENTS], "Every artefact that is covered", "overview"
    )


def _artefact(material: Material, name: str) -> Line:
    runs = material.runs[name]
    ledger = papers_claims(material.ledger(claim.id for claim in EXPERIMENTS[name].claims))
    numbers = [line["verdict"] for _, line in material.lines(name)]
    place = tag("a", EXPERIMENTS[name].artefact, href=file_of(name))
    values = (
        _counted([str(verdict) for verdict in ledger.get("verdict", [])]),
        _counted([verdict.partition(" by ")[0] for verdict in numbers]),
        str(material.level(name) or "not run"),
        material.share(name) or "-",
    )
    last = max((run.date for run in runs), default="") or "-"
    return Line([place, thumbnail(of_experiment(material, name)), *values, len(runs), hardware(runs) or "-", last])


def _counted(verdicts: list[str]) -> Cell:
    """Verdicts as badges, sorted by how many of them are good."""
    return Cell(counts(verdicts), {"data_sort": sum(_kind(verdict) == "good" for verdict in verdicts)})


def _ledger(material: Material) -> Markup:
    headers = ("claim", "verdict", "evidence", "source", "tier")
    lines = list(_claims(material, papers_claims(material.claims)))
    return table(headers, lines, "The papers' claims, and whether they hold", "filtered prose")


def _questions(material: Material) -> Markup:
    lines = list(_claims(material, questions(material.claims)))
    if not lines:
        return Markup()
    headers = ("question", "verdict", "evidence", "source", "tier")
    words = "No paper claims these; they are judged likewise and counted apart."
    return markup(paragraph(words), table(headers, lines, "Questions of this suite", "prose"))


def _claims(material: Material, claims: pd.DataFrame) -> Iterator[Line]:
    pages = {claim.id: file_of(name) for name, experiment in EXPERIMENTS.items() for claim in experiment.claims}
    judged = {claim.id: file_of_subject(subject) for subject, claim in judge_by_subject(material.found)}
    for line in claims.to_dict("records"):
        verdict, target = str(line["verdict"]), (judged | pages).get(str(line["id"]))
        claim = link(f"{target}#claims", str(line["claim"])) if target else str(line["claim"])
        shown = Cell(badge(verdict), {"data_sort": rank(verdict), "data_verdict": verdict})
        yield Line(
            [claim, shown, str(line["evidence"]), str(line["source"]), str(line["tier"]) or "-"], {"id": line["id"]}
        )


def _benchmarks(material: Material) -> Markup:
    lines = [_benchmark(material, subject) for subject in SUBJECTS]
    return table(
        ("subject", "figure", "finding", "measured on"), lines, "What the benchmarks measure", "overview prose"
    )


def _benchmark(material: Material, subject: Subject) -> Line:
    entries = next((entries for other, entries in material.found if other.name == subject.name), None)
    days = max((source.date for source in sources_of(material, subject)), default="") or "-"
    said = describe_missing(material) if entries is None else subject.finding(entries) or "see its table"
    picture = thumbnail(of_experiment(material, f"benchmarks/{subject.name}"))
    return Line([link(file_of_subject(subject), subject.title), picture, said, days])


def _choose() -> Markup:
    words = "Which solver, which gradient, which divergence? For your dimension, batch, memory and tolerance"
    return paragraph(link("choose.html", words), class_="lead")
