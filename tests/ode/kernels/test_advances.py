"""A recorded step is believed after its trial, copied out of memory that is used again, and given up when in doubt."""

import pytest
import torch

from repro.ode.kernels import advances
from repro.ode.kernels.advances import TRIALS, Recorded

GIVEN = "field"


def doubled(field, y):
    return 2 * y, None


def whole(results):
    return results


def states(count, rows=3):
    return [torch.full((rows, 2), float(n + 1)) for n in range(count)]


def test_results_are_copied_out_of_the_graphs_memory():
    memory = torch.empty(3, 2)

    def graph(field, y):
        return memory.copy_(2 * y), None

    step = Recorded(GIVEN, graph, doubled)
    found = [step((GIVEN, y), whole) for y in states(TRIALS + 3)]
    assert all(
        torch.equal(end, 2 * y) and none is None for y, (end, none) in zip(states(TRIALS + 3), found, strict=True)
    )
    assert step.given_up is None


def test_every_shape_is_tried():
    calls = []

    def plain(field, y):
        calls.append(len(y))
        return doubled(field, y)

    step = Recorded(GIVEN, doubled, plain)
    for rows in (3, 5):
        for y in states(TRIALS + 2, rows):
            step((GIVEN, y), whole)
    assert calls == [3] * TRIALS + [5] * TRIALS


@pytest.mark.parametrize("right", range(TRIALS))
def test_a_graph_with_other_results_is_given_up(right, caplog):
    """It replays an old state, say; the step is right all the same."""
    seen = []

    def stale(field, y):
        seen.append(y)
        return 2 * (y if len(seen) <= right else seen[0] - 1), None

    step = Recorded(GIVEN, stale, doubled)
    for y in states(TRIALS + 3):
        torch.testing.assert_close(step((GIVEN, y), whole)[0], 2 * y)
    assert step.given_up == "its results were others than without"
    assert caplog.text.count("without a CUDA graph of field: its results") == 1


def test_a_graph_without_a_result_that_there_should_be_is_given_up():
    step = Recorded(GIVEN, lambda field, y: (None, None), doubled)
    torch.testing.assert_close(step((GIVEN, torch.ones(3, 2)), whole)[0], torch.full((3, 2), 2.0))
    assert step.given_up


def test_a_step_is_tried_again_once_torch_has_compiled_more(monkeypatch):
    """It may have recorded another graph then."""
    calls = []

    def plain(field, y):
        calls.append(y)
        return doubled(field, y)

    step = Recorded(GIVEN, doubled, plain)
    for compiled in (1, 2):
        monkeypatch.setattr(advances, "_compilations", lambda compiled=compiled: compiled)
        for y in states(TRIALS + 2):
            step((GIVEN, y), whole)
    assert len(calls) == 2 * TRIALS


def test_infinite_results_are_no_reason_to_give_up():
    def infinite(field, y):
        return torch.full_like(y, torch.inf), None

    step = Recorded(GIVEN, infinite, infinite)
    assert step((GIVEN, torch.ones(3, 2)), whole)[0].isinf().all()
    assert step.given_up is None


@pytest.mark.parametrize("kind", [RuntimeError, AssertionError])
@pytest.mark.parametrize("after", [0, TRIALS + 1])
def test_a_graph_that_fails_is_given_up(after, kind, caplog):
    calls = []

    def graph(field, y):
        calls.append(y)
        if len(calls) > after:
            raise kind("operation not permitted when stream is capturing\nmore")
        return doubled(field, y)

    step = Recorded(GIVEN, graph, doubled)
    for y in states(TRIALS + 3):
        torch.testing.assert_close(step((GIVEN, y), whole)[0], 2 * y)
    assert step.given_up == "operation not permitted when stream is capturing"
    assert len(calls) == after + 1
    assert len(caplog.records) == 1


def test_a_full_device_is_no_reason_to_give_up():
    def graph(field, y):
        raise torch.OutOfMemoryError("out of memory")

    step = Recorded(GIVEN, graph, doubled)
    with pytest.raises(torch.OutOfMemoryError):
        step((GIVEN, torch.ones(3, 2)), whole)
    assert step.given_up is None


def test_graphs_can_be_switched_off(monkeypatch):
    on_cuda = torch.empty(1, device="meta")
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    assert advances.recordable(on_cuda)
    monkeypatch.setenv("REPRO_CUDA_GRAPHS", "0")
    assert not advances.recordable(on_cuda)
