"""Published numbers beside ours, with 95 % intervals."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import pandas as pd
from scipy.special import ndtri, stdtrit

from repro.metrics import standard_error
from repro.papers import EXPERIMENTS
from repro.published import Published
from repro.report.comparison import our_cell, without_noise
from repro.report.site.markup import Markup, link, page, paragraph
from repro.report.site.material import Material
from repro.report.site.tables import Cell, Line, shown, table
from repro.results import final_values
from repro.verdicts import binomial_interval

INTERVAL = "95 % interval of ours"
OWN = "this machine"
"""The comparison's column of one's own runs, where there is one."""
COLUMNS = ("cell", "metric", "method", "paper", "ours", INTERVAL, OWN, "unit", "verdict", "tier", "runs", "note")
RULE = (
    "Ours is the mean ± standard deviation over seeds. The interval of a test error is Wilson's over test images, that "
    "of other numbers Student's over seeds or, for one seed, 1.96 standard errors over test rows. Only runs of the "
    "tier paper get a verdict against the paper, apart from counts of parameters."
)


def published_table(material: Material, name: str, caption: str) -> Markup:
    """An experiment's published numbers, each beside ours."""
    return table(_headers(material), _lines(material, name), caption, "filtered")


def _headers(material: Material) -> list[str]:
    return [name for name in COLUMNS if name == INTERVAL or name in material.comparison]


def _lines(material: Material, name: str) -> list[Line]:
    headers, rows = _headers(material), material.compared
    return [Line(_cells(number, line, rows, headers)) for number, line in material.lines(name)]


def _cells(number: Published, line: dict[str, str], rows: pd.DataFrame, headers: Sequence[str]) -> list[Cell]:
    found = interval(number, rows[rows["tier"] == line["tier"]]) if line["ours"] != "-" else ""
    known = {**line, INTERVAL: found}
    return [shown(header, known[header] or "-") for header in headers]


def interval(number: Published, rows: pd.DataFrame) -> str:
    """The 95 % interval of ours, with the digits of ours; nothing where there is no noise, or it is not known.

    Args:
        number: The published number.
        rows: Of the tier in which it is compared.
    """
    number = replace(number, cell=our_cell(number, rows))
    values = final_values(rows, number.experiment, number.cell, number.metric)
    if not values or without_noise(number):
        return ""
    of_test = number.metric == "test_error"  # whose interval is the test set's, as in the table of Table 1
    ends = _over_seeds(values) if len(values) > 1 and not of_test else _over_test_set(number, rows, values[0])
    digits = len(number.printed.partition(".")[2]) + 1 if number.printed else 3
    return f"[{ends[0]:.{digits}f},\u00a0{ends[1]:.{digits}f}]" if ends else ""


def _over_seeds(values: Sequence[float]) -> tuple[float, float]:
    half = float(stdtrit(len(values) - 1, 0.975)) * standard_error(values)
    return fmean(values) - half, fmean(values) + half


def _over_test_set(number: Published, rows: pd.DataFrame, value: float) -> tuple[float, float] | None:
    names = ("test_errors", "test_images", f"{number.metric}_error")
    errors, images, spread = (final_values(rows, number.experiment, number.cell, name) for name in names)
    if number.metric == "test_error" and errors and images:
        low, high = binomial_interval(round(fmean(errors)), round(images[0]))
        return 100 * low, 100 * high
    if not spread:
        return None
    half = float(ndtri(0.975)) * spread[0]
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
