"""A fresh process gives what the call gives, and says how it ended if it ended badly."""

import os
import signal
import threading
import time

import pytest
import torch

from repro.measuring import fresh as module
from repro.measuring.fresh import fresh


def test_the_result_of_a_closure_comes_back():
    local, parent = torch.arange(3.0), os.getpid()
    assert fresh(lambda: {"sum": float(local.sum()), "other": os.getpid() != parent}) == {"sum": 3.0, "other": True}


def test_threads_are_those_asked_for():
    assert fresh(lambda: {"n": torch.get_num_threads()}, threads=1) == {"n": 1}


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: os._exit(3), "process ended with code 3: no message"),
        (lambda: os.kill(os.getpid(), 9), "out of memory"),
        (lambda: torch.empty(2**60), "out of memory"),
    ],
)
def test_a_bad_end_is_a_status_and_the_next_call_works(call, status):
    assert fresh(call) == {"status": status}
    assert fresh(lambda: {"fine": 1}) == {"fine": 1}


def test_a_call_that_takes_too_long_is_ended():
    assert fresh(lambda: time.sleep(60), timeout=0.5) == {"status": "stopped after 0.5 s"}
    assert fresh(lambda: {"fine": 1}) == {"fine": 1}


def test_the_setting_goes_along(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("ANSWER = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SAID_LATER", "yes")
    monkeypatch.chdir(tmp_path)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = fresh(_what_is_here)
    finally:
        torch.set_default_dtype(before)
    assert found == {"answer": 42, "said": "yes", "folder": str(tmp_path), "dtype": "torch.float64"}


def _what_is_here():
    import only_here

    said = os.environ["SAID_LATER"]
    return {"answer": only_here.ANSWER, "said": said, "folder": os.getcwd(), "dtype": str(torch.ones(1).dtype)}  # noqa: PTH109


def test_a_child_that_ends_before_anybody_listens_is_not_waited_for(monkeypatch):
    def slowly(*words, **settings):
        print(*words, **settings)
        time.sleep(1)  # both answers are there before the first is read

    assert fresh(lambda: {"fine": 0}) == {"fine": 0}  # the nursery is there, so that the next call's child is quick
    monkeypatch.setattr(module, "print", slowly, raising=False)
    began = time.monotonic()
    assert fresh(lambda: {"fine": 1}, timeout=20.0) == {"fine": 1}
    assert time.monotonic() - began < 15


def test_what_is_printed_is_no_answer():
    assert fresh(lambda: print("17") or {"fine": 1}) == {"fine": 1}


def test_what_cannot_be_sent_is_a_status():
    lock = threading.Lock()
    assert fresh(lambda: {"locked": lock.locked()})["status"].startswith("TypeError: cannot pickle")


def test_a_broken_wait_leaves_the_next_call_sound():
    def stop(number, frame):
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(InterruptedError):
            fresh(lambda: time.sleep(60))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert fresh(lambda: {"fine": 1}) == {"fine": 1}
    assert fresh(lambda: time.sleep(60), timeout=0.5) == {"status": "stopped after 0.5 s"}


def test_if_the_system_takes_the_nursery_another_is_started():
    assert fresh(lambda: os.kill(os.getppid(), 9) or time.sleep(1) or {}) in ({"status": "out of memory"}, {})
    assert fresh(lambda: {"fine": 1}) == {"fine": 1}
