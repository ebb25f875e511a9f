"""The door: `python -m repro list | plan | run | show | report | compare | evaluate | data | doctor`."""

import argparse
import fnmatch
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from repro import commands, compare_command, evaluate_command, plan_command, show_command
from repro.commands import EXIT_FAILED, Failure, pick_device

EXIT_USAGE, EXIT_PAUSED, EXIT_INTERRUPTED = 2, 75, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done; 1 something failed, a recorded divergence included (one line says what), or `compare` found something
        worse; 2 wrong usage; 75 paused by --max-minutes and resumable; 130 interrupted and resumable.
    """
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    if rest and known.verb != "run":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    from repro.checkpoint import CheckpointError
    from repro.data import DataError

    try:
        return _run(known, rest) if known.verb == "run" else known.function(known)
    except BrokenPipeError:
        return EXIT_FAILED
    except (CheckpointError, DataError, Failure, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:  # before the training loop, or for the second time: what was saved before is safe
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m repro", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list", help="what there is, and what has been run")
    listing.set_defaults(function=commands.show_list)
    plan_command.register(verbs)
    run = verbs.add_parser("run", help="run cells; further options change settings: --solver.rtol 1e-6", add_help=False)
    run.set_defaults(parser=run)
    run.add_argument("experiment", nargs="?", help="as neural_ode/table1_mnist, or a pattern: 'neural_ode/*'")
    run.add_argument("cell", nargs="?", help="cell or pattern: '*' is all; the experiment's main cells by default")
    run.add_argument("--tier", choices=("smoke", "small", "paper"), default="smoke")
    seeds = run.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, nargs="+", default=[0], help="seeds by their numbers (default: 0)")
    seeds.add_argument("--seeds", type=_count, metavar="N", help="seeds 0 to N - 1")
    run.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    run.add_argument("--publish", action="store_true", help="put results into results/runs/, not results/local/")
    run.add_argument("--force", action="store_true", help="run again what is finished")
    run.add_argument("--max-minutes", type=float, help="stop each cell after so long, resumable")
    run.add_argument("--checkpoint-seconds", type=float, default=60.0, help="longest time between checkpoints")
    run.add_argument("--threads", type=int, help="CPU threads of torch; one in the smoke tier, else torch's own choice")
    show_command.register(verbs)
    report = verbs.add_parser("report", help="rebuild tables, figures and the README's generated part")
    report.add_argument("--local", action="store_true", help="also show this machine's own runs (in results/local/)")
    report.add_argument("--check", action="store_true", help="write nothing; fail if anything would change")
    report.set_defaults(function=commands.report)
    compare_command.register(verbs)
    evaluate_command.register(verbs)
    data = verbs.add_parser("data", help="check every data file: ok, missing, absent or corrupt; or fetch a data set")
    data.add_argument("action", nargs="?", choices=("fetch",), help="download a set that does not ship")
    data.add_argument("name", nargs="?", help="which: gas, hepmass, miniboone or bsds300")
    data.set_defaults(function=commands.data)
    verbs.add_parser("doctor", help="what this machine can run, and what is wrong").set_defaults(
        function=commands.doctor
    )
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of seeds")
    return number


# --- run -------------------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    help_wanted = not {"-h", "--help"}.isdisjoint(rest)
    if help_wanted:
        options.parser.print_help()
    if options.experiment is None:
        return 0 if help_wanted else options.parser.error("which experiment? `python -m repro list` shows all")
    from repro.papers import EXPERIMENTS

    names = fnmatch.filter(EXPERIMENTS, options.experiment)
    if not names:
        raise Failure(f"no experiment {options.experiment!r}; there are: {', '.join(EXPERIMENTS)}")
    jobs = [(name, cell, seed) for name in names for cell, seed in _cells(EXPERIMENTS[name], options)]
    if len(jobs) == 1 or help_wanted:
        return _run_one(*jobs[0], options, rest)
    codes: list[int] = []
    for job in jobs:
        codes.append(_run_child(job, options, rest))
        if codes[-1] == EXIT_INTERRUPTED:
            break
    print(f"{codes.count(0)} of {len(jobs)} cells ok", file=sys.stderr)
    ranked = (EXIT_INTERRUPTED, EXIT_FAILED, EXIT_USAGE, EXIT_PAUSED)
    return next((code for code in ranked if code in codes), 0)


def _cells(experiment: Any, options: argparse.Namespace) -> list[tuple[str, int]]:  # noqa: ANN401 (generic)
    chosen = experiment.chosen(options.cell, options.tier)
    if not chosen:
        raise Failure(f"no cell {options.cell!r} in {experiment.artefact}; there are: {', '.join(experiment.cells)}")
    return list(itertools.product(chosen, options.seed if options.seeds is None else range(options.seeds)))


def _run_child(job: tuple[str, str, int], options: argparse.Namespace, rest: list[str]) -> int:
    """One process per cell: memory is measured cleanly, and what kills one cell does not kill the others."""
    name, cell, seed = job
    flags = [flag for flag, on in (("--publish", options.publish), ("--force", options.force)) if on]
    for flag, value in (("--max-minutes", options.max_minutes), ("--threads", options.threads)):
        flags += [] if value is None else [flag, str(value)]
    flags += ["--device", options.device, "--checkpoint-seconds", str(options.checkpoint_seconds)]
    command = [sys.executable, "-m", "repro", "run", name, cell, "--tier", options.tier, "--seed", str(seed)]
    process = subprocess.Popen([*command, *flags, *rest])
    before = signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    try:
        return _wait(process)
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(process: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            code = process.wait()
            return code if code >= 0 else EXIT_FAILED  # negative: killed by a signal, as when memory ran out
        except KeyboardInterrupt:  # the terminal sends Ctrl-C to the child as well: let it save
            continue


def _run_one(name: str, cell: str, seed: int, options: argparse.Namespace, rest: list[str]) -> int:
    import torch
    import tyro

    from repro.guards import Busy
    from repro.papers import EXPERIMENTS
    from repro.progress import Bar
    from repro.runner import MissingWeights, Request, run

    if options.threads or options.tier == "smoke":  # on a busy machine two threads wait for each other for seconds
        torch.set_num_threads(options.threads or 1)
    experiment = EXPERIMENTS[name]
    device = pick_device(options.device)
    config = tyro.cli(
        type(experiment.cells[cell]),
        prog=f"python -m repro run {name} {cell}",
        default=replace(experiment.config(cell, options.tier), seed=seed),
        args=rest,
    )
    request = Request(
        name=name,
        experiment=experiment,
        cell=cell,
        tier=options.tier,
        config=config,
        device=device,
        publish=options.publish,
        force=options.force,
        max_minutes=options.max_minutes,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    label = f"{name} {cell} seed {seed}"
    try:
        outcome = run(request, Bar(label))
    except (Busy, MissingWeights) as error:
        raise Failure(str(error)) from None
    where = f" -> {os.path.relpath(outcome.folder)}" if outcome.folder else ""
    print(f"{label}: {outcome.status} ({outcome.detail}){where}", file=sys.stderr)
    return {"done": 0, "skipped": 0, "paused": EXIT_PAUSED, "interrupted": EXIT_INTERRUPTED}.get(
        outcome.status, EXIT_FAILED
    )


if __name__ == "__main__":
    sys.exit(main())
