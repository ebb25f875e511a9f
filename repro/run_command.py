"""The command that runs cells: a single one in this process, several in processes of their own."""

import argparse
import fnmatch
import itertools
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from repro.errors import UsageError
from repro.options import (
    EXIT_FAILED,
    EXIT_PAUSED,
    add_device_option,
    add_jobs_option,
    add_run_options,
    add_seed_options,
    add_selection,
    parse_settings,
    pick_device,
    read_count,
    read_nonnegative,
    select_seeds,
    suggest,
)
from repro.signals import EXIT_INTERRUPTED, ignore_requests, is_supervised

if TYPE_CHECKING:
    from repro.scheduling import Job

HELP = "run cells; further options change settings: --solver.rtol 1e-6"


def register(verbs: Any) -> None:  # noqa: ANN401 (argparse's subparsers have no public type)
    """Add the verb to the command line."""
    parser = verbs.add_parser("run", help=HELP, add_help=False)
    parser.set_defaults(function=run, parser=parser)
    add_selection(parser)
    parser.add_argument("--tier", choices=("smoke", "small", "paper"), default="smoke")
    add_seed_options(parser)
    add_device_option(parser)
    add_jobs_option(parser, "N cells at a time, the longest first", default=None)
    parser.add_argument(
        "--shard", type=_read_shard, metavar="I/N", help="of the sorted list of runs every N-th, from I (0 to N - 1) on"
    )
    add_run_options(parser, "each cell")
    parser.add_argument("--force", action="store_true", help="run again what is finished")
    parser.add_argument(
        "--checkpoint-seconds", type=read_nonnegative, default=60.0, help="longest time between checkpoints"
    )
    parser.add_argument(
        "--threads",
        type=read_count,
        help="CPU threads of torch for each cell; one in the smoke tier, else torch's own choice, divided by --jobs",
    )


def _read_shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(
            f"must be I/N with I < N: of four the first is 0/4, the last 3/4; got {text!r}"
        )
    return int(index), int(count)


def run(options: argparse.Namespace, settings: list[str]) -> int:
    """Run the cells that the options choose, with settings of the user's."""
    help_wanted = not {"-h", "--help"}.isdisjoint(settings)
    if help_wanted:
        options.parser.print_help()
    if options.experiment is None:
        return 0 if help_wanted else options.parser.error("which experiment? `python -m repro list` shows all")
    # argparse leaves to the settings also cells that stand behind an option
    cells = list(itertools.takewhile(lambda word: not word.startswith("-"), settings))
    jobs, settings = _choose_jobs(options, [*options.cells, *cells]), settings[len(cells) :]
    if help_wanted:
        return _run_here(jobs[0], options, settings)
    if options.shard:
        from repro.scheduling import select_shard

        jobs = select_shard(jobs, *options.shard)
    return _run_here(jobs[0], options, settings) if len(jobs) == 1 else _run_children(jobs, options, settings)


def _choose_jobs(options: argparse.Namespace, patterns: list[str]) -> list["Job"]:
    from repro.papers import EXPERIMENTS
    from repro.scheduling import Job

    names = fnmatch.filter(EXPERIMENTS, options.experiment)
    if not names:
        name = options.experiment
        raise UsageError(f"no experiment {name!r}; {suggest(name, EXPERIMENTS)}there are: {', '.join(EXPERIMENTS)}")
    jobs: list[Job] = []
    unmatched = dict.fromkeys(patterns)
    for name in names:
        experiment = EXPERIMENTS[name]
        matches = [experiment.chosen(pattern, options.tier) for pattern in patterns or [None]]
        cells = dict.fromkeys(itertools.chain(*matches))
        if not cells:
            raise UsageError(_describe_missing(patterns, experiment))
        for pattern in (pattern for pattern, match in zip(patterns, matches, strict=False) if match):
            unmatched.pop(pattern, None)
        jobs += [Job(name, cell, options.tier, seed) for cell in cells for seed in dict.fromkeys(select_seeds(options))]
    if unmatched:
        raise UsageError(_describe_missing(list(unmatched), EXPERIMENTS[names[0]]))
    return jobs


def _describe_missing(patterns: list[str], experiment: Any) -> str:  # noqa: ANN401 (an experiment; imported late)
    cells = " ".join(map(repr, patterns))
    nearest = suggest(patterns[0], experiment.cells)
    return f"no cell {cells} in {experiment.artefact}; {nearest}there are: {', '.join(experiment.cells)}"


# --- several cells ---------------------------------------------------------------------------------------------------


def _run_children(jobs: list["Job"], options: argparse.Namespace, settings: list[str]) -> int:
    from repro.scheduling import Pool, rank_codes, sort_longest_first

    if options.jobs:
        jobs = sort_longest_first(jobs, pick_device(options.device))
    words = (*_child_options(options), *settings)
    pool = Pool(options.jobs or 1)
    pool.run(replace(job, options=words) for job in jobs)
    done = sum(code == 0 for code in pool.codes.values())
    print(f"{done} of {len(jobs)} cells ok", file=sys.stderr)
    if pool.is_interrupted and done < len(jobs):
        return EXIT_INTERRUPTED
    return rank_codes(pool.codes.values())


def _child_options(options: argparse.Namespace) -> list[str]:
    from repro.scheduling import count_cores

    words = [flag for flag, on in (("--publish", options.publish), ("--force", options.force)) if on]
    threads = options.threads
    if threads is None and options.jobs and options.tier != "smoke":
        threads = max(1, count_cores() // options.jobs)
    for flag, value in (("--max-minutes", options.max_minutes), ("--threads", threads)):
        words += [] if value is None else [flag, str(value)]
    return [*words, "--device", options.device, "--checkpoint-seconds", str(options.checkpoint_seconds)]


# --- one cell --------------------------------------------------------------------------------------------------------


def _run_here(job: "Job", options: argparse.Namespace, settings: list[str]) -> int:
    import torch

    from repro.papers import EXPERIMENTS
    from repro.progress import Bar
    from repro.runner import MissingWeights, Request
    from repro.runner import run as run_cell
    from repro.scheduling import EXIT_WAITING

    if options.threads or options.tier == "smoke":  # on a busy machine two threads wait for each other for seconds
        torch.set_num_threads(options.threads or 1)
    experiment = EXPERIMENTS[job.experiment]
    device = pick_device(options.device)
    default = replace(experiment.config(job.cell, options.tier), seed=job.seed)
    config = parse_settings(default, settings, f"python -m repro run {job.experiment} {job.cell}")
    request = Request(
        name=job.experiment,
        experiment=experiment,
        cell=job.cell,
        tier=options.tier,
        config=config,
        device=device,
        publish=options.publish,
        force=options.force,
        max_minutes=options.max_minutes,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    try:
        outcome = run_cell(request, Bar(job.label))
    except MissingWeights as error:
        if not is_supervised():
            raise
        print(f"error: {error}", file=sys.stderr)
        return EXIT_WAITING
    ignore_requests()  # the run has ended as it has
    where = f" -> {os.path.relpath(outcome.folder)}" if outcome.folder else ""
    print(f"{job.label}: {outcome.status} ({outcome.detail}){where}", file=sys.stderr)
    return {"done": 0, "skipped": 0, "paused": EXIT_PAUSED, "interrupted": EXIT_INTERRUPTED}.get(
        outcome.status, EXIT_FAILED
    )
