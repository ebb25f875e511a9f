"""Signals and the parent process: a command ends in one line at any moment, and no child outlives its parent.

The module imports nothing that is slow, since it must act before anything else does.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Literal

EXIT_INTERRUPTED = 130
PARENT = "REPRO_PARENT"
"""Environment variable of a child process: its parent's process id and a pipe's file descriptor, as `123:4`."""
PR_SET_PDEATHSIG = 1
"""Of Linux's <sys/prctl.h>."""


def list_stop_signals() -> tuple[signal.Signals, ...]:
    """List the signals that ask a process to stop; SIGHUP is none of them where `nohup` has it ignored."""
    hangups = [number for number in signal.Signals if number.name == "SIGHUP"]
    wanted = [number for number in hangups if signal.getsignal(number) is not signal.SIG_IGN]
    return (signal.SIGINT, signal.SIGTERM, *wanted)


class _Process:
    """State of this process: its reaction to a signal, and whether a scheduler started it."""

    reaction: Literal["exit", "raise", "ignore"] = "exit"
    supervised: bool = False


def handle_signals() -> None:
    """Let SIGINT, SIGTERM and SIGHUP end this process with one line and exit code 130."""
    for number in list_stop_signals():
        signal.signal(number, _react)


def _react(number: int, frame: FrameType | None) -> None:
    if _Process.reaction == "ignore":
        return
    if _Process.reaction == "raise" and not _importing(frame):
        raise KeyboardInterrupt
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(EXIT_INTERRUPTED)


def _importing(frame: FrameType | None) -> bool:
    """Tell whether the stack holds an import, which may print an exception or turn it into another one."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def allow_interrupts() -> Iterator[None]:
    """Let a signal raise KeyboardInterrupt in the block; before and after it a signal ends the process at once."""
    _Process.reaction = "raise"
    try:
        yield
    finally:
        if _Process.reaction == "raise":
            _Process.reaction = "exit"


def ignore_requests() -> None:
    """Pass over every signal from here on: the work is done, and its exit code shall not change."""
    _Process.reaction = "ignore"


def ignore_signals() -> None:
    """Have the system ignore the signals, also while the interpreter shuts down and has no handlers any more."""
    for number in list_stop_signals():
        signal.signal(number, signal.SIG_IGN)


# --- the parent process ----------------------------------------------------------------------------------------------


def is_supervised() -> bool:
    """Tell whether a scheduler of this suite started this process."""
    return _Process.supervised


def die_with_parent() -> None:
    """End this process when the scheduler that started it ends, however it ends; do nothing without a scheduler.

    SIGKILL costs at most the time since the last checkpoint, and nothing can delay it.
    """
    text = os.environ.pop(PARENT, None)  # not for this process's children
    if text is None:
        return
    _Process.supervised = True
    parent, pipe = map(int, text.split(":"))
    if not _request_death_signal():
        threading.Thread(target=exit_at_end, args=(pipe,), daemon=True).start()
    elif os.getppid() != parent:  # it died before the request
        os._exit(EXIT_INTERRUPTED)


def _request_death_signal() -> bool:
    """Ask Linux to kill this process when its parent dies; false where that is not possible."""
    if sys.platform != "linux":
        return False
    import ctypes

    try:
        return ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL)) == 0
    except (AttributeError, OSError):
        return False


def exit_at_end(pipe: int) -> None:
    """Wait until a pipe's other end is closed, as it is when the process that holds it dies, and end this process."""
    while os.read(pipe, 1):
        pass
    os._exit(EXIT_INTERRUPTED)
