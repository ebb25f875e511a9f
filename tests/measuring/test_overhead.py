"""A step is overhead-bound exactly if twice the batch takes hardly longer per evaluation; no real clock decides."""

from types import SimpleNamespace

import pytest
import torch

from repro.measuring import overhead
from repro.measuring.overhead import Sized, doubling

CPU = torch.device("cpu")


@pytest.fixture
def told(monkeypatch):
    """Steps that take the seconds that they are told, by a clock that only they move."""

    def in_turn(calls, rounds, device, longest, least):
        return {key: [call() for _ in range(rounds)] for key, call in calls.items()}

    monkeypatch.setattr(overhead, "in_turn", in_turn)

    def sized(seconds, forward=20, backward=None):
        return Sized(lambda: seconds, lambda: SimpleNamespace(nfe_forward=forward, nfe_backward=backward))

    return sized


@pytest.mark.parametrize(("seconds", "bound"), [(1.0, True), (1.2, True), (1.3, False), (2.0, False)])
def test_the_ratio_decides(told, seconds, bound):
    found = doubling(told(1.0), lambda: told(seconds), CPU)
    assert found == {"batch_doubling": pytest.approx(seconds), "overhead_bound": bound}
    assert isinstance(found["overhead_bound"], bool)  # as JSON has it


def test_more_evaluations_are_not_mistaken_for_more_work_in_each(told):
    assert doubling(told(1.0, 20, 20), lambda: told(2.0, 40, 40), CPU)["overhead_bound"]
    assert not doubling(told(1.0, 20, 20), lambda: told(1.0, 10, 10), CPU)["overhead_bound"]


def test_what_solves_nothing_is_judged_by_its_time():
    step = Sized(lambda: None, lambda: None)
    assert step.evaluations() == 1


def test_a_batch_that_does_not_fit_is_a_status(told):
    def none():
        return Sized(lambda: torch.empty(2**60), lambda: None)

    assert doubling(told(1.0), none, CPU) == {"doubling_status": "out of memory"}
