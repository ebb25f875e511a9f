"""Guards around a run: one process per run, and a request to stop that lets the run save itself first."""

import fcntl
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from repro.experiment import Context


class Busy(Exception):
    """Another process works on this very run."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run's lock; the system lets go of it when the process dies, however it dies."""
    with (folder.parent / f"{folder.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another process is working on {folder.parent.name} {folder.name}") from None
        yield


class Flags:
    """Whose `stop` a signal sets; until it is known, a signal interrupts at once."""

    context: Context | None = None


@contextmanager
def stop_signals() -> Iterator[Flags]:
    """On SIGINT or SIGTERM ask the loop to save and leave; a second signal ends the process at once."""
    flags = Flags()

    def ask(number: int, frame: FrameType | None) -> None:
        if flags.context is None or flags.context.stop:
            raise KeyboardInterrupt
        flags.context.stop = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flags
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
