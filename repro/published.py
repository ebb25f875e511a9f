"""The published numbers: one row each, read from `results/published.csv` under a strict schema.

Numbers stay the text that the paper prints, because the number of digits says how far it was rounded.
"""

import csv
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from repro.errors import Failure

HEADER = ("experiment", "cell", "metric", "method", "value", "spread", "unit", "better", "source", "note")

RUN_SPREAD = "spread is the standard deviation over 3 runs"
"""In a row's note: so FFJORD says of its own rows in Tables 3 and 6."""

TEST_POINT_SPREAD = "spread is 2 standard errors over test points"
"""In a row's note: its spread does not come from repeated runs, but from the test set's finite size."""


class PublishedError(Failure, ValueError):
    """The table of published numbers breaks its schema; the message names the file and the line."""


@dataclass(frozen=True)
class Published:
    """One number of a paper.

    Attributes:
        experiment: The experiment that reproduces it, such as `ffjord/table2_tabular`.
        cell: Which cell of the experiment.
        metric: The metric's name, as in `rows.csv`.
        method: The paper's row: which model.
        printed: The number with the digits that the paper prints; empty if it prints none.
        printed_spread: The same for the ± behind it.
        unit: Its unit; ours must come in the same.
        better: `lower`, `higher`, or empty where neither is.
        source: Paper, version and table.
        note: What a reader must know about it.
    """

    experiment: str
    cell: str
    metric: str
    method: str
    printed: str
    printed_spread: str
    unit: str
    better: str
    source: str
    note: str

    @property
    def with_spread(self) -> str:
        """The number as the paper prints it, with its ±; empty if it prints none."""
        return f"{self.printed} ± {self.printed_spread}" if self.printed_spread else self.printed

    @property
    def value(self) -> float | None:
        """The number, None where the paper prints none."""
        return float(self.printed) if self.printed else None

    @property
    def spread(self) -> float | None:
        """The ± as printed, None where there is none; what it is over differs, see the note."""
        return float(self.printed_spread) if self.printed_spread else None

    @property
    def n_runs(self) -> int | None:
        """How many runs the spread is the standard deviation of, None where it is not or that is unknown."""
        return 3 if RUN_SPREAD in self.note else None

    @property
    def printed_half_unit(self) -> float:
        """Half a unit of the last printed digit, 0.005 for "0.60": rounding hides as much. 0 if nothing is printed."""
        exponent = Decimal(self.printed).as_tuple().exponent if self.printed else None
        return float(Decimal(5).scaleb(exponent - 1)) if isinstance(exponent, int) else 0.0


def load_published(path: Path) -> list[Published]:
    """Read the table of published numbers and check its schema.

    Raises:
        PublishedError: If the header differs, a row has too few or many fields, a number is none, `better` is neither
            `lower`, `higher` nor empty, or (experiment, cell, metric, method) comes twice.
    """
    rows: dict[tuple[str, ...], Published] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        if tuple(next(reader, ())) != HEADER:
            raise PublishedError(f"{path}, line 1: the header must be {','.join(HEADER)}")
        for fields in reader:
            key = tuple(fields[:4])
            repeated = "this experiment, cell, metric and method came before" if key in rows else ""
            problem = _problem(fields) or repeated
            if problem:
                raise PublishedError(f"{path}, line {reader.line_num}: {problem}")
            rows[key] = Published(*fields)
    return list(rows.values())


def _problem(fields: list[str]) -> str:
    """Say what is wrong with a row's fields, nothing if they are fine."""
    if len(fields) != len(HEADER):
        return f"{len(fields)} fields, expected {len(HEADER)}"
    row = Published(*fields)
    if not all((row.experiment, row.cell, row.metric, row.method, row.source)):
        return "experiment, cell, metric, method and source may not be empty"
    for name, text in (("value", row.printed), ("spread", row.printed_spread)):
        if text and not _is_number(text):
            return f"{name} is {text!r}, expected a number or nothing"
    if row.printed_spread and (not row.printed or float(row.printed_spread) < 0):
        return "a spread must not be negative and needs a value"
    if row.better not in ("lower", "higher", ""):
        return f"better is {row.better!r}, expected lower, higher or nothing"
    return ""


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite() and text == text.strip()
    except InvalidOperation:
        return False
