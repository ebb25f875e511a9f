"""Cells of the benchmarks, computed here: the tasks are what they are called, and pitfalls of measuring are avoided."""

from functools import partial

import pytest
import torch

from benchmarks import bench_divergence, bench_gradients, bench_memory, tasks
from repro.measuring.fresh import fresh
from repro.measuring.meters import counted, relative_error
from repro.ode import Solver

TIGHT = Solver(rtol=1e-10, atol=1e-10)


def test_the_linear_systems_closed_form_is_what_the_solver_approaches():
    step, exact = tasks.linear(TIGHT, "checkpoint"), tasks.linear_closed_form()
    assert float(step.take()) == pytest.approx(float(exact.take()), rel=1e-8)
    assert relative_error(step.gradient(), exact.gradient()) < 1e-7


@pytest.mark.parametrize("way", bench_gradients.WAYS)
def test_every_way_approaches_the_exact_gradient(way):
    exact = tasks.linear_closed_form()
    exact.take()
    errors = []
    for tolerance in (1e-4, 1e-7):
        step = bench_gradients.maker("linear system", way, tolerance)()
        step.take()
        errors.append(relative_error(step.gradient(), exact.gradient()))
    assert errors[1] < 1e-5
    assert errors[1] < errors[0] / 50


def test_overhead_is_found_by_the_tasks_own_batch_and_a_cell_without_a_step_has_none(monkeypatch):
    rows = []

    def told(once, twice, device):
        rows.extend(len(sized.take.__self__.leaves[0]) for sized in (once, twice()))  # the initial states
        return {"overhead_bound": True}

    monkeypatch.setattr(bench_gradients, "doubling", told)
    step = bench_gradients.maker("linear system", "adjoint", 1e-2)()
    assert bench_gradients.overhead("linear system", "adjoint", step) == {"overhead_bound": True}
    assert rows == [16, 32]
    assert bench_gradients.overhead("linear system", "adjoint", None) == {}


def test_memory_cells_have_both_meters_and_the_counts():
    found = fresh(partial(bench_memory._measured, partial(tasks.flow, tasks.fixed(2), "adjoint", batch=16)), threads=1)
    assert found["status"] == "ok"
    assert (found["nfe_forward"], found["nfe_backward"]) == (8, 8)
    assert found["peak_bytes"] > 0
    assert found["saved_bytes"] > 0
    assert found["seconds"] > 0
    assert found["peak_bytes"] == max(found["forward_peak_bytes"], found["backward_peak_bytes"])
    assert found["peak_bytes"] >= max(found["held_bytes"], found["left_bytes"])


def test_the_adjoint_keeps_as_much_whatever_the_depth_and_backprop_in_proportion():
    kept = {
        gradient: [counted(tasks.flow(tasks.fixed(steps), gradient, batch=8))["saved_bytes"] for steps in (2, 4, 6)]
        for gradient in ("adjoint", "backprop")
    }
    assert len(set(kept["adjoint"])) == 1
    assert kept["backprop"][2] - kept["backprop"][1] == kept["backprop"][1] - kept["backprop"][0] > 0


def test_a_memory_cell_that_cannot_be_had_is_a_status():
    huge = partial(tasks.trajectory, tasks.fixed(2), "backprop", batch=2**31, dim=64)
    assert fresh(partial(bench_memory._measured, huge), threads=1)["status"] == "out of memory"


def test_output_times_cost_the_adjoint_a_start_each():
    found = {n: counted(tasks.trajectory(Solver(rtol=1e-3, atol=1e-3), "adjoint", batch=4, times=n)) for n in (2, 5)}
    for intervals, known in ((1, found[2]), (4, found[5])):
        steps = known["n_accepted_backward"] + known["n_rejected_backward"]
        assert known["nfe_backward"] == 2 * intervals + 6 * steps


def test_the_networks_differ_only_between_stem_and_head():
    resnet, odenet = tasks.classifier(blocks=1, batch=2), tasks.classifier(tasks.fixed(2), "adjoint", batch=2)
    assert resnet.stats() is None
    resnet.take()
    odenet.take()
    assert odenet.stats().nfe_forward == 8
    assert len(resnet.leaves) != len(odenet.leaves)


def test_all_ways_to_a_trace_agree_where_they_are_exact(monkeypatch):
    monkeypatch.setattr(bench_divergence, "BATCH", 3)
    losses = {way: bench_divergence.trace_step(way, 4).take().item() for way in ("brute force", "exact", "closed form")}
    assert losses["brute force"] == pytest.approx(losses["exact"], rel=1e-5)
    assert losses["closed form"] == pytest.approx(losses["exact"], rel=1e-5)


def test_estimates_of_a_trace_are_unbiased_and_better_with_more_products(monkeypatch):
    monkeypatch.setattr(bench_divergence, "NOISY_DIMENSION", 24)
    for way in bench_divergence.PROBES:
        few, many = (bench_divergence.noise_of(way, products, "gaussian") for products in (6, 24))
        assert abs(few["bias"]) < 5 * few["deviation"] / bench_divergence.DRAWS**0.5
        assert many["deviation"] < few["deviation"]
    # 24 products are 8 columns of Hutch++'s sketch and 12 of XTrace's: neither spans the 24 dimensions


def test_a_dimension_has_figures_for_every_way_and_pass(monkeypatch):
    monkeypatch.setattr(bench_divergence, "ROUNDS", 1)
    monkeypatch.setattr(bench_divergence, "SHORTEST", 0.0)
    found = bench_divergence.measure(2)
    assert set(found) == {(way, part) for way in bench_divergence.WAYS for part in bench_divergence.PASSES}
    assert {known["status"] for known in found.values()} == {"ok"}
    assert all(len(known["seconds"]) == 1 for known in found.values())
    assert found["exact", "forward"]["flops"] > 0
    assert found["brute force", "forward"]["flops"] is None
    assert torch.is_grad_enabled()
