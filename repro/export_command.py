"""Command `export`: verdicts as JSON, and generated tables in other formats."""

import argparse
import sys
from pathlib import Path
from typing import Any

from repro.errors import Failure, UsageError
from repro.options import suggest

HELP = "verdicts on numbers and claims as JSON, or a table as LaTeX, CSV or Markdown"
FORMATS = ("latex", "csv", "md")


def register(verbs: Any) -> None:  # noqa: ANN401 (argparse's subparsers have no public type)
    """Add the verb to the command line."""
    parser = verbs.add_parser("export", help=HELP)
    parser.add_argument("--numbers", action="store_true", help="the published numbers alone")
    parser.add_argument("--claims", action="store_true", help="the claims alone")
    parser.add_argument("--local", action="store_true", help="from this machine's runs instead of the published ones")
    parser.add_argument("--table", metavar="NAME", help="a table of results/tables instead, as ffjord_table2_small")
    parser.add_argument("--format", choices=FORMATS, default="latex", help="of the table (default: latex)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to a file instead of the terminal")
    parser.set_defaults(function=export)


def export(options: argparse.Namespace) -> int:
    """Print or write an export."""
    text = _table(options) if options.table else _verdicts(options)
    if options.output is None:
        sys.stdout.write(text)
        return 0
    from repro.durability import write_atomically

    write_atomically(options.output, text.encode())
    return 0


def _verdicts(options: argparse.Namespace) -> str:
    from repro.report.export import export as export_verdicts
    from repro.report.export import to_json
    from repro.results import results_root

    both = options.numbers == options.claims
    content = export_verdicts(
        results_root(), local=options.local, numbers=both or options.numbers, claims=both or options.claims
    )
    return to_json(content)


def _table(options: argparse.Namespace) -> str:
    import pandas as pd

    from repro.results import results_root

    folder = results_root() / ("local/tables" if options.local else "tables")
    names = sorted(path.stem for path in folder.glob("*.csv"))
    if options.table not in names:
        if not names:
            raise Failure(f"no table {options.table!r} in {folder.name}/: there is none yet")
        nearest = suggest(options.table, names)
        raise UsageError(f"no table {options.table!r} in {folder.name}/; {nearest}there are: {', '.join(names)}")
    table = pd.read_csv(folder / f"{options.table}.csv", dtype=str, keep_default_na=False)
    if options.format == "csv":
        return table.to_csv(index=False, lineterminator="\n")
    if options.format == "md":
        return table.to_markdown(index=False, disable_numparse=True) + "\n"
    styled = table.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis="columns")
    return styled.to_latex(hrules=True)
