"""The reference: an index of every public name, and a page for each part of the suite."""

from collections.abc import Iterator, Sequence
from functools import cache

from repro.report.site.markup import Child, Markup, link, markup, page, paragraph, section, tag
from repro.report.site.reference.contents import INDEX, Topic, address, code, documented, place_of, prose
from repro.report.site.reference.entries import Entry
from repro.report.site.reference.signatures import Parameter
from repro.report.site.reference.source import module_of
from repro.report.site.tables import Line, table

WIDEST = 100
"""Characters of a signature on one line."""

LEAD = "What the suite offers to code of your own, and what a new artefact is made of."

ORIGIN = "from the docstrings in the source"


@cache
def reference() -> tuple[tuple[str, bytes], ...]:
    """Name and content of every page; the source does not change while it runs."""
    return (INDEX, _index()), *((topic.file, _page(topic)) for topic in documented())


def _index() -> bytes:
    parts = [
        tag("li", link(topic.file, topic.title), ". ", prose(_summary(topic), module_of(topic.modules[0])))
        for topic in documented()
    ]
    pairs = [(topic, entry) for topic, groups in documented().items() for group in groups.values() for entry in group]
    pairs.sort(key=lambda pair: (pair[1].name.lower(), pair[1].path))
    names = _table(
        [(f"{topic.file}#{place_of(entry)}", entry) for topic, entry in pairs], "Every public name", "filtered names"
    )
    body = (
        paragraph(LEAD, class_="lead"),
        section("Parts", tag("ul", parts, class_="parts")),
        section("Names", names, id="names"),
    )
    return page(INDEX, "Reference", *body, origin=ORIGIN)


def _table(entries: Sequence[tuple[str, Entry]], caption: str, kind: str) -> Markup:
    """Names by the places that document them."""
    lines = [_line(*pair) for pair in entries]
    return table(("name", "module", "kind", "what it is"), lines, caption, kind)


def _summary(topic: Topic) -> str:
    return module_of(topic.modules[0]).doc.partition("\n\n")[0].replace("\n", " ")


def _page(topic: Topic) -> bytes:
    groups = documented()[topic]
    contents = [(f"#{place_of(entry)}", entry) for group in groups.values() for entry in group]
    body = [
        paragraph(link(INDEX, "All names"), class_="origin"),
        _table(contents, "On this page", "names"),
        *(_module(name, entries) for name, entries in groups.items()),
    ]
    return page(topic.file, topic.title, *body, origin=ORIGIN)


def _line(target: str, entry: Entry) -> Line:
    words = prose(entry.doc.summary, entry.home) if entry.doc.summary else tag("code", entry.value)
    return Line([link(target, tag("code", entry.name)), tag("code", entry.module), entry.kind, words])


def _module(name: str, entries: Sequence[Entry]) -> Markup:
    module = module_of(name)
    words = [paragraph(prose(" ".join(part.split()), module)) for part in _paragraphs(module.doc)]
    return section(name, words, [_entry(entry) for entry in entries]) if entries else Markup()


def _paragraphs(text: str) -> list[str]:
    return text.partition("\n\nReferences:")[0].split("\n\n")


def _entry(entry: Entry) -> Markup:
    place = place_of(entry)
    heading = tag("h3", link(f"#{place}", entry.name), " ", tag("span", entry.kind), id=place)
    content = (
        heading,
        _signature(entry, entry.name),
        _described(entry),
        _registered(entry),
        [_member(each, place) for each in entry.members],
        paragraph("Defined in ", tag("code", entry.home.path), class_="origin"),
    )
    return tag("article", *content, class_="entry")


def _member(entry: Entry, place: str) -> Markup:
    own = entry.name.partition(".")[2]
    kind = (
        markup(entry.kind, ", ", tag("code", code(entry.returns, entry.home)))
        if entry.parameters is None
        else entry.kind
    )
    heading = tag("h4", link(f"#{place}.{own}", own), " ", tag("span", kind), id=f"{place}.{own}")
    return tag("div", heading, _signature(entry, own), _described(entry), class_="member")


def _signature(entry: Entry, name: str) -> Markup:
    """How a name is called, or what stands for it."""
    if entry.parameters is not None:
        text = _call(entry.parameters, f" -> {entry.returns}" if entry.returns else "", len(name))
    elif entry.value:
        text = f" = {entry.value}"
    else:
        return Markup()
    return tag("pre", tag("code", name, code(text, entry.home)), class_="signature")


def _call(parameters: Sequence[Parameter], returns: str, before: int) -> str:
    written = [str(each) for each in parameters]
    whole = f"({', '.join(written)}){returns}"
    return (
        whole
        if before + len(whole) <= WIDEST
        else "(\n" + "".join(f"    {each},\n" for each in written) + f"){returns}"
    )


def _described(entry: Entry) -> Markup:
    doc, home = entry.doc, entry.home
    bases = [base for base in entry.bases if base.partition("[")[0] not in ("Generic", "Protocol", "NamedTuple")]
    lists = (
        ("Attributes" if entry.parameters is None else "Parameters", doc.parameters.items()),
        ("Returns", [("", doc.returns)] if doc.returns else []),
        ("Yields", [("", doc.yields)] if doc.yields else []),
        ("Raises", doc.raises),
        ("References", [("", doc.references)] if doc.references else []),
    )
    return markup(
        paragraph(prose(doc.summary, home)),
        [paragraph(prose(part, home)) for part in doc.description],
        paragraph("A kind of ", code(", ".join(bases), home), ".", class_="origin") if bases else None,
        [_list(title, list(items), entry) for title, items in lists],
    )


def _list(title: str, items: Sequence[tuple[str, str]], entry: Entry) -> Markup:
    if not items:
        return Markup()
    rows = [
        tag("div", tag("dt", _named(name, entry)) if name else None, tag("dd", prose(text, entry.home)))
        for name, text in items
    ]
    return markup(tag("p", title, class_="label"), tag("dl", rows, class_="described"))


def _named(name: str, entry: Entry) -> Markup:
    target = address(name, entry.home) if name[:1].isupper() else None
    shown = tag("code", name)
    return link(target, shown) if target else shown


def _registered(entry: Entry) -> Markup:
    lines = [Line([tag("code", key), list(_words(text, home, entry))]) for key, text, home in entry.registered]
    return table(("name", "what it is"), lines, f"The entries of {entry.name}", "names")


def _words(text: str, home: str, entry: Entry) -> Iterator[Child]:
    target = address(home) if home else None
    for line in text.split("\n"):
        yield tag("div", prose(line, entry.home), *([" ", link(target, "more")] if target else []))
