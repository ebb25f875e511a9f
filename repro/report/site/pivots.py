"""Tables with one line a measured size and one column a way, the least figure of each line strong."""

import math

import pandas as pd

from repro.report.site.markup import Attribute, Markup, tag
from repro.report.site.tables import Cell, Line, table


def marked(axis: str, value: float, answer: str) -> dict[str, Attribute]:
    """What the page's script needs to find a line by the reader's values and to answer with it."""
    return {"data_axis": axis, "data_value": f"{value:g}", "data_answer": answer or None}


def best_by_row(
    cells: pd.DataFrame, axis: str, index: str, columns: str, values: str, caption: str, unit: str, least: str
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
    """
    if cells.empty:
        return Markup()
    ways = list(dict.fromkeys(cells[columns]))
    sizes = sorted(set(cells[index]))
    found = {(row[index], row[columns]): float(row[values]) for _, row in cells.iterrows()}
    lines = [
        _line(axis, size, {way: found.get((size, way), math.nan) for way in ways}, unit, caption) for size in sizes
    ]
    headers = (axis, *(way.replace("_", " ") for way in ways), least)
    return table(headers, lines, caption, "numbers")


def _line(axis: str, size: float, figures: dict[str, float], unit: str, caption: str) -> Line:
    known = {way: figure for way, figure in figures.items() if not math.isnan(figure)}
    best = min(known, key=lambda way: known[way]) if known else ""
    name = best.replace("_", " ")
    answer = (
        f"{caption.partition(';')[0]}: at {size:g} the least is {name} ({known[best]:.3g} {unit})." if known else ""
    )
    cells = [_cell(figure, way == best, unit) for way, figure in figures.items()]
    return Line([f"{size:g}", *cells, name or "-"], marked(axis, size, answer))


def _cell(figure: float, best: bool, unit: str) -> Cell:
    if math.isnan(figure):
        return Cell("-")
    text = f"{figure:.3g}" if figure < 1000 else f"{figure:,.0f}"
    return Cell(tag("strong", text) if best else text, {"data_mib": f"{figure:.4g}"} if unit == "MiB" else {})
