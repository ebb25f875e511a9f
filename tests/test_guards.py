"""Locks and requests to stop, with real locks and real signals to this process."""

import os
import signal
import threading
import time

import pytest
import torch

from repro import guards, signals
from repro.experiment import Context
from repro.guards import Busy, lock_is_held, locked, stop_signals


def ask(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def test_a_lock_is_seen_while_it_is_held_and_excludes(tmp_path):
    folder = tmp_path / "run"
    assert not lock_is_held(folder)
    with locked(folder):
        assert lock_is_held(folder)
        with pytest.raises(Busy), locked(folder):
            pass
    assert not lock_is_held(folder)


def test_looking_at_a_lock_keeps_nobody_from_taking_it(tmp_path):
    folder, over = tmp_path / "run", threading.Event()
    with locked(folder):
        pass

    def look():
        while not over.is_set():
            lock_is_held(folder)

    observer = threading.Thread(target=look)
    observer.start()
    try:
        for _ in range(50):
            with locked(folder):
                pass
    finally:
        over.set()
        observer.join()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_the_second_interrupts(number, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where `nohup` has it ignored
    try:
        with stop_signals() as flags:
            flags.context = context = Context(torch.device("cpu"), tmp_path)
            ask(number)
            assert context.stop
            with pytest.raises(KeyboardInterrupt):
                ask(number)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_child_takes_two_signals_at_once_for_one(monkeypatch, tmp_path):
    monkeypatch.setattr(signals._Process, "supervised", True)
    monkeypatch.setattr(guards, "SAME_REQUEST", 0.2)
    with stop_signals() as flags:
        flags.context = Context(torch.device("cpu"), tmp_path)
        ask()
        ask()
        time.sleep(0.25)
        with pytest.raises(KeyboardInterrupt):
            ask()


def test_what_does_not_leave_when_asked_is_interrupted_and_what_has_left_is_not(monkeypatch, tmp_path):
    monkeypatch.setattr(guards, "GRACE", 0.1)
    with stop_signals() as flags:
        flags.context = Context(torch.device("cpu"), tmp_path)
        ask()
        with pytest.raises(KeyboardInterrupt):
            time.sleep(5)
    with stop_signals() as flags:
        flags.context = Context(torch.device("cpu"), tmp_path)
        ask()
    time.sleep(0.2)
