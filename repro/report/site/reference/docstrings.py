"""Google-style docstrings, taken apart."""

from collections.abc import Iterator
from dataclasses import dataclass

from docstring_parser.common import DocstringMeta, DocstringParam, DocstringRaises
from docstring_parser.google import DEFAULT_SECTIONS, GoogleParser, Section, SectionType

WHOLE = [Section(title, title.lower(), SectionType.SINGULAR) for title in ("Returns", "Yields", "References")]
"""Sections of prose, in which a colon parts no name from its description."""

PARSER = GoogleParser([*DEFAULT_SECTIONS, *WHOLE])


@dataclass(frozen=True)
class Doc:
    """What a docstring says.

    Attributes:
        summary: Its first line.
        description: What follows, in paragraphs.
        parameters: Descriptions by name, of arguments or of attributes.
        returns: What is given back.
        yields: The same of a generator.
        raises: Errors with their conditions.
        references: Where it comes from.
    """

    summary: str
    description: tuple[str, ...]
    parameters: dict[str, str]
    returns: str
    yields: str
    raises: tuple[tuple[str, str], ...]
    references: str


def read(text: str) -> Doc:
    """Take a docstring apart."""
    parsed = PARSER.parse(text)
    return Doc(
        summary=parsed.short_description or "",
        description=tuple(" ".join(part.split()) for part in (parsed.long_description or "").split("\n\n") if part),
        parameters={
            meta.arg_name.lstrip("*"): _line(meta.description)
            for meta in parsed.meta
            if isinstance(meta, DocstringParam)
        },
        returns=" ".join(_of_kind(parsed.meta, "returns")),
        yields=" ".join(_of_kind(parsed.meta, "yields")),
        raises=tuple(
            (f"{meta.type_name}", _line(meta.description)) for meta in parsed.meta if isinstance(meta, DocstringRaises)
        ),
        references=" ".join(_of_kind(parsed.meta, "references")),
    )


def _of_kind(metas: list[DocstringMeta], kind: str) -> Iterator[str]:
    for meta in metas:
        if meta.args[0] == kind and not isinstance(meta, (DocstringParam, DocstringRaises)):
            yield _line(meta.description)


def _line(text: str | None) -> str:
    return " ".join((text or "").split())
