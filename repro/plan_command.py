"""The command that looks ahead: hours and memory of each tier on this machine, before anything is run."""

import argparse
import fnmatch
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from repro.errors import UsageError
from repro.options import (
    add_device_option,
    add_seed_options,
    add_selection,
    pick_device,
    read_positive,
    select_seeds,
    suggest,
)

if TYPE_CHECKING:
    from repro.experiment import Tier

HELP = "hours and memory of each tier on this machine"
DESCRIPTION = (
    "Without a pattern: every artefact's main cells, summed over seeds (one by default). With one: cell by cell. What "
    "was run is known from its record, on this kind of machine where there is one; --measure times the first steps of "
    "what was not run on this kind of machine, each cell in a process of its own, and keeps what it found. First steps "
    "may be cheaper than later ones, since the field's evaluations grow in training, and they hold no validation and "
    "no test."
)
SECONDS = 5.0
"""Spent on the steps of each cell, unless another time is asked for."""
SUMMED = ("experiment", "tier", "cells known", "of them elsewhere", "time", "peak memory")
SINGLE = ("experiment", "cell", "tier", "time", "peak memory", "from")


def register(verbs: Any) -> None:  # noqa: ANN401 (argparse's subparsers have no public type)
    """Add the verb to the command line."""
    parser = verbs.add_parser("plan", help=HELP, description=DESCRIPTION)
    add_selection(parser)
    parser.add_argument("--tier", choices=("smoke", "small", "paper"), help="one tier; all by default")
    add_seed_options(parser)
    parser.add_argument("--json", action="store_true", help="a list with the state of every run: done, running, todo …")
    add_device_option(parser)
    parser.add_argument(
        "--measure",
        nargs="?",
        type=read_positive,
        const=SECONDS,
        metavar="SECONDS",
        help=f"time the first steps of what was not run here, so long for each cell (default: {SECONDS:g})",
    )
    parser.set_defaults(function=plan)


def plan(options: argparse.Namespace) -> int:
    """Print what running would cost."""
    from repro.experiment import TIERS
    from repro.papers import EXPERIMENTS

    names = fnmatch.filter(EXPERIMENTS, options.experiment or "*")
    if not names:
        name = options.experiment
        raise UsageError(f"no experiment {name!r}; {suggest(name, EXPERIMENTS)}there are: {', '.join(EXPERIMENTS)}")
    tiers = [options.tier] if options.tier else TIERS
    for pattern in options.cells:
        if not any(EXPERIMENTS[name].chosen(pattern, tier) for name in names for tier in tiers):
            cells = list(dict.fromkeys(itertools.chain(*(EXPERIMENTS[name].cells for name in names))))
            raise UsageError(f"no cell {pattern!r}; {suggest(pattern, cells)}there are: {', '.join(cells)}")
    estimates = list(_estimates(names, tiers, options))
    if options.json:
        print(json.dumps(list(_run_items(estimates, options)), indent=2, allow_nan=False))
    else:
        _print_table(estimates, options)
    return 0


def _print_table(estimates: "Sequence[CellEstimate]", options: argparse.Namespace) -> None:
    from tabulate import tabulate

    seeds = len(select_seeds(options))
    lines = [_cell_line(*each, seeds) for each in estimates] if options.experiment else list(_sums(estimates, seeds))
    headers = SINGLE if options.experiment else SUMMED
    print(tabulate(lines, headers, colalign=["left"] * len(headers), disable_numparse=True))
    if any(estimate is None for *_, estimate in estimates):
        print("-: not run yet and not measured; --measure times the first steps here", file=sys.stderr)


CellEstimate = tuple[str, str, "Tier", Any]
"""Experiment, cell, tier, and the estimate, None or why there is none."""


def _run_items(estimates: "Sequence[CellEstimate]", options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Describe each run as a JSON object."""
    from repro.states import find_state, make_request

    device = pick_device(options.device)
    for (name, cell, tier, estimate), seed in itertools.product(estimates, select_seeds(options)):
        request = make_request(name, cell, tier, seed, device)
        hours, memory = (getattr(estimate, key, math.nan) for key in ("hours", "memory"))
        yield {
            "experiment": name,
            "cell": cell,
            "tier": tier,
            "seed": seed,
            "digest": request.digest,
            "state": find_state(request),
            "hours": hours if math.isfinite(hours) else None,
            "memory_mib": round(memory / 2**20, 1) if math.isfinite(memory) else None,
        }


def _estimates(names: Sequence[str], tiers: "Sequence[Tier]", options: argparse.Namespace) -> "Iterator[CellEstimate]":
    from repro.papers import EXPERIMENTS
    from repro.planning import ProbeFailed, estimate_cost, keep, kept, probe, records

    device, costs = pick_device(options.device), records()
    for name, tier in itertools.product(names, tiers):
        experiment = EXPERIMENTS[name]
        matches = [experiment.chosen(pattern, tier) for pattern in options.cells or [None]]
        for cell in dict.fromkeys(itertools.chain(*matches)):
            digest = experiment.digest(experiment.config(cell, tier))
            estimate: Any = estimate_cost(costs, name, cell, digest, device)
            elsewhere = estimate is None or not estimate.here
            if options.measure and elsewhere and kept(name, cell, digest, device) is None:
                print(f"timing {name} {cell} {tier}", file=sys.stderr)
                try:
                    steps = probe(name, cell, tier, device.type, options.measure)
                    keep(steps, name, cell, digest, device)
                    estimate = steps.estimate()
                except ProbeFailed as error:
                    estimate = estimate or str(error)
            yield name, cell, tier, estimate


def _cell_line(name: str, cell: str, tier: str, estimate: Any, seeds: int) -> tuple[str, ...]:  # noqa: ANN401
    if estimate is None or isinstance(estimate, str):
        return name, cell, tier, "-", "-", estimate or "-"
    return name, cell, tier, _hours(seeds * estimate.hours), _bytes(estimate.memory), estimate.origin


def _sums(cells: "Sequence[CellEstimate]", seeds: int) -> Iterator[tuple[str, ...]]:
    """A line for each experiment and tier: hours summed over what is estimated, with how much that is."""
    for name, tier in dict.fromkeys((name, tier) for name, _, tier, _ in cells):
        of_tier = [estimate for n, _, t, estimate in cells if (n, t) == (name, tier)]
        estimates = [estimate for estimate in of_tier if estimate is not None and not isinstance(estimate, str)]
        hours = sum(seeds * estimate.hours for estimate in estimates if math.isfinite(estimate.hours))
        memory = max((estimate.memory for estimate in estimates if math.isfinite(estimate.memory)), default=math.nan)
        elsewhere = sum(not estimate.here for estimate in estimates)
        yield (
            name,
            tier,
            f"{len(estimates)} of {len(of_tier)}",
            str(elsewhere or "-"),
            _hours(hours) if estimates else "-",
            _bytes(memory),
        )


def _hours(hours: float) -> str:
    if not math.isfinite(hours):
        return "-"
    seconds = 3600 * hours
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{hours:.1f} h"


def _bytes(memory: float) -> str:
    return f"{memory / 2**20:,.0f} MiB" if math.isfinite(memory) else "-"
