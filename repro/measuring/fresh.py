"""A process of its own for a measurement: the only way to a peak of memory that nothing before it has spoiled.

The largest resident set of a process never falls, and memory that was freed stays resident, so that a frugal step
after a wasteful one would seem to need nothing. A process that ran out of memory takes no other cell with it.
"""

import atexit
import ctypes
import gc
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import torch

from repro.measuring.meters import status_of
from repro.measuring.step import Step
from repro.metrics import PeakMemory, timed

Result = dict[str, Any]


def fresh(call: Callable[[], Result], *, threads: int | None = None, timeout: float = 600.0) -> Result:
    """Make a call in a new process and give its result, or a status that says why there is none.

    Args:
        call: Anything that cloudpickle can send, closures and classes of a notebook included.
        threads: Threads of torch there; None leaves its own choice.
        timeout: Seconds after which the process is ended.

    Returns:
        What the call gave; else {"status": …}: "out of memory" also where the system killed the process.
    """
    with tempfile.TemporaryDirectory() as folder:
        payload, output, errors = (Path(folder) / name for name in ("payload", "result", "errors"))
        payload.write_bytes(cloudpickle.dumps((call, threads)))
        code = NURSERY.run(Path(folder), timeout)
        if output.exists():
            return cloudpickle.loads(output.read_bytes())
        return {"status": _how_it_ended(code, errors.read_bytes() if errors.exists() else b"", timeout)}


class _Nursery:
    """A process that has loaded torch and forks one child for each call: fresh, and at once.

    It never computes anything itself, so that no thread is lost in the fork and no memory was used before it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, folder: Path, timeout: float) -> int | None:
        """Let a child work on a folder; return its exit code, negative for a signal, or None after the timeout."""
        if self._process is None or self._process.poll() is not None:
            self._process = self._started()
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        print(folder, file=requests, flush=True)
        child = int(answers.readline())
        ready, _, _ = select.select([answers], [], [], timeout)
        if not ready:
            os.kill(child, signal.SIGKILL)
        code = int(answers.readline())
        return code if ready else None

    def _started(self) -> subprocess.Popen[str]:
        path = os.pathsep.join(str(Path(entry or ".").resolve()) for entry in sys.path)  # the same modules as here
        command, environment = [sys.executable, "-m", "repro.measuring.worker"], {**os.environ, "PYTHONPATH": path}
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        atexit.register(process.kill)
        return process


NURSERY = _Nursery()


def _how_it_ended(code: int | None, errors: bytes, timeout: float) -> str:
    if code is None:
        return f"stopped after {timeout:g} s"
    if code == -signal.SIGKILL:  # what Linux does to a process that takes too much
        return "out of memory"
    lines = errors.decode(errors="replace").strip().splitlines()
    return f"process ended with code {code}: {lines[-1][:200] if lines else 'no message'}"


def peak(make: Callable[[], Step], device: torch.device) -> Result:
    """Measure the peak memory of one step over what is there before it; to be called in a fresh process.

    The baseline is taken after the step's `warm` evaluation, so that it holds the model, the data and every library,
    but neither gradients nor graph. What a step adds for good, its parameters' gradients, counts.

    Returns:
        peak_bytes; meter, that `peak_bytes` was read from; seconds of the step; status.
    """
    try:
        step = make()
        if step.warm is not None:
            step.warm()
        step.clear()
        _limit(device)
        _forget()
        memory = PeakMemory(device)
        seconds = timed(step.take, device)
        return {"status": "ok", "peak_bytes": memory.read(), "meter": memory.unit, "seconds": seconds}
    except Exception as error:  # an out-of-memory cell is a result
        return {"status": status_of(error)}


def _forget() -> None:
    """Give freed memory back to the system and begin the peak anew, where the system allows it (Linux)."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # 5: the peak of the resident set
    except (AttributeError, OSError):
        return


def _limit(device: torch.device) -> None:
    """Let an allocation fail that the machine could not bear: a clean error instead of a machine out of memory."""
    if device.type == "cpu" and Path("/proc/meminfo").exists():
        left = int(0.9 * _kib("/proc/meminfo", "MemAvailable")) * 1024
        size = _kib("/proc/self/status", "VmData") * 1024 + left
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _kib(path: str, name: str) -> int:
    """A number of a file of /proc, in KiB."""
    entries = dict(line.split(":", 1) for line in Path(path).read_text().splitlines())
    return int(entries[name].split()[0])
