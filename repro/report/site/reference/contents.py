"""Which page documents what, and the way from a word to its place there."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from repro.report.site.markup import Markup, link, markup, tag
from repro.report.site.reference.entries import Entry, entries_of
from repro.report.site.reference.source import Module, found, module_of

INDEX = "reference.html"


@dataclass(frozen=True)
class Topic:
    """A page of the reference.

    Attributes:
        word: Ends its file's name.
        title: Its heading.
        modules: What it documents; the first one's docstring leads.
    """

    word: str
    title: str
    modules: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its file's name."""
        return f"reference-{self.word}.html"


def _all_of(package: str, *names: str) -> tuple[str, ...]:
    return (package, *(f"{package}.{name}" for name in names))


TOPICS = (
    Topic("repro", "repro: load a published model, measure a field of your own", ("repro",)),
    Topic(
        "ode",
        "repro.ode: solve and differentiate",
        ("repro.ode", "repro.ode.runge_kutta", "repro.types", "repro.ode.kernels"),
    ),
    Topic("flows", "repro.flows: log-densities", _all_of("repro.flows", "planar", "planar_field")),
    Topic("nets", "repro.nets: fields and networks", _all_of("repro.nets", "fields", "odenet", "couplings")),
    Topic("data", "repro.data: data sets, densities, energies", ("repro.data",)),
    Topic(
        "measuring",
        "repro.measuring: what a step costs",
        _all_of("repro.measuring", "measure", "step", "meters", "memory", "overhead", "fresh", "fits"),
    ),
    Topic(
        "experiment",
        "Experiments: what an artefact's file is made of",
        ("repro.experiment", "repro.training", "repro.likelihood", "repro.cases", "repro.metrics"),
    ),
    Topic(
        "results",
        "Results: rows, verdicts and figures",
        (
            "repro.results",
            "repro.provenance",
            "repro.evaluation.verdicts",
            "repro.published",
            "repro.arrays",
            "repro.plotting",
            "repro.panels",
            "repro.pixels",
            "repro.animation",
        ),
    ),
)
"""Every page but the first, which lists all names."""


@cache
def documented() -> Mapping[Topic, Mapping[str, tuple[Entry, ...]]]:
    """Every entry by page and module; what several modules offer stands where it is met first."""
    seen: set[tuple[str, str]] = set()
    return {topic: {name: tuple(_new(name, seen)) for name in topic.modules} for topic in TOPICS}


def _new(module: str, seen: set[tuple[str, str]]) -> Iterator[Entry]:
    for entry in entries_of(module):
        place = home_of(entry)
        if place not in seen:
            seen.add(place)
            yield entry


def home_of(entry: Entry) -> tuple[str, str]:
    """The module that defines an entry, and its name there."""
    known = found(entry.module, entry.name)
    return (known[0].name, known[1]) if known else (entry.home.name, entry.name)


@cache
def _places() -> Mapping[tuple[str, str], tuple[str, str]]:
    """Page and place of each definition; the place is the name, with its module where the page has two of that name."""
    places: dict[tuple[str, str], tuple[str, str]] = {}
    for topic, modules in documented().items():
        taken: set[str] = set()
        for entry in (entry for entries in modules.values() for entry in entries):
            place = entry.path if entry.name in taken else entry.name
            taken.add(place)
            home, inner = home_of(entry)
            members = [each.name.partition(".")[2] for each in entry.members]
            given = [each.name for each in entry.parameters or ()] if entry.kind == "class" else []
            places[home, inner] = (topic.file, place)
            places |= {(home, f"{inner}.{name}"): (topic.file, place) for name in given}
            places |= {(home, f"{inner}.{name}"): (topic.file, f"{place}.{name}") for name in members}
    return places


def place_of(entry: Entry) -> str:
    """The place of an entry on its page."""
    return _places()[home_of(entry)][1]


def address(word: str, home: Module | None = None) -> str | None:
    """The page and place that document a word, as `Solver`, `Solver.order` or `repro.ode.solve`.

    Args:
        word: As it stands in a docstring or signature.
        home: The module where it stands, whose imports say what it means.
    """
    known = _resolved(word, home) if home else None
    known = known or _absolute(word) or _only(word)
    return f"{known[0]}#{known[1]}" if known else None


def _resolved(word: str, home: Module) -> tuple[str, str] | None:
    name, dot, member = word.partition(".")
    known = found(home.name, name)
    return _places().get((known[0].name, f"{known[1]}{dot}{member}")) if known else None


def _absolute(word: str) -> tuple[str, str] | None:
    """The place of a full name: its longest beginning that is a module says whose it is."""
    parts = word.split(".")
    for count in range(len(parts) - 1, 0, -1):
        name, rest = ".".join(parts[:count]), ".".join(parts[count:])
        if parts[0] == "repro" and (module := _module(name)):
            return _resolved(rest, module)
    return None


def _module(name: str) -> Module | None:
    try:
        return module_of(name)
    except ModuleNotFoundError:
        return None


def _only(word: str) -> tuple[str, str] | None:
    """The place of a word that means one thing in the whole reference, and is not what a parameter may be called."""
    places = [] if word.islower() and "." not in word else _meanings().get(word, [])
    return places[0] if len(places) == 1 else None


@cache
def _meanings() -> Mapping[str, Sequence[tuple[str, str]]]:
    meanings: dict[str, list[tuple[str, str]]] = {}
    for (_, name), place in _places().items():
        meanings.setdefault(name, []).append(place)
    return meanings


def prose(text: str, home: Module) -> Markup:
    """A docstring's text: what stands in backticks as code, with links to what is documented."""
    parts = re.split(r"`+([^`]+)`+", text)
    return markup(part if i % 2 == 0 else _linked_code(part, home) for i, part in enumerate(parts))


def _linked_code(word: str, home: Module) -> Markup:
    target, shown = address(word.removesuffix("()"), home), tag("code", word)
    return link(target, shown) if target else shown


def code(text: str, home: Module) -> Markup:
    """A piece of the source with links from the names of types and constants that are documented."""
    parts = re.split(r"(\b[A-Z]\w+\b)", text)
    targets = [_resolved(part, home) if i % 2 else None for i, part in enumerate(parts)]
    pairs = zip(parts, targets, strict=True)
    return markup(link(f"{target[0]}#{target[1]}", part) if target else part for part, target in pairs)
