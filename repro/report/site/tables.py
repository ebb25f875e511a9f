"""Tables that can be read without JavaScript and be sorted and filtered with it; badges for verdicts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from repro.report.site.markup import Attribute, Child, Markup, markup, tag

SIGNS = {
    "reproduced": ("good", "✓"),
    "agrees": ("good", "✓"),
    "reaches": ("good", "✓"),
    "better": ("good", "▲"),
    "partly": ("mixed", "◐"),
    "inconclusive": ("mixed", "?"),
    "not told apart": ("mixed", "?"),
    "still improving": ("mixed", "↗"),
    "not reproduced": ("bad", "✗"),
    "worse": ("bad", "▼"),
    "differs": ("mixed", "≠"),
}
"""Kind and sign of each verdict that says something; all others are open. The sign tells them apart without colour."""

OPEN = ("open", "○")
ORDER = (*SIGNS, "incomplete", "untrusted", "other protocol", "no verdict", "no data", "not run", "not attempted")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        content: What it shows.
        attributes: Of its element; `data_sort` is what it is sorted by, where that is not what it shows.
    """

    content: Child
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """A line of a table, with attributes of its element."""

    cells: Sequence[Cell | Child]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


def badge(verdict: str) -> Markup:
    """A verdict with its sign."""
    kind, sign = sign_of(verdict)
    return tag("span", tag("span", sign, aria_hidden="true"), f" {verdict}", class_=f"badge {kind}")


def sign_of(verdict: str) -> tuple[str, str]:
    """Look up kind and sign of a verdict; of one that still improves, whatever its gain."""
    return SIGNS.get(verdict.partition(" by ")[0], OPEN)


def rank(verdict: str) -> int:
    """Rank a verdict for sorting: the best first, open ones last."""
    word = verdict.partition(" by ")[0]
    return ORDER.index(word) if word in ORDER else len(ORDER)


def counts(verdicts: Iterable[str]) -> Markup:
    """How often each verdict was given, as badges, the best first; a dash where there is none."""
    found = list(verdicts)
    names = sorted(set(found), key=lambda name: (rank(name), name))
    shown = [tag("li", badge(f"{name}"), f" {found.count(name)}") for name in names]
    return tag("ul", shown, class_="counts") if shown else Markup("-")


def table(
    headers: Sequence[str], lines: Iterable[Line | Sequence[Cell | Child]], caption: str, kind: str | None = None
) -> Markup:
    """A table in a container of its own that scrolls; nothing where there is no line.

    Args:
        headers: Of its columns.
        lines: The first cell of each is its header.
        caption: What the table shows.
        kind: A class: "numbers" sets the columns flush right, "filtered" gets a field to search in.
    """
    rows = [line if isinstance(line, Line) else Line(line) for line in lines]
    if not rows:
        return Markup()
    head = tag("thead", tag("tr", [tag("th", header, scope="col") for header in headers]))
    body = tag("tbody", [_row(row) for row in rows])
    whole = tag("table", tag("caption", caption), head, body, class_=kind)
    return tag("div", whole, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _row(line: Line) -> Markup:
    first, *others = [cell if isinstance(cell, Cell) else Cell(cell) for cell in line.cells]
    cells = [tag("th", first.content, scope="row", **first.attributes)]
    cells += [tag("td", cell.content, **cell.attributes) for cell in others]
    return tag("tr", cells, **line.attributes)


def frame(content: pd.DataFrame, caption: str, kind: str | None = None) -> Markup:
    """A frame whose cells are ready to print, as `table`; a column of verdicts gets badges."""
    headers = [str(name) for name in content.columns]
    lines = [[shown(*pair) for pair in zip(headers, values, strict=True)] for values in content.to_numpy().tolist()]
    return table(headers, lines, caption, kind)


def shown(header: str, value: Child) -> Cell:
    """A cell of a column."""
    text = str(value)
    if header == "verdict" and text not in ("", "-"):
        return Cell(badge(text), {"data_sort": rank(text), "data_verdict": text})
    return Cell(markup(text.replace(" ± ", "\u00a0±\u00a0")))
