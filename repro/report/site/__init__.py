"""The report that people look at: static pages that open from disk, made from the same material as the tables."""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from repro.papers import EXPERIMENTS
from repro.report.site.account import account_page
from repro.report.site.artefacts import artefact_page
from repro.report.site.choices import choice_page
from repro.report.site.front import front_page
from repro.report.site.material import Material
from repro.report.site.measurements import subject_page
from repro.report.site.numbers import numbers_page
from repro.report.site.reference import reference
from repro.report.site.reproduction import as_markdown, reproduction
from repro.report.subjects import SUBJECTS

__all__ = ["Material", "as_markdown", "reproduction", "site"]

ASSETS = ("style.css", "report.js")


def site(material: Material) -> Iterator[tuple[str, bytes]]:
    """Every file of the report's folder: its name and its content."""
    yield "index.html", front_page(material)
    yield "numbers.html", numbers_page(material)
    yield "choose.html", choice_page(material)
    yield "reproduction.html", account_page(material)
    for name in EXPERIMENTS:
        yield artefact_page(material, name)
    for subject in SUBJECTS:
        yield subject_page(material, subject)
    yield from _reference()
    for asset in ASSETS:
        yield asset, (files(__name__) / asset).read_bytes()


@cache
def _reference() -> tuple[tuple[str, bytes], ...]:
    """A function of the source alone, which does not change while a process lives."""
    return tuple(reference())
