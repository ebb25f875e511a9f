"""The queue of runs, a Markdown table written by hand: read its entries, rewrite its two generated columns."""

import fnmatch
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from repro.errors import UsageError
from repro.experiment import TIERS, Tier
from repro.papers import EXPERIMENTS

STATE, HOURS = "state", "hours so far"
COLUMNS = ("order", "experiment", "cells", "tier", "seeds", "threads", "budget", STATE, HOURS, "purpose")
BORDER = re.compile(r"(?<!\\)\|")
"""Between two cells of a Markdown table."""


class QueueError(UsageError, ValueError):
    """A queue that cannot be read; the message is one sentence that names the line."""


@dataclass(frozen=True)
class Entry:
    """One line of the queue.

    Attributes:
        line: its index in the file, from 0.
        order: its number, for messages.
        experiment: a name in `EXPERIMENTS`.
        cells: names, patterns expanded, in the order of the line.
        tier: smoke, small or paper.
        seeds: in the order of the line.
        threads: of torch, for each run.
    """

    line: int
    order: str
    experiment: str
    cells: tuple[str, ...]
    tier: Tier
    seeds: tuple[int, ...]
    threads: int

    def runs(self) -> Iterator[tuple[str, int]]:
        """List cells and seeds as they are run: every cell with the first seed, then with the next, for pairs."""
        yield from ((cell, seed) for seed, cell in itertools.product(self.seeds, self.cells))


def read_queue(text: str) -> list[Entry]:
    """Read the entries of the first table whose header begins with `order`.

    Raises:
        QueueError: for a column that is missing and a line that names nothing that can be run.
    """
    table = list(_table(text))
    columns = _columns(table)
    entries = [_entry(line, cells, columns) for line, cells in table[2:]]
    for before, entry in itertools.pairwise(entries):
        if float(entry.order) <= float(before.order):
            raise QueueError(f"line {entry.line + 1}: order {entry.order} does not come after {before.order}")
    return entries


def write_status(text: str, statuses: Mapping[int, tuple[str, str]]) -> str:
    """Rewrite state and hours in the lines of a queue; every other character stays.

    Args:
        text: of the file.
        statuses: state and hours by a line's index.
    """
    columns = _columns(list(_table(text)))
    lines = text.splitlines(keepends=True)
    for line, (state, hours) in statuses.items():
        cells = BORDER.split(lines[line])
        for name, value in ((STATE, state), (HOURS, hours)):
            index = columns[name] + 1
            cells[index] = f" {value} ".ljust(len(cells[index]))
        lines[line] = "|".join(cells)
    return "".join(lines)


def extract_table(text: str) -> str:
    """Cut the table out of the file."""
    lines = text.splitlines()
    return "\n".join(lines[line] for line, _ in _table(text))


def _table(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield index and cells of the table's lines: header, rule, entries."""
    inside = False
    for index, line in enumerate(text.splitlines()):
        cells = [cell.strip() for cell in BORDER.split(line.strip())[1:-1]]
        inside = bool(cells) and (inside or cells[0].lower() == COLUMNS[0])
        if inside:
            yield index, cells


def _columns(table: list[tuple[int, list[str]]]) -> dict[str, int]:
    if len(table) < 2:
        raise QueueError(f"there is no table whose header begins with `{COLUMNS[0]}`")
    names = [name.lower() for name in table[0][1]]
    for name in COLUMNS:
        if name not in names:
            raise QueueError(f"line {table[0][0] + 1}: the column `{name}` is missing")
    return {name: names.index(name) for name in COLUMNS}


def _entry(line: int, cells: list[str], columns: Mapping[str, int]) -> Entry:
    where = f"line {line + 1}"
    if len(cells) <= max(columns.values()):
        raise QueueError(f"{where}: it has {len(cells)} cells, the header {len(columns)}")
    values = {name: cells[index].strip("`") for name, index in columns.items()}
    if not re.fullmatch(r"\d+(\.\d+)?", values["order"]):
        raise QueueError(f"{where}: order {values['order']!r} is no number")
    name = values["experiment"]
    if name not in EXPERIMENTS:
        raise QueueError(f"{where}: no experiment {name!r}; there are: {', '.join(EXPERIMENTS)}")
    tiers: dict[str, Tier] = {tier: tier for tier in TIERS}
    tier = tiers.get(values["tier"])
    if tier is None:
        raise QueueError(f"{where}: tier {values['tier']!r} is none of {', '.join(TIERS)}")
    threads = values["threads"] if values["threads"] not in ("", "-") else "1"
    if not re.fullmatch(r"[1-9]\d{0,3}", threads):
        raise QueueError(f"{where}: threads {threads!r} is no number of threads")
    chosen, seeds = _choose_cells(where, name, values["cells"]), _read_seeds(where, values["seeds"])
    return Entry(line, values["order"], name, chosen, tier, seeds, int(threads))


def _choose_cells(where: str, name: str, text: str) -> tuple[str, ...]:
    cells: list[str] = []
    for pattern in text.replace("\\", "").replace("`", "").replace(",", " ").split():
        matches = fnmatch.filter(EXPERIMENTS[name].cells, pattern)
        if not matches:
            raise QueueError(f"{where}: no cell {pattern!r} in {name}; there are: {', '.join(EXPERIMENTS[name].cells)}")
        cells += matches
    if not cells:
        raise QueueError(f"{where}: it names no cell")
    return tuple(dict.fromkeys(cells))


def _read_seeds(where: str, text: str) -> tuple[int, ...]:
    """Read seeds as `0 1 2` or `0-4`."""
    seeds: list[int] = []
    for word in text.replace(",", " ").split():
        match = re.fullmatch(r"(\d{1,9})(?:[-–](\d{1,9}))?", word)  # noqa: RUF001 (an editor's dash)
        span = range(int(match[1]), int(match[2] or match[1]) + 1) if match else ()
        if not span:
            raise QueueError(f"{where}: seeds {text!r} cannot be read; write `0 1 2` or `0-4`")
        seeds += span
    if not seeds:
        raise QueueError(f"{where}: it names no seed")
    return tuple(dict.fromkeys(seeds))
