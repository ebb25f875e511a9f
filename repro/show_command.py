"""The command that shows: an artefact with its cells and claims, a cell with its settings, or a run with its record."""

import argparse
import dataclasses
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from repro.commands import runs_in_words
from repro.errors import Failure, UsageError
from repro.options import suggest

HELP = "an artefact with its numbers and claims, a cell with its settings, or a run's record"
DESCRIPTION = (
    "With an artefact: what it reproduces, its cells and what was run of them, the paper's numbers beside ours, and "
    "the claims. With a cell too: its settings in each tier and what its runs gave. With a run's folder: its record."
)
WIDEST = 60
"""Characters of a table's column."""
SHORT = 12
"""Hex digits of a commit that are shown."""


def register(verbs: Any) -> None:  # noqa: ANN401 (argparse's subparsers have no public type)
    """Add the verb to the command line."""
    parser = verbs.add_parser("show", help=HELP, description=DESCRIPTION)
    parser.add_argument("what", metavar="WHAT", help="an experiment, as ffjord/fig2_toy2d, or a run's folder")
    parser.add_argument("cell", nargs="?", help="one of the experiment's cells")
    parser.set_defaults(function=show)


def show(options: argparse.Namespace) -> int:
    """Print what is known of an artefact, a cell or a run."""
    from repro.papers import EXPERIMENTS

    folder = Path(options.what)
    if (folder / "run.json").exists():
        lines = _run(folder)
    elif options.what not in EXPERIMENTS:
        raise UsageError(
            f"{options.what} is neither a run's folder nor an experiment; {suggest(options.what, EXPERIMENTS)}there "
            f"are: {', '.join(EXPERIMENTS)}"
        )
    elif options.cell is None:
        lines = _artefact(options.what)
    elif options.cell not in EXPERIMENTS[options.what].cells:
        cells = EXPERIMENTS[options.what].cells
        raise UsageError(f"no cell {options.cell!r}; {suggest(options.cell, cells)}there are: {', '.join(cells)}")
    else:
        lines = _cell(options.what, options.cell)
    print("\n".join(lines))
    return 0


def _table(lines: list[tuple[Any, ...]], headers: tuple[str, ...]) -> str:
    from tabulate import tabulate

    # tabulate's own wrapping would turn texts such as "False" into values of their type
    shown = [
        tuple("-" if value in ("", None) else textwrap.fill(str(value), WIDEST) for value in line) for line in lines
    ]
    return tabulate(shown, headers, colalign=["left"] * len(headers), disable_numparse=True)


# --- an artefact -----------------------------------------------------------------------------------------------------


def _artefact(name: str) -> Iterator[str]:
    from repro.papers import EXPERIMENTS
    from repro.published import load_published
    from repro.report.build import PUBLISHED_TIERS, valid_runs
    from repro.report.comparison import comparison
    from repro.report.ledger import judge_claim
    from repro.results import load, results_root

    experiment = EXPERIMENTS[name]
    rows = valid_runs(load(results_root() / "runs", results_root() / "local"))
    published = rows[rows["source"] == "runs"]
    yield f"{name}: {experiment.artefact}\n"
    yield (sys.modules[experiment.measure.__module__].__doc__ or "").strip()
    own = rows[rows["experiment"] == name]
    yield "\nCells\n"
    main = experiment.main_cells or list(experiment.cells)
    cells = [
        (cell, "main" if cell in main else "", runs_in_words(own[own["cell"] == cell])) for cell in experiment.cells
    ]
    yield _table(cells, ("cell", "", "runs"))
    numbers = [number for number in load_published(results_root() / "published.csv") if number.experiment == name]
    if numbers:
        yield "\nThe paper's numbers and ours (published runs)\n"
        lines = comparison(numbers, published, None).to_dict("records")
        keys = ("cell", "metric", "method", "paper", "ours", "unit", "tier", "runs", "verdict")
        yield _table([tuple(line[key] for key in keys) for line in lines], keys)
    for claim in experiment.claims:
        judgement, level = judge_claim(name, claim, published, PUBLISHED_TIERS)
        tier = f" (tier {level})" if level else ""
        yield f"\n{judgement.verdict.upper()}{tier}: {claim.statement}\n  {judgement.evidence}"
    yield f"\npython -m repro run {name} --tier small"


# --- a cell ----------------------------------------------------------------------------------------------------------


def _cell(name: str, cell: str) -> Iterator[str]:
    from repro.experiment import TIERS
    from repro.papers import EXPERIMENTS
    from repro.report.build import valid_runs
    from repro.results import load, results_root

    experiment = EXPERIMENTS[name]
    tiers = tuple(reversed(TIERS))
    settings = {tier: dict(_flat(dataclasses.asdict(experiment.config(cell, tier)))) for tier in tiers}
    yield f"{name} {cell}: {experiment.artefact}\n"
    lines = [
        (key, *(settings[tier][key] if tier == "paper" or settings[tier][key] != value else "same" for tier in tiers))
        for key, value in settings["paper"].items()
    ]
    yield _table(lines, ("setting", *tiers))
    rows = valid_runs(load(results_root() / "runs", results_root() / "local"))
    rows = rows[(rows["experiment"] == name) & (rows["cell"] == cell)]
    for tier in tiers:
        own = rows[rows["tier"] == tier]
        if own.empty:
            continue
        yield f"\n{tier}: {runs_in_words(own)}\n"
        final = own[own["step"].isna() & (own["metric"] != "none")].drop_duplicates("metric")
        values = [(row.metric, _mean(own, name, cell, str(row.metric)), row.unit) for row in final.itertuples()]
        yield _table(values, ("metric", "mean over seeds", "unit"))
        yield "\n".join(sorted({f"results/{row.source}/{row.run}" for row in own.itertuples()}))
    if rows.empty:
        yield f"\nnot run yet: python -m repro run {name} {cell} --tier small"


def _mean(rows: Any, *key: str) -> str:  # noqa: ANN401 (a pandas frame)
    """A metric's mean over seeds, with the standard deviation where there are several."""
    from repro.results import final_values

    values = final_values(rows, *key)
    spread = f" ± {stdev(values):.2g}" if len(set(values)) > 1 else ""
    return f"{fmean(values):.6g}{spread}" if values else "-"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by the names that the command line gives them."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


# --- a run -----------------------------------------------------------------------------------------------------------


def _run(folder: Path) -> Iterator[str]:
    from repro.results import read_record, rows_of

    info, rows = read_record(folder), rows_of(folder)
    if info is None or rows is None:
        raise Failure(f"{folder} holds no run that can be read")
    yield f"{info['experiment']} {info['cell']}, seed {info['seed']}, tier {info['tier']}: {info['status']}\n"
    commit = (
        f"{str(info['commit'])[:SHORT]}{' with changes' if info.get('dirty') else ''}" if info.get("commit") else ""
    )
    machine = f"{info.get('gpu') or info.get('cpu') or info['machine']}, {info['threads']} threads"
    load = f", load {info['load_average']}" if "load_average" in info else ""  # early records lack some of these
    known = (
        ("why it ended", info.get("stop_reason")),
        ("begun, ended", ", ".join(filter(None, (info.get("start"), info.get("end"))))),
        ("sittings", 1 + len(info.get("resumed", []))),
        ("machine", f"{machine}{load}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in info.get("versions", {}).items())),
        ("commit", commit),
        ("command", info.get("command")),
    )
    yield "\n".join(f"{name:<13} {value}" for name, value in known if value)
    yield ""
    yield _table(list(_flat(info.get("config") or {})), ("setting", "value"))
    yield ""
    yield _table([(r.metric, f"{r.value:.6g}", r.unit) for r in rows if r.step is None], ("metric", "value", "unit"))
    curves: dict[str, list[Any]] = {}
    for row in rows:
        if row.step is not None:
            curves.setdefault(row.metric, []).append(row)
    if curves:
        lines = [
            (name, len(points), f"{points[0].value:.4g}", f"{points[-1].value:.4g}", points[-1].step, points[-1].unit)
            for name, points in curves.items()
        ]
        yield ""
        yield _table(lines, ("curve", "points", "first", "last", "at step", "unit"))
    yield ""
    yield "\n".join(f"{os.path.relpath(path)}  {path.stat().st_size:,} bytes" for path in sorted(folder.iterdir()))
