"""A process of its own for a measurement: the only way to a peak of memory that nothing before it has spoiled.

The largest resident set of a process never falls, and memory that was freed stays resident, so that a frugal step
after a wasteful one would seem to need nothing. A process that ran out of memory takes no other cell with it.
"""

import atexit
import contextlib
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO, RawIOBase
from pathlib import Path
from typing import Any

import cloudpickle
import torch

from repro.measuring.meters import status_of

Result = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What of a process a call may depend on, taken along to the process that makes it."""

    path: tuple[str, ...]
    folder: str
    environment: dict[str, str]
    dtype: torch.dtype
    threads: int | None

    @classmethod
    def of_this_process(cls, threads: int | None) -> "Setting":
        """The setting here, with another number of threads."""
        return cls(tuple(sys.path), str(Path.cwd()), dict(os.environ), torch.get_default_dtype(), threads)

    def take_over(self) -> None:
        """Make it that of this process."""
        sys.path[:] = self.path
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        torch.set_default_dtype(self.dtype)
        torch.backends.cudnn.allow_tf32 = False  # as the suite's commands have it
        if self.threads is not None:
            torch.set_num_threads(self.threads)


def fresh(call: Callable[[], Result], *, threads: int | None = None, timeout: float = 600.0) -> Result:
    """Make a call in a new process and give its result, or a status that says why there is none.

    Args:
        call: Anything that cloudpickle can send, closures and classes of a notebook included.
        threads: Threads of torch there; None leaves its own choice.
        timeout: Seconds after which the process is ended.

    Returns:
        What the call gave; else {"status": …}: "out of memory" also where the system killed the process.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            payload = pickle.dumps((Setting.of_this_process(threads), cloudpickle.dumps(call)))
        except Exception as error:  # the call holds what cannot be sent: a lock, an open file
            return {"status": status_of(error)}
        (folder / "payload").write_bytes(payload)
        code = NURSERY.run(folder, timeout)
        if (folder / "result").exists():
            return cloudpickle.loads((folder / "result").read_bytes())
        errors = folder / "errors"
        return {"status": _how_it_ended(code, errors.read_bytes() if errors.exists() else b"", timeout)}


class _Nursery:
    """A process that has loaded torch and forks one child for each call: fresh, and at once.

    It never computes anything itself, so that no thread is lost in the fork and no memory was used before it. One call
    at a time; whatever breaks a call off ends the nursery, and the next call starts another.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._answers: RawIOBase | None = None
        self._lock = threading.Lock()

    def run(self, folder: Path, timeout: float) -> int | None:
        """Let a child work on a folder; return its exit code, negative for a signal, or None after the timeout."""
        with self._lock:
            try:
                return self._run(folder, timeout)
            except BaseException:
                self._end()
                raise

    def _run(self, folder: Path, timeout: float) -> int | None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._answers is not None
        print(folder, file=self._process.stdin, flush=True)
        child = self._answers.readline()
        ready, _, _ = select.select([self._answers], [], [], timeout)
        if not ready:
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(int(child), signal.SIGKILL)
        code = self._answers.readline()
        if not child or not code:
            self._end()
            return -signal.SIGKILL  # the system took the nursery itself
        return int(code) if ready else None

    def _start(self) -> None:
        path = os.pathsep.join(str(Path(entry or ".").resolve()) for entry in sys.path)  # the same modules as here
        reading, writing = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "repro.measuring.worker", str(writing)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[writing],
            start_new_session=True,  # an interruption from the keyboard is the caller's to handle
            text=True,
        )
        os.close(writing)
        # not buffered: a reader that takes more than a line at once would leave `select` waiting for what it has
        self._answers = FileIO(reading)
        atexit.register(self._process.kill)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None


NURSERY = _Nursery()


def _how_it_ended(code: int | None, errors: bytes, timeout: float) -> str:
    if code is None:
        return f"stopped after {timeout:g} s"
    if code == -signal.SIGKILL:  # what Linux does to a process that takes too much
        return "out of memory"
    lines = errors.decode(errors="replace").strip().splitlines()
    return f"process ended with code {code}: {lines[-1][:200] if lines else 'no message'}"


def limit() -> None:
    """Let an allocation fail that the machine could not bear: a clean error instead of a machine out of memory."""
    if Path("/proc/meminfo").exists():
        left = int(0.9 * _kib("/proc/meminfo", "MemAvailable")) * 1024
        size = _kib("/proc/self/status", "VmData") * 1024 + left
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _kib(path: str, name: str) -> int:
    """A number of a file of /proc, in KiB."""
    entries = dict(line.split(":", 1) for line in Path(path).read_text().splitlines())
    return int(entries[name].split()[0])
