"""Guards around a run: one process per run, and a request to stop that lets the run save itself first."""

import fcntl
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from repro.errors import Failure
from repro.experiment import Context
from repro.signals import is_supervised, list_stop_signals

ATTEMPTS, PAUSE = 5, 0.02
"""Attempts at a lock and the seconds between them: `lock_is_held` takes it for a moment."""
SAME_REQUEST = 1.0
"""Seconds in which a child takes two signals for one: a batch system sends its own, the scheduler passes one on."""
GRACE = 20.0
"""Seconds after a request to stop in which a run must reach its next update or its next evaluation of a field."""


class Busy(Failure):
    """Another process works on this very run."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's lock; the system lets go of it when the process dies, however it dies."""
    with _lock_file(folder).open("w") as file:
        for attempt in range(ATTEMPTS):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == ATTEMPTS - 1:
                    raise Busy(f"another process is working on {folder.parent.name} {folder.name}") from None
                time.sleep(PAUSE)
        yield


def lock_is_held(folder: Path) -> bool:
    """Tell whether a process of this machine works in a run's folder."""
    try:
        with _lock_file(folder).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass
    return False


def _lock_file(folder: Path) -> Path:
    return folder.parent / f"{folder.name}.lock"


class Flags:
    """Whose `stop` a signal sets; until it is known, a signal interrupts at once."""

    context: Context | None = None
    asked_at: float = 0.0


@contextmanager
def stop_signals() -> Iterator[Flags]:
    """On SIGINT, SIGTERM or SIGHUP ask the loop to save and leave; a second signal ends the process at once.

    The loop notices between two updates and at every evaluation of a field. One that has not left after `GRACE` seconds
    is interrupted as by a second signal: it computes something long without a solve.
    """
    flags = Flags()

    def ask(number: int, frame: FrameType | None) -> None:
        if flags.context is None:
            raise KeyboardInterrupt
        if flags.context.stop:
            if is_supervised() and time.monotonic() - flags.asked_at < SAME_REQUEST:
                return
            raise KeyboardInterrupt
        flags.context.stop, flags.asked_at = True, time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, GRACE)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, ask) for number in list_stop_signals()}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield flags
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
