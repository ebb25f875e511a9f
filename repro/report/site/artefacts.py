"""A page for each artefact: claims, numbers, figures, deviations, how to run it again, and the runs."""

import pandas as pd

from repro.experiment import Deviation, Experiment
from repro.papers import EXPERIMENTS, PAPERS
from repro.report.ledger import papers_claims, questions
from repro.report.pages import Picture
from repro.report.pages import file_of as file_of_table
from repro.report.site.figures import figure, origin_of_runs
from repro.report.site.markup import ARXIV, Markup, facts, link, markup, page, paragraph, section, tag
from repro.report.site.material import Material, Run, dates, hardware
from repro.report.site.numbers import RULE, file_of, published_table
from repro.report.site.tables import Cell, badge, counts, frame, table


def artefact_page(material: Material, name: str) -> tuple[str, bytes]:
    """The name and the content of an artefact's page."""
    experiment = EXPERIMENTS[name]
    body = (
        paragraph(link(ARXIV[paper_of(name)], f"{PAPERS[paper_of(name)]} on arXiv"), class_="lead"),
        facts(known(material, name)),
        section("What the paper claims", claims(papers_claims(_lines(material, experiment))), id="claims"),
        section("Questions of this suite", claims(questions(_lines(material, experiment))), id="questions"),
        section("What else the runs show", _remarks(material, name), id="remarks"),
        section("The paper's numbers against ours", _numbers(material, name), id="numbers"),
        section("Figures", _figures(material, name), id="figures"),
        section("Tables of our runs", _tables(material, experiment), id="tables"),
        section("Where paper, public code and we differ", _deviations(experiment.deviations), id="deviations"),
        section("Run it again", _commands(material, name), id="again"),
        section("Runs", _runs(material, name), id="runs"),
    )
    return file_of(name), page(file_of(name), experiment.artefact, *body)


def paper_of(name: str) -> str:
    """The paper of an experiment."""
    return name.partition("/")[0]


def known(material: Material, name: str) -> list[tuple[str, str | Markup]]:
    """What is known of an artefact's runs at a glance."""
    runs = material.runs[name]
    failed = sum(run.info["status"] != "ok" for run in runs)
    verdicts = [line["verdict"] for _, line in material.lines(name)]
    return [
        ("Tier", str(material.level(name) or "not run")),
        ("Share of the budget", material.share(name)),
        ("Runs", f"{len(runs)}{f', {failed} of them failed' if failed else ''}"),
        ("Hardware", hardware(runs)),
        ("Run on", dates(runs)),
        ("Published numbers", counts(verdicts) if verdicts else ""),
    ]


def _lines(material: Material, experiment: Experiment) -> pd.DataFrame:
    return material.ledger(claim.id for claim in experiment.claims)


def _remarks(material: Material, name: str) -> Markup:
    texts = material.remarks.get(name, [])
    return tag("ul", [tag("li", text) for text in texts]) if texts else Markup()


def claims(lines: pd.DataFrame) -> Markup:
    """Some lines of the ledger with verdict and evidence."""
    found = lines.to_dict("records")
    shown = [
        tag(
            "li",
            tag("p", badge(line["verdict"]), " ", tag("strong", line["claim"])),
            paragraph(
                line["evidence"], f" ({line['source']}{line['tier'] and ', tier ' + line['tier']})", class_="evidence"
            ),
            paragraph("Rule: ", line["rule"], class_="origin"),
        )
        for line in found
    ]
    return tag("ul", shown, class_="claims") if shown else Markup()


def _numbers(material: Material, name: str) -> Markup:
    found = published_table(material, name, "Published numbers beside ours")
    source = paragraph("The paper's numbers: ", link(material.numbers, "published.csv"), ". ", RULE, class_="origin")
    return markup(found, source) if found else Markup()


def _figures(material: Material, name: str) -> Markup:
    origin = origin_of_runs(material, name) if material.runs[name] else ""
    return markup(figure(picture, origin) for picture in of_experiment(material, name))


def of_experiment(material: Material, name: str) -> list[Picture]:
    """The pictures of an experiment or, by benchmarks/ and its name, of a subject."""
    return [picture for picture in material.pictures if picture.experiment == name]


def _tables(material: Material, experiment: Experiment) -> Markup:
    chosen = [key for key in material.tables if file_of_table(key) in experiment.tables]
    files = [(key, *material.tables[key]) for key in chosen]
    return markup(
        markup(
            frame(content, title.replace("`", "")),
            paragraph("As ", link(f"../tables/{key}.csv", "CSV"), class_="origin"),
        )
        for key, title, content in files
    )


def _deviations(deviations: tuple[Deviation, ...]) -> Markup:
    lines = [(each.subject, each.published, each.released, each.ours) for each in deviations]
    return table(("subject", "as published", "as released", "as we run it"), lines, "Deviations", "prose")


def _commands(material: Material, name: str) -> Markup:
    tiers = dict.fromkeys((material.tier(name) or "small", "paper"))
    commands = "\n".join(f"python -m repro run {name} --tier {tier}" for tier in tiers)
    return markup(
        paragraph("The cells that run where none is named, in this report's tier and by the paper's own recipe:"),
        tag("pre", tag("code", commands)),
        paragraph("The command that made each run stands in the list below." if material.runs[name] else None),
    )


def _runs(material: Material, name: str) -> Markup:
    headers = ("run", "tier", "seed", "status", "machine", "threads", "day", "commit", "command")
    lines = [_run(material, run) for run in material.runs[name]]
    found = table(headers, lines, "Every run, with its record", "filtered")
    return found or paragraph("Not run yet.")


def _run(material: Material, run: Run) -> list[Cell | str | Markup]:
    info, place = run.info, f"{material.beside}/{run.folder}"
    commit = f"{info.get('commit') or ''}"[:10] + (" and changes" if info.get("dirty") else "")
    record = markup(
        info["cell"], " ", link(f"{place}/run.json", "run.json"), " ", link(f"{place}/rows.csv", "rows.csv")
    )
    words = [str(info.get(key, "")) for key in ("tier", "seed", "status", "machine", "threads")]
    return [Cell(record, {"data_sort": info["cell"]}), *words, run.date, commit, tag("code", info.get("command", ""))]
