"""The command that works through results/QUEUE.md: in its order, several cells at a time, at low priority."""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repro.errors import UsageError
from repro.options import (
    EXIT_FAILED,
    EXIT_PAUSED,
    add_device_option,
    add_jobs_option,
    add_run_options,
    pick_device,
    read_niceness,
)
from repro.signals import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from repro.queue_file import Entry
    from repro.scheduling import Job
    from repro.states import State

HELP = "work through results/QUEUE.md, resumable"
DESCRIPTION = (
    "Runs the entries of results/QUEUE.md in their order: within an entry every cell with the first seed, then with "
    "the next. What is done is skipped, what was paused goes on. Columns `state` and `hours so far` are rewritten "
    "after each cell; they count published runs."
)
LEAST_MINUTES = 2.0
"""Nothing is started with less time left: a process takes seconds to start, and data some more to load."""


def register(verbs: Any) -> None:  # noqa: ANN401 (argparse's subparsers have no public type)
    """Add the verb to the command line."""
    parser = verbs.add_parser("queue", help=HELP, description=DESCRIPTION)
    parser.add_argument("--status", action="store_true", help="run nothing; rewrite the two columns, print the table")
    add_jobs_option(parser, "N cells at a time (default: 1)")
    add_run_options(parser, "the whole queue")
    add_device_option(parser)
    parser.add_argument(
        "--nice", type=read_niceness, default=19, help="lower priority of the runs, 0 to 19 (default: 19)"
    )
    parser.set_defaults(function=queue)


def queue(options: argparse.Namespace) -> int:
    """Work through the queue, or only rewrite its generated columns."""
    from repro.queue_file import extract_table

    path = find_queue()
    entries = _read(path)
    device = pick_device(options.device)
    _rewrite(path, device)
    if options.status:
        print(extract_table(path.read_text(encoding="utf-8")))
        return 0
    return _work(path, entries, options, device)


def find_queue() -> Path:
    """Give the place of the queue."""
    from repro.results import results_root

    return results_root() / "QUEUE.md"


def _read(path: Path) -> "list[Entry]":
    from repro.queue_file import QueueError, read_queue

    try:
        return read_queue(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no {path}") from None
    except (QueueError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None


def _rewrite(path: Path, device: Any) -> None:  # noqa: ANN401 (a torch device)
    """Rewrite state and hours of every entry as the file is now: its author may have edited it meanwhile."""
    from repro.durability import write_atomically
    from repro.queue_file import write_status
    from repro.states import count_states, find_state, make_request, sum_hours

    statuses: dict[int, tuple[str, str]] = {}
    for entry in _read(path):
        requests = [make_request(entry.experiment, cell, entry.tier, seed, device) for cell, seed in entry.runs()]
        states: list[State] = [find_state(request, ("runs",)) for request in requests]
        hours = sum(sum_hours(request, ("runs",)) for request in requests)
        statuses[entry.line] = count_states(states), f"{hours:.1f}"
    old = path.read_bytes().decode("utf-8")
    new = write_status(old, statuses)
    if new != old:
        write_atomically(path, new.encode("utf-8"))


def _work(path: Path, entries: "Sequence[Entry]", options: argparse.Namespace, device: Any) -> int:  # noqa: ANN401
    from repro.scheduling import Pool, rank_codes

    def after_end(job: "Job", code: int) -> None:
        try:
            _rewrite(path, device)
        except UsageError as error:  # somebody is editing the file
            print(f"{error}; its columns are rewritten after the next run", file=sys.stderr)

    plan = _Plan(entries, options, device)
    # no second attempt in this call: it would not know of the minutes that are left
    pool = Pool(options.jobs, niceness=options.nice, retry=False, after_end=after_end)
    pool.run(plan.list_open_jobs())
    done = sum(code == 0 for code in pool.codes.values())
    print(f"{plan.done} of {plan.total} runs were done, {done} more are now", file=sys.stderr)
    if pool.is_interrupted:
        return EXIT_INTERRUPTED
    return rank_codes([*pool.codes.values(), *plan.codes])


class _Plan:
    """The runs of a queue that are still to do, looked up one by one as there is a process for them.

    Attributes:
        total: number of different runs in the queue.
        done: number of those that were done when it was their turn.
        codes: exit codes of runs that are not started: failed before, in another process, no time left.
    """

    def __init__(self, entries: "Sequence[Entry]", options: argparse.Namespace, device: Any) -> None:  # noqa: ANN401
        self.options, self.device = options, device
        self.deadline = None if options.max_minutes is None else time.monotonic() + 60 * options.max_minutes
        self.jobs = list(dict.fromkeys(job for entry in entries for job in self._jobs_of(entry)))
        self.total, self.done = len(self.jobs), 0
        self.codes: list[int] = []

    def _jobs_of(self, entry: "Entry") -> "Iterator[Job]":
        from repro.scheduling import Job

        words = ["--threads", str(entry.threads), "--device", self.options.device]
        words += ["--publish"] if self.options.publish else []
        for cell, seed in entry.runs():
            yield Job(entry.experiment, cell, entry.tier, seed, tuple(words))

    def list_open_jobs(self) -> "Iterator[Job]":
        """Yield what is to run, with the minutes that are left."""
        from dataclasses import replace

        for job in self.jobs:
            if not self._is_open(job):
                continue
            if self.deadline is None:
                yield job
                continue
            left = (self.deadline - time.monotonic()) / 60
            if left < LEAST_MINUTES:
                self.codes.append(EXIT_PAUSED)
                return
            yield replace(job, options=(*job.options, "--max-minutes", f"{max(left, 0):.4g}"))

    def _is_open(self, job: "Job") -> bool:
        from repro.states import find_state, make_request

        request = make_request(job.experiment, job.cell, job.tier, job.seed, self.device)
        state = find_state(request, ("runs",) if self.options.publish else ("runs", "local"))
        if state == "done":
            self.done += 1
        elif state == "failed":
            print(f"{job.label}: failed before, as its record says", file=sys.stderr)
            self.codes.append(EXIT_FAILED)
        elif state == "running":
            print(f"{job.label}: another process is working on it", file=sys.stderr)
            self.codes.append(EXIT_PAUSED)
        return state in ("paused", "todo")
