"""The command that compares: what got worse between two sets of benchmarks or runs."""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from repro.options import EXIT_FAILED, read_nonnegative, read_ratio

HELP = "compare benchmark files or runs B with a reference A; fails if something got worse"
DESCRIPTION = (
    "A and B are two files of pytest-benchmark, two folders with such files below them, two folders with runs below "
    "them, or two runs' folders. Prints what changed. Exit code 0: nothing got worse; 1: something got slower, more, "
    "worse or otherwise different, is missing in B, or A and B can't be compared."
)


def register(verbs: Any) -> None:  # noqa: ANN401 (argparse's subparsers have no public type)
    """Add the verb to the command line."""
    parser = verbs.add_parser("compare", help=HELP, description=DESCRIPTION)
    parser.add_argument("a", metavar="A", type=Path, help="the reference")
    parser.add_argument("b", metavar="B", type=Path, help="the candidate")
    for name, kind, default, text in (
        (
            "time-factor",
            read_ratio,
            1.25,
            "a time, or a run's memory, changed by more than this ratio, quartiles apart",
        ),
        (
            "count-tolerance",
            read_nonnegative,
            0.0,
            "a benchmark's count of evaluations, steps or bytes changed by more, relatively",
        ),
        ("error-factor", read_ratio, 2.0, "a benchmark's error changed by more than this ratio"),
        ("metric-tolerance", read_nonnegative, 1e-3, "a run's other final metric changed by more, relatively"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="X", help=f"{text} (default: {default:g})")
    parser.add_argument("--any", action="store_true", help="fail at every change, improvements and new entries too")
    parser.add_argument("--all", action="store_true", help="list what did not change, too")
    parser.add_argument("--csv", type=Path, help="also write what is listed to this file, with all digits")
    parser.set_defaults(function=compare)


def compare(options: argparse.Namespace) -> int:
    """Print what changed from A to B; 0 if nothing got worse."""
    from repro.report.compare import Limits, join, warnings
    from repro.report.compare import compare as compare_pairs
    from repro.report.measured import load_pair

    a, b = load_pair(options.a, options.b)
    pairs = join(a, b)
    limits = Limits(options.time_factor, options.count_tolerance, options.error_factor, options.metric_tolerance)
    lines = compare_pairs(pairs, limits)
    listed = lines if options.all else lines[lines["outcome"] != "same"]
    for warning in warnings(pairs):
        print(f"warning: {warning}", file=sys.stderr)
    if len(listed):
        print(layout(listed, a.noun).to_markdown(index=False, disable_numparse=True), end="\n\n")
    print(summary(lines, a.noun))
    if options.csv is not None:
        listed.to_csv(options.csv, index=False, lineterminator="\n")
    counted = {"worse", "better", "new"} if options.any else {"worse"}
    return EXIT_FAILED if lines["outcome"].isin(counted).any() else 0


def summary(lines: Any, noun: str) -> str:  # noqa: ANN401 (a pandas frame; pandas is imported late)
    """One line: what was compared, and how often which verdict was given."""
    found = lines[lines["kind"] != "entry"]
    changed = lines[lines["outcome"] != "same"]
    words = [f"{count} {verdict}" for verdict, count in changed["verdict"].value_counts().items()]
    compared = f"{_number(len(found), 'figure')} of {_number(found['entry'].nunique(), noun)} compared"
    return f"{compared}: {', '.join(words) or 'nothing changed'}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def layout(lines: Any, noun: str) -> Any:  # noqa: ANN401 (pandas frames)
    """The lines as they are printed: a column each for benchmark or run, figure, A, B, change and verdict."""
    import pandas as pd

    rows = [
        (line.entry, line.figure, _value(line.a, line), _value(line.b, line), _change(line), line.verdict)
        for line in lines.itertuples()
    ]
    return pd.DataFrame(rows, columns=pd.Index((noun, "figure", "A", "B", "change", "verdict")))


WIDEST = 40
"""Characters of a status that are printed; some are a library's whole message."""


def _value(value: Any, line: Any) -> str:  # noqa: ANN401 (a number, a word or nothing; a frame's line)
    if isinstance(value, str):
        return value if len(value) <= WIDEST else f"{value[: WIDEST - 1]}…"
    if value is None or (line.verdict.startswith("only in") and math.isnan(value)):
        return ""
    if line.unit == "s":
        return f"{1e3 * value:.4g} ms" if value < 1 else f"{value:.4g} s"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.3e}" if line.kind == "error" else f"{value:.6g}"


def _change(line: Any) -> str:  # noqa: ANN401 (a frame's line)
    if math.isnan(line.change) or line.outcome == "new":
        return ""
    if line.kind in ("time", "error"):
        return f"{line.change:.3g}x"
    return f"{line.change:+,g}" if line.kind == "count" else f"{line.change:+.2%}"
