"""The training loop: stopped anywhere and resumed, it ends with the very same bits; the best weights are kept."""

import math
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro import training as training_module
from repro.checkpoint import load_tensors, save_tensors
from repro.experiment import BudgetReached, Context, Interrupted
from repro.results import COST_METRICS, Row
from repro.training import CHECKPOINT, Training, seeded_streams

STEPS = 11
OPTIMIZERS = {
    "sgd with momentum": lambda model: torch.optim.SGD(model.parameters(), lr=9.0, momentum=0.9),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=9.0),
}


def fit(*words):
    """All rows of a training."""
    return list(training_module.fit(*words))


def small_training(make_optimizer, seed=0, stop=None):
    """Noisy regression: `update` draws data, dropout and a probe from three streams; batch norm keeps buffers.

    `stop`: called before every update with its number.
    """
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))
    optimizer = make_optimizer(model)
    streams = seeded_streams(seed, "data", "noise", "evaluation")

    def update(step):
        if stop is not None:
            stop(step)
        x = torch.randn(16, 3, generator=streams["data"])
        keep = (torch.rand(16, 1, generator=streams["noise"]) > 0.2).float()
        optimizer.zero_grad()
        loss = F.mse_loss(model(x) * keep, x.sum(1, keepdim=True))
        loss.backward()
        optimizer.step()
        return {"loss": loss.item(), "draws": float(keep.sum())}

    def evaluate():
        x = torch.randn(64, 3, generator=streams["evaluation"])
        with torch.no_grad():
            return [Row("error", float(F.mse_loss(model(x), x.sum(1, keepdim=True))), "")]

    def learning_rate(step):
        return 0.05 / (1 + step)

    return Training(
        model, optimizer, STEPS, update, learning_rate, evaluate, 3, "error", streams, {"loss": "nats", "draws": "rows"}
    )


def context(folder, **settings):
    folder.mkdir(exist_ok=True)
    return Context(torch.device("cpu"), folder, **settings)


def numbers(rows):
    return [row for row in rows if row.metric not in COST_METRICS]


def assert_same_end(one, other):
    for a, b in ((one.model.state_dict(), other.model.state_dict()), (one.streams, other.streams)):
        assert a.keys() == b.keys()
    assert all(torch.equal(one.model.state_dict()[k], v) for k, v in other.model.state_dict().items())
    assert all(torch.equal(one.streams[k].get_state(), s.get_state()) for k, s in other.streams.items())


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("stop_step", range(STEPS))
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path, make_optimizer, stop_step):
    whole = small_training(make_optimizer)
    expected = fit(whole, context(tmp_path / "whole"))

    here = context(tmp_path / "stopped")

    def ask(step):
        here.stop = step == stop_step

    interrupted = small_training(make_optimizer, stop=ask)
    if stop_step == STEPS - 1:  # asked during the last update: nothing is left to stop
        assert numbers(fit(interrupted, here)) == numbers(expected)
    else:
        with pytest.raises(Interrupted):
            fit(interrupted, here)
        assert load_tensors(here.folder / CHECKPOINT)[1]["step"] == stop_step + 1
    # another initialisation and other streams: all that counts must come from the checkpoint
    resumed = small_training(make_optimizer, seed=99)
    assert numbers(fit(resumed, context(tmp_path / "stopped"))) == numbers(expected)
    assert_same_end(resumed, whole)


@pytest.mark.parametrize("make_optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_stopped_before_every_single_step_it_ends_the_same(tmp_path, make_optimizer):
    whole = small_training(make_optimizer)
    expected = fit(whole, context(tmp_path / "whole"))
    for sitting in range(STEPS):
        here = context(tmp_path / "stopped")
        stopped = small_training(make_optimizer, seed=sitting, stop=lambda step, here=here: setattr(here, "stop", True))
        if sitting < STEPS - 1:
            with pytest.raises(Interrupted):
                fit(stopped, here)
    assert numbers(fit(stopped, here)) == numbers(expected)
    assert_same_end(stopped, whole)


@pytest.mark.parametrize("kill_step", [0, 1, 4, 10])
def test_an_exception_in_the_middle_costs_only_what_came_after_the_checkpoint(tmp_path, kill_step):
    make_optimizer = OPTIMIZERS["adam"]
    whole = small_training(make_optimizer)
    expected = fit(whole, context(tmp_path / "whole"))

    def die(step):
        if step == kill_step:
            raise MemoryError

    with pytest.raises(MemoryError):
        fit(small_training(make_optimizer, stop=die), context(tmp_path / "dead", checkpoint_seconds=0.0))
    seen = []
    resumed = small_training(make_optimizer, stop=seen.append)
    assert numbers(fit(resumed, context(tmp_path / "dead"))) == numbers(expected)
    assert seen == list(range(kill_step, STEPS))
    assert_same_end(resumed, whole)


def test_a_finished_training_is_not_trained_again(tmp_path):
    make_optimizer = OPTIMIZERS["adam"]
    first = small_training(make_optimizer)
    expected = fit(first, context(tmp_path))
    seen = []
    again = small_training(make_optimizer, seed=5, stop=seen.append)
    assert numbers(fit(again, context(tmp_path))) == numbers(expected)
    assert seen == []
    assert_same_end(again, first)


def test_no_checkpoint_between_two_that_are_due(tmp_path):
    here = context(tmp_path, checkpoint_seconds=3600.0)
    seen = []
    fit(small_training(OPTIMIZERS["adam"], stop=lambda _: seen.append((tmp_path / CHECKPOINT).exists())), here)
    assert seen == [False] * STEPS


def test_budget_saves_first(tmp_path):
    here = context(tmp_path, deadline=time.monotonic() - 1.0)
    with pytest.raises(BudgetReached):
        fit(small_training(OPTIMIZERS["adam"]), here)
    assert load_tensors(tmp_path / CHECKPOINT)[1]["step"] == 0


def test_a_signal_counts_before_the_budget(tmp_path):
    with pytest.raises(Interrupted):
        context(tmp_path, deadline=time.monotonic() - 1.0, stop=True).check()


# --- selection, learning rate, rows ----------------------------------------------------------------------------------


def scripted(errors, select="error"):
    """A model with one weight that counts the updates, and an evaluation that says what it is told."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    rates = []

    def update(step):
        model.weight.grad = torch.full((1, 1), -1.0)
        rates.append((step, optimizer.param_groups[0]["lr"]))
        optimizer.param_groups[0]["lr"] = 1.0
        optimizer.step()
        return {"nfe": float(step)}

    remaining = iter(errors)

    def evaluate():
        return [Row("other", -1.0, ""), Row("error", next(remaining), "%")]

    training = Training(
        model, optimizer, 2 * len(errors), update, lambda step: 100.0 + step, evaluate, 2, select, {}, {"nfe": "calls"}
    )
    return training, rates


@pytest.mark.parametrize(
    ("errors", "selected"),
    [
        ([3.0, 1.0, 2.0], 4),
        ([1.0, 1.0, 1.0], 2),  # the first of equals
        ([3.0, 2.0, 1.0], 6),
        ([math.nan, 5.0, math.nan], 4),
    ],
)
def test_the_smallest_metric_selects_the_weights(tmp_path, errors, selected):
    training, _ = scripted(errors)
    rows = fit(training, context(tmp_path))
    assert training.model.weight.item() == selected
    assert Row("selected_step", selected, "steps") in rows
    assert [row.step for row in rows if row.metric == "error"] == [2, 4, 6]


def test_without_selection_the_last_weights_stay(tmp_path):
    training, _ = scripted([1.0, 2.0, 3.0], select=None)
    rows = fit(training, context(tmp_path))
    assert training.model.weight.item() == 6
    assert "selected_step" not in {row.metric for row in rows}


def test_a_metric_that_never_is_a_number_leaves_the_last_weights(tmp_path):
    training, _ = scripted([math.nan, math.inf])
    rows = fit(training, context(tmp_path))
    assert training.model.weight.item() == 4
    assert "selected_step" not in {row.metric for row in rows}


def test_every_step_gets_its_own_learning_rate_also_after_resuming(tmp_path):
    training, rates = scripted([1.0, 2.0, 3.0])
    here = context(tmp_path)
    here.progress = lambda done, total, values: setattr(here, "stop", done == 3)
    with pytest.raises(Interrupted):
        fit(training, here)
    resumed, later = scripted([2.0, 3.0])
    resumed.steps = 6
    fit(resumed, context(tmp_path))
    assert [*rates, *later] == [(step, 100.0 + step) for step in range(6)]


def test_values_of_updates_become_means_since_the_last_evaluation(tmp_path):
    training, _ = scripted([1.0, 1.0, 1.0])
    rows = fit(training, context(tmp_path))
    assert [row for row in rows if row.metric == "nfe"] == [
        Row("nfe", mean, "calls", step) for mean, step in ((0.5, 2), (2.5, 4), (4.5, 6))
    ]
    assert Row("steps", 6, "steps") in rows


def times(rows):
    return {name: [(row.step, row.value) for row in rows if row.metric == name] for name in ("update_time", "elapsed")}


@pytest.mark.parametrize("sittings", [[], [3], [1, 2, 5]])
def test_the_curve_has_its_clock_which_rests_between_sittings(tmp_path, monkeypatch, sittings):
    """An update takes as many seconds as its number (from 1), an evaluation 100."""
    now = [0.0]
    monkeypatch.setattr(training_module.time, "monotonic", lambda: now[0])
    for last in (*sittings, None):
        training, _ = scripted([1.0] * 3)
        training.steps = 6
        update, evaluate = training.update, training.evaluate

        def slow_update(step, update=update):
            now[0] += step + 1
            return update(step)

        def slow_evaluate(evaluate=evaluate):
            now[0] += 100
            return evaluate()

        training.update, training.evaluate = slow_update, slow_evaluate
        here = context(tmp_path)
        here.progress = lambda done, total, values, here=here, last=last: setattr(here, "stop", done == last)
        now[0] += 1e6
        if last is None:
            rows = fit(training, here)
        else:
            with pytest.raises(Interrupted):
                fit(training, here)
    expected = {"update_time": [(2, 1.5), (4, 3.5), (6, 5.5)], "elapsed": [(2, 103), (4, 210), (6, 321)]}
    assert {name: [(step, pytest.approx(v)) for step, v in points] for name, points in expected.items()} == times(rows)
    assert next(row.value for row in rows if row.metric == "wall_time") == pytest.approx(321)


def test_an_older_checkpoint_without_a_clock_makes_up_no_time(tmp_path, monkeypatch):
    stopped, _ = scripted([1.0, 1.0, 1.0])
    here = context(tmp_path)
    here.progress = lambda done, total, values: setattr(here, "stop", done == 3)
    with pytest.raises(Interrupted):
        fit(stopped, here)
    tensors, values = load_tensors(tmp_path / CHECKPOINT)
    values["rows"] = [row for row in values["rows"] if row[0] not in ("elapsed", "update_time")]
    save_tensors(tmp_path / CHECKPOINT, tensors, values)
    resumed, _ = scripted([1.0, 1.0])
    resumed.steps = 6
    found = times(fit(resumed, context(tmp_path)))
    assert [step for step, _ in found["update_time"]] == [6]
    assert [step for step, _ in found["elapsed"]] == [4, 6]


def test_the_last_step_is_evaluated_even_if_none_is_due(tmp_path):
    training, _ = scripted([1.0, 1.0, 1.0])
    training.steps = 5
    rows = fit(training, context(tmp_path))
    assert [row.step for row in rows if row.metric == "error"] == [2, 4, 5]


def test_progress_sees_every_step(tmp_path):
    training, _ = scripted([1.0, 1.0])
    seen = []
    fit(training, context(tmp_path, progress=lambda done, total, values: seen.append((done, total, dict(values)))))
    assert seen == [(1, 4, {"nfe": 0.0}), (2, 4, {"nfe": 0.5}), (3, 4, {"nfe": 2.0}), (4, 4, {"nfe": 2.5})]


# --- streams ---------------------------------------------------------------------------------------------------------


def test_streams_depend_on_seed_and_name_only():
    def draws(seed, *names):
        return {name: torch.rand(4, generator=s).tolist() for name, s in seeded_streams(seed, *names).items()}

    one = draws(0, "data", "noise")
    torch.rand(7)  # the global stream is another one
    assert draws(0, "noise", "data", "more")["data"] == one["data"]
    everything = [tuple(v) for seed in range(20) for v in draws(seed, "data", "noise", "order of epoch 1").values()]
    assert len(set(everything)) == len(everything)


def test_rows_come_as_they_are_measured_so_that_a_failure_leaves_the_curve(tmp_path):
    def fail(step):
        if step == STEPS - 1:
            raise RuntimeError("diverged")

    rows = []
    with pytest.raises(RuntimeError, match="diverged"):
        rows.extend(training_module.fit(small_training(OPTIMIZERS["adam"], stop=fail), context(tmp_path)))
    expected = fit(small_training(OPTIMIZERS["adam"]), context(tmp_path / "whole"))
    assert rows
    assert numbers(rows) == numbers(expected)[: len(numbers(rows))]
