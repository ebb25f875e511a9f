"""A page for each subject of the benchmarks: what it shows, the figure, the claims it judges, and the table."""

from collections.abc import Callable

import pandas as pd

from repro.report.benchmarks import UNMEASURED, Measured
from repro.report.site.artefacts import of_experiment
from repro.report.site.figures import figure, origin_of_files
from repro.report.site.markup import Markup, facts, link, markup, page, paragraph, section, tag
from repro.report.site.material import Material, Source
from repro.report.site.tables import badge, frame
from repro.report.subjects import NOTHING, Subject


def file_of_subject(subject: Subject) -> str:
    """The page of a subject."""
    return f"benchmark-{subject.name}.html"


def subject_page(material: Material, subject: Subject) -> tuple[str, bytes]:
    """The name and the content of a subject's page."""
    entries = next((entries for other, entries in material.found if other.name == subject.name), None)
    body = _unmeasured(material, subject) if entries is None else _measured(material, subject, entries)
    return file_of_subject(subject), page(file_of_subject(subject), subject.title, body)


def sources_of(material: Material, subject: Subject, machine: str = "") -> list[Source]:
    """The files that hold something of a subject, of all machines or of one."""
    word = subject.word or subject.name
    found = [source for source in material.sources if word in source.words]
    return [source for source in found if not machine or source.path.startswith(f"{machine}/")]


def _measured(material: Material, subject: Subject, entries: Measured) -> Markup:
    sources = sources_of(material, subject)
    origin = origin_of_files(sources)
    pictures = [
        figure(picture, origin_of_files(sources_of(material, subject, picture.machine)))
        for picture in of_experiment(material, f"benchmarks/{subject.name}")
    ]
    csv = paragraph(origin, " As ", link(f"../tables/{subject.name}.csv", "CSV"), ".", class_="origin")
    return markup(
        paragraph(subject.finding(entries), class_="lead"),
        facts(_known(sources)),
        _brief(subject, entries),
        section("Figure", pictures, id="figure"),
        section("Claims judged by it", _claims(material, subject, entries), id="claims"),
        section(
            "Everything measured",
            paragraph(_explained(subject.table)),
            frame(subject.table(entries), subject.title, "filtered"),
            csv,
            id="table",
        ),
        section("Measure it yourself", _command(subject), id="again"),
    )


def _brief(subject: Subject, entries: Measured) -> Markup:
    if subject.brief is None:
        return Markup()
    shown = frame(subject.brief(entries), f"{subject.title}, in brief")
    return section("In brief", paragraph(_explained(subject.brief)), shown, id="brief")


def _known(sources: list[Source]) -> list[tuple[str, str]]:
    days = sorted({source.date for source in sources} - {""})
    return [
        ("Hardware", "; ".join(dict.fromkeys(source.hardware for source in sources))),
        ("Measured on", " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""),
    ]


def _explained(table: Callable[[Measured], pd.DataFrame]) -> str:
    """What a table's columns are: what its maker says of itself beyond the first sentence, without its arguments."""
    first, _, rest = (table.__doc__ or "").partition("\n\n")
    return " ".join(rest.partition("Args:")[0].split()) or " ".join(first.split())


def _claims(material: Material, subject: Subject, entries: Measured) -> Markup:
    lines = material.ledger(claim.id for claim in subject.claims(entries)).to_dict("records")
    shown = [
        tag(
            "li",
            tag("p", badge(line["verdict"]), " ", tag("strong", line["claim"])),
            paragraph(line["evidence"]),
            paragraph("Rule: ", line["rule"], class_="origin"),
        )
        for line in lines
    ]
    return tag("ul", shown, class_="claims") if shown else Markup()


def _command(subject: Subject) -> Markup:
    command = "make bench" if subject.name == "speed" else f"make bench SUBSET={subject.name}"
    return tag("pre", tag("code", command))


def _unmeasured(material: Material, subject: Subject) -> Markup:
    return markup(
        paragraph(describe_missing(material)),
        section("Claims judged by it", _claims(material, subject, NOTHING), id="claims"),
        section("Measure it yourself", _command(subject)),
    )


def describe_missing(material: Material) -> str:
    """Say that of a subject no benchmark file counts."""
    return "Nothing was measured here yet." if material.own else UNMEASURED
