"""Published numbers beside ours, with 95 % intervals."""

from collections.abc import Sequence

import pandas as pd
from scipy.special import ndtri

from repro.evaluation.statistics import binomial_interval
from repro.evaluation.verdicts import interval_of_ours
from repro.papers import EXPERIMENTS
from repro.published import Published
from repro.report.evidence import Assessment, assess, is_exact
from repro.report.site.markup import Markup, link, page, paragraph
from repro.report.site.material import Material
from repro.report.site.tables import Cell, Line, shown, table
from repro.results import final_values

INTERVAL = "95 % interval of ours"
OWN = "this machine"
"""The comparison's column of one's own runs, where there is one."""
COLUMNS = ("cell", "metric", "method", "paper", "ours", INTERVAL, OWN, "unit", "verdict", "tier", "runs", "note")
RULE = (
    "Ours is the mean ± standard deviation over seeds. The interval is Student's over seeds; for one seed it is the "
    "test set's, Wilson's for an error rate and else 1.96 standard errors. `rules.md` says what each verdict means."
)


def published_table(material: Material, name: str, caption: str) -> Markup:
    """An experiment's published numbers, each beside ours."""
    return table(_headers(material), _lines(material, name), caption, "filtered")


def _headers(material: Material) -> list[str]:
    return [name for name in COLUMNS if name == INTERVAL or name in material.comparison]


def _lines(material: Material, name: str) -> list[Line]:
    headers = _headers(material)
    return [Line(_cells(number, line, material.compared, headers)) for number, line in material.lines(name)]


def _cells(number: Published, line: dict[str, str], rows: pd.DataFrame, headers: Sequence[str]) -> list[Cell]:
    found = interval(number, rows, ("small", "paper")) if line["ours"] != "-" else ""
    known = {**line, INTERVAL: found}
    return [shown(header, known[header] or "-") for header in headers]


def interval(number: Published, rows: pd.DataFrame, tiers: Sequence[str]) -> str:
    """Print the 95 % interval of ours, with the digits of ours; empty where there is no noise, or it is unknown.

    Args:
        number: The published number.
        rows: Valid runs.
        tiers: The lowest first.
    """
    if is_exact(number):
        return ""
    assessment = assess(number, rows, tiers)
    values = list(assessment.evidence.values.values())
    ends = _over_seeds(assessment) if len(values) > 1 else _over_test_set(assessment) if values else None
    digits = len(number.printed.partition(".")[2]) + 1 if number.printed else 3
    return f"[{ends[0]:.{digits}f},\u00a0{ends[1]:.{digits}f}]" if ends else ""


def _over_seeds(assessment: Assessment) -> tuple[float, float] | None:
    found = interval_of_ours(assessment.evidence)
    return (found.low, found.high) if found else None


def _over_test_set(assessment: Assessment) -> tuple[float, float] | None:
    number, rows = assessment.number, assessment.rows
    names = ("test_errors", "test_images", f"{number.metric}_error")
    errors, images, spread = (final_values(rows, number.experiment, assessment.source, name) for name in names)
    if number.metric == "test_error" and errors and images:
        low, high = binomial_interval(round(errors[0]), round(images[0]))
        return 100 * low, 100 * high
    if not spread:
        return None
    value, half = next(iter(assessment.evidence.values.values())), float(ndtri(0.975)) * spread[0]
    return value - half, value + half


def numbers_page(material: Material) -> bytes:
    """Every published number of both papers on one page."""
    headers = ("artefact", *_headers(material))
    lines = [
        Line([_artefact(name, number), *line.cells])
        for name in dict.fromkeys(number.experiment for number in material.published)
        for (number, _), line in zip(material.lines(name), _lines(material, name), strict=True)
    ]
    source = paragraph("Drawn from ", link(material.numbers, "published.csv"), " and the runs of each artefact's page.")
    whole = table(headers, lines, "Every published number beside ours", "filtered")
    return page("numbers.html", "Every published number beside ours", paragraph(RULE), whole, source)


def _artefact(name: str, number: Published) -> Markup | str:
    return link(file_of(name), number.source) if name in EXPERIMENTS else number.source


def file_of(name: str) -> str:
    """The page of an experiment."""
    return f"{name.replace('/', '-')}.html"
