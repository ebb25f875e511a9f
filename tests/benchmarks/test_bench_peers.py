"""Every installed library takes the same step: the loss and its gradient agree, and what cannot be done says why."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.peers import measure as measuring
from benchmarks.peers import ours
from benchmarks.peers.protocol import Outcome, Way
from benchmarks.peers.runner import Run, interleave, relative_error, start
from benchmarks.peers.shares import shares
from benchmarks.peers.torchdiffeq_way import WAYS as TORCHDIFFEQ
from benchmarks.peers.ways import BASELINE, WAYS
from benchmarks.peers.workloads import Plan, _sample, flow, odenet, twice_the_batch
from repro.data import DATASETS
from repro.flows.planar_field import PlanarField
from repro.measuring.fits import cost_at
from repro.nets.fields import ConcatSquashField

tiny_toy = partial(flow, partial(ConcatSquashField, 2, 8, 2), "8gaussians", 6, 0.5, train=0)
tiny_planar = partial(
    flow,
    partial(PlanarField, 2, 4, 6, gate="coordinate", reduction="mean"),
    "circles_node",
    6,
    2.0,
    train=0,
    estimated=False,
)
WORKLOADS = {"toy": tiny_toy, "planar": tiny_planar, "odenet": partial(odenet, batch=2, tolerance=1e-4)}
UNSCRIPTABLE = "torchode/autodiff_torchscript"
BOUNDS = {"toy": 1e-2, "planar": 1e-2, "odenet": 0.3}
"""Of gradient errors; the network's ReLUs leave an adjoint far from the truth."""

FLAT_ONLY = ("odenet", "torchdyn/interpolated_adjoint")


@pytest.fixture(scope="module")
def given():
    """A workload and its reference, made once."""
    made = {}

    def workload(name):
        if name not in made:
            torch.set_num_threads(1)
            made[name] = (tiny := WORKLOADS[name]()), tiny.reference()
        return made[name]

    return workload


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.key)
@pytest.mark.parametrize("name", WORKLOADS)
def test_all_ways_give_the_same_loss_and_gradient(name, way, given):
    workload, reference = given(name)
    if type(workload).__name__ not in way.kinds:
        pytest.skip(f"{way.key} has no row for {name}")
    if reason := way.missing():
        pytest.skip(reason)
    run = start(way, workload, workload.rtol, workload.atol, reference)
    if way.key == UNSCRIPTABLE or (name, way.key) == FLAT_ONLY:
        assert run.status.startswith("not possible: ")
        return
    assert run.status == "ok"
    assert float(run.outcome.loss) == pytest.approx(float(reference.loss), rel=1e-4)
    assert relative_error(run.outcome, reference) < BOUNDS[name]


@pytest.mark.parametrize("name", WORKLOADS)
def test_twice_the_batch_is_the_same_loss_of_twice_the_rows(name, given):
    workload, reference = given(name)
    if name == "toy":  # whose probe is drawn anew
        workload = replace(workload, estimated=False)
        reference = workload.reference()
    double = twice_the_batch(workload)
    rows = {"toy": "x", "planar": "x", "odenet": "images"}[name]
    assert len(getattr(double, rows)) == 2 * len(getattr(workload, rows))
    assert float(double.reference().loss) == pytest.approx(float(reference.loss), rel=1e-5)


@pytest.mark.parametrize("name", ["toy", "planar"])
def test_the_reference_is_that_of_torchdiffeq_in_float64(name, given):
    workload, reference = given(name)
    double = replace(workload, field=copy.deepcopy(workload.field).double(), x=workload.x.double())
    run = start(TORCHDIFFEQ[2], double, 1e-10, 1e-10, reference)
    assert relative_error(run.outcome, reference) < 1e-8


def test_planar_gradients_are_taken_back_exactly():
    workload = tiny_planar()
    theirs, (start_time, end_time) = workload.theirs()
    y, t = torch.randn(5, 2), torch.tensor(0.7)
    assert (start_time, end_time) == (2.0, 0.0)
    torch.testing.assert_close(theirs(t, y), -workload.field(2.0 - t, y))
    one, many = theirs(t, y), theirs(t.expand(5), y)
    torch.testing.assert_close(one, many)
    ours = torch.autograd.grad(workload.field(2.0 - t, y).square().sum(), list(workload.field.parameters()))
    other = torch.autograd.grad(one.square().sum(), list(theirs.parameters()))
    torch.testing.assert_close(theirs.restored(other), ours)


def test_time_at_equal_error_follows_a_power_law():
    runs = [(error, 0.01 * error**-0.2) for error in (1e-2, 1e-3, 1e-4, 1e-5)]
    seconds, how = cost_at(runs, 3e-4)
    assert how == "interpolated"
    assert seconds == pytest.approx(0.01 * 3e-4**-0.2)
    assert cost_at(runs, 1e-3) == (pytest.approx(0.01 * 1e-3**-0.2), "interpolated")
    assert cost_at(runs, 1e-6) == (None, "not reached")
    assert cost_at(runs, 0.5) == (runs[0][1], "at most")
    assert cost_at([], 0.5) == (None, "not reached")


def test_a_run_that_is_slower_and_less_exact_does_not_count():
    runs = [(1e-2, 1.0), (2e-2, 5.0), (1e-4, 4.0)]
    assert cost_at(runs, 1e-3)[0] == pytest.approx(2.0)
    assert cost_at([(float("nan"), 1.0), (1e-2, 2.0)], 1e-2) == (2.0, "at most")


def test_steps_take_turns():
    order = []

    def step(name):
        return lambda: order.append(name)

    runs = {name: Run("ok", step(name), warm=1e-3) for name in "ABC"} | {"none": Run("missing: x")}
    interleave(runs, 3)
    assert "".join(order) == "ABCABCABC"
    assert [len(run.seconds) for run in runs.values()] == [3, 3, 3, 0]


def _refuses(workload, rtol, atol):
    raise RuntimeError("no such operator\nand more")


def _other_loss(workload, rtol, atol):
    return lambda: Outcome(torch.tensor(99.0), (torch.zeros(1),))


def test_what_cannot_be_done_is_an_entry_with_its_reason(monkeypatch):
    workload = tiny_toy()
    plan = Plan("tiny", lambda: workload, 1, 3, sweep=(1e-3, 1e-4))
    ours = next(way for way in WAYS if way.peer == "neural-ode-ffjord-suite")
    ways = [
        TORCHDIFFEQ[0],
        ours,
        Way("absent", "any", _refuses, ("no_such_module",)),
        Way("refuses", "any", _refuses, ()),
        Way("differs", "any", _other_loss, ()),
    ]
    monkeypatch.setattr(measuring, "PLANS", {"tiny": plan})
    monkeypatch.setattr(measuring, "ways_of", lambda name: ways)
    entries = measuring.measure("tiny")
    known = [entry["known"] for entry in entries]
    assert [entry["status"] for entry in known] == [
        "ok",
        "ok",
        "missing: ModuleNotFoundError: No module named 'no_such_module'",
        "not possible: RuntimeError: no such operator",
        f"not possible: another loss, 99 instead of {float(workload.reference().loss):.6g}",
    ]
    assert [len(entry["seconds"]) for entry in entries] == [3, 3, 0, 0, 0]
    assert f"{known[0]['peer']}/{known[0]['way']}" == BASELINE
    assert known[0]["speedup"] == 1.0
    assert known[0]["nfe_backward"] > 0
    assert [point["tolerance"] for point in known[1]["sweep"]] == [1e-3, 1e-4, 1e-5]
    assert known[0]["batch_doubling"] > 0
    assert [("overhead_bound" in entry) for entry in known] == [True, False, False, False, False]
    assert known[1]["equal_error"] in ("interpolated", "at most", "not reached")


def test_a_way_too_slow_for_the_sweep_has_no_time_at_equal_error(monkeypatch):
    workload = tiny_toy()
    ways = [way for way in WAYS if way.key == BASELINE]
    monkeypatch.setattr(measuring, "PLANS", {"tiny": Plan("tiny", lambda: workload, 1, 2, sweep=(1e-3,))})
    monkeypatch.setattr(measuring, "ways_of", lambda name: ways)
    monkeypatch.setattr(measuring, "LONGEST_SWEPT", 0.0)
    known = measuring.measure("tiny")[0]["known"]
    assert known["equal_error"] == "not swept"
    assert "sweep" not in known


def test_gradients_are_compared_over_all_parameters():
    exact = Outcome(0.0, (torch.tensor([3.0]), torch.tensor([[4.0]])))
    assert relative_error(Outcome(0.0, (np.array([3.0]), np.array([4.5]))), exact) == pytest.approx(0.1)


def test_shares_of_a_native_step_add_up_and_name_the_kernel(given):
    workload, _ = given("toy")
    (way,) = [way for way in WAYS if (way.peer, way.name) == (ours.PEER, "checkpoint")]
    told = dict(shares(way.build(workload, workload.rtol, workload.atol)))
    assert sum(told.values()) == pytest.approx(1.0)
    assert 0 < told["native steps"] < 1
    assert "Python" in told


def test_a_tables_rows_are_drawn_by_seed():
    table = DATASETS["power"].load().train
    twice = [_sample("power", 6, 5, seed) for seed in (3, 3, 4)]
    assert torch.equal(twice[0], twice[1])
    assert not torch.equal(twice[0], twice[2])
    assert all((row == table).all(1).any() for row in twice[0])
