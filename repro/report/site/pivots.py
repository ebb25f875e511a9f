"""Tables with one line a measured size and one column a way, the least figure of each line strong."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from repro.report.site.markup import Attribute, Markup, tag
from repro.report.site.tables import Cell, Line, table


def marked(axis: str, value: float | int, answer: str) -> dict[str, Attribute]:
    """What the page's script needs to find a line by the reader's values and to answer with it."""
    return {"data_axis": axis, "data_value": f"{value:g}", "data_answer": answer or None}


Answer = Callable[[float | int, Mapping[str, float]], str]
"""A sentence on a size, made of the figures of the ways."""


def best_by_row(
    cells: pd.DataFrame,
    axis: str,
    index: str,
    columns: str,
    values: str,
    caption: str,
    unit: str,
    least: str,
    answer: Answer | None = None,
) -> Markup:
    """A pivot of measured cells.

    Args:
        cells: What was measured, a line a cell.
        axis: What the lines are sizes of; with the reader's value of that name the script finds the nearest.
        index: The column of the sizes.
        columns: The column of the ways.
        values: The column of the figures.
        caption: Of the table.
        unit: Of the figures.
        least: Heading of the last column, which names the way with the least figure.
        answer: What a line says to the reader; by default the way with the least figure.
    """
    ways, sizes = ([*dict.fromkeys(cells[columns])], sorted(set(cells[index]))) if len(cells) else ([], [])
    found = {(row[index], row[columns]): float(row[values]) for _, row in cells.iterrows()}
    known = {size: {way: found[size, way] for way in ways if (size, way) in found} for size in sizes}
    said = answer or (lambda size, figures: _least(size, figures, caption, unit))
    lines = [Line(_cells(size, ways, known[size], unit), marked(axis, size, said(size, known[size]))) for size in sizes]
    return table((axis, *map(_name, ways), least), lines, caption, "numbers")


def _name(way: str) -> str:
    return way.replace("_", " ")


def _least(size: float | int, figures: Mapping[str, float], caption: str, unit: str) -> str:
    best = min(figures, key=lambda way: figures[way])
    return f"{caption}: at {size:g} the least is {_name(best)} ({figures[best]:.3g} {unit})."


def _cells(size: float | int, ways: Sequence[str], figures: Mapping[str, float], unit: str) -> list[Cell | str]:
    best = min(figures, key=lambda way: figures[way])
    cells = [_cell(figures[way], way == best, unit) if way in figures else Cell("-") for way in ways]
    return [f"{size:g}", *cells, _name(best)]


def _cell(figure: float, best: bool, unit: str) -> Cell:
    text = f"{figure:.3g}" if figure < 1000 else f"{figure:,.0f}"
    return Cell(tag("strong", text) if best else text, {"data_mib": f"{figure:.4g}"} if unit == "MiB" else {})
