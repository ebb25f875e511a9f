"""Many cells: which of them this call runs, in which order, and their processes from start to end.

Each cell has a process of its own: memory is measured cleanly, and what kills one cell does not kill the others.
"""

import math
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from repro.options import EXIT_FAILED, EXIT_PAUSED, EXIT_USAGE
from repro.progress import HEARTBEAT, CellLines
from repro.signals import EXIT_INTERRUPTED, PARENT, list_stop_signals

if TYPE_CHECKING:
    from repro.experiment import Tier

EXIT_WAITING = 69
"""A child's exit code: its cell needs the weights of a run that is not there yet."""
TICK = 0.2
"""Seconds between two looks at the children."""
MOST_PATIENT = 2
"""Requests to stop that are passed on to a child; the next one kills it."""


@dataclass(frozen=True, order=True)
class Job:
    """One run of one cell in a process of its own; `options` are further words of its command line."""

    experiment: str
    cell: str
    tier: "Tier"
    seed: int
    options: tuple[str, ...] = field(default=(), compare=False)

    @property
    def label(self) -> str:
        """Name of the run in messages, as its own process prints it."""
        return f"{self.experiment} {self.cell} seed {self.seed}"

    @property
    def command(self) -> list[str]:
        """The command line that runs it."""
        words = ["run", self.experiment, self.cell, "--tier", self.tier, "--seed", str(self.seed)]
        return [sys.executable, "-m", "repro", *words, *self.options]


def select_shard(jobs: Sequence[Job], index: int, count: int) -> list[Job]:
    """Select element k of the sorted jobs for shard k mod `count`; the order of the jobs stays."""
    members = set(sorted(set(jobs))[index::count])
    return [job for job in jobs if job in members]


def sort_longest_first(jobs: Sequence[Job], device: Any) -> list[Job]:  # noqa: ANN401 (a torch device)
    """Sort jobs by the hours that `plan` estimates; those without an estimate come first, in their order."""
    from repro.papers import EXPERIMENTS
    from repro.planning import estimate_cost, records

    costs = records()

    def hours(job: Job) -> float:
        experiment = EXPERIMENTS[job.experiment]
        digest = experiment.digest(experiment.config(job.cell, job.tier))
        estimate = estimate_cost(costs, job.experiment, job.cell, digest, device)
        return math.inf if estimate is None or math.isnan(estimate.hours) else estimate.hours

    return sorted(jobs, key=hours, reverse=True)  # stable


def count_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def rank_codes(codes: Iterable[int]) -> int:
    """Reduce the exit codes of several cells to the one that matters most."""
    ranked = (EXIT_INTERRUPTED, EXIT_FAILED, EXIT_USAGE, EXIT_PAUSED)
    present = set(codes)
    return next((code for code in ranked if code in present), EXIT_FAILED if present - {0} else 0)


# --- processes -------------------------------------------------------------------------------------------------------


@dataclass
class _Child:
    job: Job
    process: "subprocess.Popen[bytes]"
    requests: int = 0
    text: bytes = b""


def _lower_priority(pid: int, niceness: int) -> None:
    """Set the niceness of a process in a session of its own, and that of its session.

    Where Linux groups processes by session (sched_autogroup), cores are shared between sessions first, by the session's
    niceness; a process's own counts only against others of the same session.
    """
    with suppress(ProcessLookupError):  # it has ended by itself
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
    with suppress(OSError):  # no such grouping here
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness))


class Pool:
    """A number of processes that work through jobs; a request to stop ends all of them resumably.

    Attributes:
        codes: exit code of each job that has ended.
    """

    def __init__(
        self,
        processes: int,
        *,
        niceness: int = 0,
        retry: bool = True,
        after_end: Callable[[Job, int], None] | None = None,
    ) -> None:
        """Make an empty pool.

        Args:
            processes: that run at the same time.
            niceness: added to that of this process, for the children.
            retry: run a cell that lacks another one's weights again when others have ended well.
            after_end: called with each job that has ended, and its exit code.
        """
        self.codes: dict[Job, int] = {}
        self._processes, self._niceness, self._retry, self._after_end = processes, niceness, retry, after_end
        self._lines = CellLines()
        self._children: list[_Child] = []
        self._waiting: list[tuple[Job, int]] = []
        self._requests = 0
        self._selector = selectors.DefaultSelector()

    @property
    def is_interrupted(self) -> bool:
        """True once a signal to this process or to a child has asked to stop."""
        return self._requests > 0

    def run(self, jobs: Iterable[Job]) -> None:
        """Run jobs as they come; each is taken from `jobs` when there is a process for it."""
        source = iter(jobs)
        reading, writing = os.pipe()  # a child whose parent cannot send a death signal waits for this pipe's end
        try:
            with self._count_requests():
                while self._fill(source, reading) or self._children:
                    self._pass_requests_on()
                    self._read()
                    self._collect()
        finally:
            for child in self._children:
                child.process.kill()
                child.process.wait()
            self._lines.close()
            os.close(reading)
            os.close(writing)
        for job, _ in self._waiting:
            self.codes[job] = EXIT_FAILED

    @contextmanager
    def _count_requests(self) -> Iterator[None]:
        def count(number: int, frame: FrameType | None) -> None:
            self._requests += 1

        before = {number: signal.signal(number, count) for number in list_stop_signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _fill(self, source: Iterator[Job], pipe: int) -> bool:
        """Start what there is room for; true if anything was started."""
        started = False
        while not self.is_interrupted and len(self._children) < self._processes:
            job = next(source, None) or self._take_waiting()
            if job is None or self.is_interrupted:
                break
            self._start(job, pipe)
            started = True
        return started

    def _take_waiting(self) -> Job | None:
        """Take a job that lacked weights, once another one has ended well since."""
        done = self._count_done()
        job = next((job for job, before in self._waiting if before < done), None)
        self._waiting = [each for each in self._waiting if each[0] != job]
        return job

    def _count_done(self) -> int:
        return sum(code == 0 for code in self.codes.values())

    def _start(self, job: Job, pipe: int) -> None:
        beat = {HEARTBEAT: "1"} if self._lines.terminal else {}
        process = subprocess.Popen(
            job.command,
            stderr=subprocess.PIPE,
            env={**os.environ, **beat, PARENT: f"{os.getpid()}:{pipe}"},
            pass_fds=[pipe],
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
        )
        child = _Child(job, process)
        self._children.append(child)
        if self._niceness:
            _lower_priority(process.pid, min(19, os.getpriority(os.PRIO_PROCESS, 0) + self._niceness))
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        self._selector.register(process.stderr, selectors.EVENT_READ, child)
        self._lines.start(job, job.label)

    def _pass_requests_on(self) -> None:
        """Send children the signals that they have not had yet: SIGTERM, which also a starting interpreter obeys."""
        for child in self._children:
            if child.requests < self._requests:
                child.requests = self._requests
                child.process.send_signal(signal.SIGTERM if child.requests <= MOST_PATIENT else signal.SIGKILL)

    def _read(self) -> None:
        if not self._selector.get_map():
            with suppress(subprocess.TimeoutExpired):  # all have closed their pipes and are about to end
                self._children[0].process.wait(TICK)
        for key, _ in self._selector.select(TICK):
            self._read_from(key.data)

    def _read_from(self, child: _Child) -> None:
        """Print the whole lines that a child has written; at the end also one without its line's end."""
        pipe = child.process.stderr
        assert pipe is not None
        with suppress(BlockingIOError):
            while part := os.read(pipe.fileno(), 65536):
                child.text += part
            if not pipe.closed:
                self._selector.unregister(pipe)
                pipe.close()
                child.text += b"" if child.text.endswith(b"\n") or not child.text else b"\n"
        *lines, child.text = child.text.split(b"\n")
        for line in lines:
            self._lines.show(child.job, child.job.label, line.decode(errors="replace"))

    def _collect(self) -> None:
        for child in [child for child in self._children if child.process.poll() is not None]:
            self._children.remove(child)
            pipe = child.process.stderr
            assert pipe is not None
            if not pipe.closed:
                self._read_from(child)
            if not pipe.closed:  # a process of the child's still holds it
                self._selector.unregister(pipe)
                pipe.close()
            self._lines.end(child.job)
            self._record(child.job, child.process.returncode)

    def _record(self, job: Job, code: int) -> None:
        asked = [-number for number in list_stop_signals()]
        if code == EXIT_INTERRUPTED or code in asked or (code < 0 and self.is_interrupted):
            if code < 0:
                self._lines.write(f"{job.label}: interrupted (the same command goes on from its last checkpoint)")
            self._requests = max(1, self._requests)
            code = EXIT_INTERRUPTED
        elif code < 0:
            self._lines.write(f"{job.label}: {_describe_kill(-code)}")
            code = EXIT_FAILED
        elif code == EXIT_WAITING and self._retry:
            self._waiting.append((job, self._count_done()))
            return
        elif code == EXIT_WAITING:
            code = EXIT_FAILED
        self.codes[job] = code
        if self._after_end is not None:
            self._after_end(job, code)


def _describe_kill(number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    reason = ", as it does when memory runs out" if number == signal.SIGKILL else ""
    return f"killed by the system ({name}){reason}; the same command goes on from its last checkpoint"
