"""The command that looks ahead: hours and memory of each tier on this machine, before anything is run."""

import argparse
import fnmatch
import math
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from repro.commands import Failure, pick_device

if TYPE_CHECKING:
    from repro.experiment import Tier

HELP = "hours and memory of each tier on this machine"
DESCRIPTION = (
    "Without a pattern: every artefact's main cells, one seed, summed. With one: cell by cell. What was run is known "
    "from its record, on this kind of machine where there is one; --measure times the first steps of what was not run "
    "on this kind of machine, each cell in a process of its own, and keeps what it found. First steps may be cheaper "
    "than later ones, since the field's evaluations grow in training, and they hold no validation and no test."
)
SECONDS = 5.0
"""Spent on the steps of each cell, unless another time is asked for."""
SUMMED = ("experiment", "tier", "cells known", "of them elsewhere", "time", "peak memory")
SINGLE = ("experiment", "cell", "tier", "time", "peak memory", "from")


def register(verbs: Any) -> None:  # noqa: ANN401 (argparse's subparsers have no public type)
    """Add the verb to the command line."""
    parser = verbs.add_parser("plan", help=HELP, description=DESCRIPTION)
    parser.add_argument("experiment", nargs="?", help="as neural_ode/table1_mnist, or a pattern: 'neural_ode/*'")
    parser.add_argument("cell", nargs="?", help="cell or pattern; the main cells by default")
    parser.add_argument("--tier", choices=("smoke", "small", "paper"), help="one tier; all by default")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--measure",
        nargs="?",
        type=_time,
        const=SECONDS,
        metavar="SECONDS",
        help=f"time the first steps of what was not run here, so long for each cell (default: {SECONDS:g})",
    )
    parser.set_defaults(function=plan)


def _time(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is no positive number of seconds")
    return value


def plan(options: argparse.Namespace) -> int:
    """Print what running would cost."""
    from tabulate import tabulate

    from repro.experiment import TIERS
    from repro.papers import EXPERIMENTS

    names = fnmatch.filter(EXPERIMENTS, options.experiment or "*")
    if not names:
        raise Failure(f"no experiment {options.experiment!r}; there are: {', '.join(EXPERIMENTS)}")
    tiers = [options.tier] if options.tier else TIERS
    found = list(_estimates(names, tiers, options))
    if not found:
        raise Failure(f"no cell {options.cell!r} in {', '.join(names)}")
    lines = [_cell_line(*each) for each in found] if options.experiment else list(_sums(found))
    headers = SINGLE if options.experiment else SUMMED
    print(tabulate(lines, headers, colalign=["left"] * len(headers), disable_numparse=True))
    if any(estimate is None for *_, estimate in found):
        print("-: not run yet and not measured; --measure times the first steps here", file=sys.stderr)
    return 0


Found = tuple[str, str, str, Any]
"""Experiment, cell, tier, and the estimate, None or why there is none."""


def _estimates(names: Sequence[str], tiers: "Sequence[Tier]", options: argparse.Namespace) -> Iterator[Found]:
    from repro.papers import EXPERIMENTS
    from repro.planning import ProbeFailed, keep, kept, probe, recorded, records

    device, known = pick_device(options.device), records()
    for name in names:
        experiment = EXPERIMENTS[name]
        for tier in tiers:
            for cell in experiment.chosen(options.cell, tier):
                digest = experiment.digest(experiment.config(cell, tier))
                estimate: Any = recorded(known, name, digest, device)
                if estimate is None or not estimate.here:
                    found = kept(name, cell, digest, device)
                    if found is None and options.measure:
                        print(f"timing {name} {cell} {tier}", file=sys.stderr)
                        try:
                            found = probe(name, cell, tier, device.type, options.measure)
                            keep(found, name, cell, digest, device)
                        except ProbeFailed as error:
                            estimate = estimate or str(error)
                    estimate = found.estimate() if found else estimate
                yield name, cell, tier, estimate


def _cell_line(name: str, cell: str, tier: str, estimate: Any) -> tuple[str, ...]:  # noqa: ANN401 (see `Found`)
    if estimate is None or isinstance(estimate, str):
        return name, cell, tier, "-", "-", estimate or "-"
    return name, cell, tier, _hours(estimate.hours), _bytes(estimate.memory), estimate.origin


def _sums(found: Sequence[Found]) -> Iterator[tuple[str, ...]]:
    """A line for each experiment and tier: hours summed over what is known, with how much that is."""
    for name, tier in dict.fromkeys((name, tier) for name, _, tier, _ in found):
        own = [estimate for n, _, t, estimate in found if (n, t) == (name, tier)]
        known = [estimate for estimate in own if estimate is not None and not isinstance(estimate, str)]
        hours = sum(estimate.hours for estimate in known if math.isfinite(estimate.hours))
        memory = max((estimate.memory for estimate in known if math.isfinite(estimate.memory)), default=math.nan)
        elsewhere = sum(not estimate.here for estimate in known)
        yield (
            name,
            tier,
            f"{len(known)} of {len(own)}",
            str(elsewhere or "-"),
            _hours(hours) if known else "-",
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
