"""Runs that are stopped within a solve: at any evaluation of the field, with real signals, and the same bits after."""

import json
import os
import signal
import time
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import nn

from repro import experiment, runner
from repro.checkpoint import save_tensors
from repro.experiment import Context, Experiment, silent
from repro.interruption import check_interruption, interruptible
from repro.nets.odenet import OdeBlock
from repro.ode import MaxNFEExceeded, Solver, solve
from repro.results import COST_METRICS, Row, read_rows
from repro.runner import Request
from repro.settings import MAX_EVALUATIONS
from repro.training import CHECKPOINT, Training, fit, seeded_streams


@pytest.fixture(autouse=True)
def one_provenance(monkeypatch):
    """Ask git once, not for each of a hundred runs."""
    monkeypatch.setattr(runner, "provenance", cache(runner.provenance))


CPU = torch.device("cpu")
EVERY = 3
STEPS = 7


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    solver: Solver = Solver("dopri5", rtol=1e-3, atol=1e-3)
    gradient: str = "adjoint"


class Field(nn.Module):
    """A field that counts its evaluations and does something at one of them."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.count, self.moment, self.act = 0, None, None

    def forward(self, t, y):
        self.count += 1
        if self.count == self.moment:
            self.act()
        return torch.tanh(self.layer(y)) * t


def measure_with(field_of):
    """An experiment that draws from two streams, keeps buffers, evaluates, selects and solves after its training."""

    def measure(config, context):
        torch.manual_seed(config.seed)
        field = field_of()
        model = nn.Sequential(nn.BatchNorm1d(2), OdeBlock(field, config.solver, config.gradient))
        optimizer = torch.optim.Adam(model.parameters(), 0.05)
        streams = seeded_streams(config.seed, "data", "evaluation")

        def update(step):
            x = torch.randn(4, 2, generator=streams["data"])
            optimizer.zero_grad()
            loss = (model(x) - x.flip(1)).square().mean()
            loss.backward()
            optimizer.step()
            return {"loss": loss.item()}

        def evaluate():
            with torch.no_grad():
                x = torch.randn(4, 2, generator=streams["evaluation"])
                return [Row("error", float((model(x) - x.flip(1)).square().mean()), "")]

        training = Training(model, optimizer, STEPS, update, lambda _: 0.05, evaluate, EVERY, "error", streams)
        yield from fit(training, context)
        save_tensors(context.artefacts / "model.safetensors", model.state_dict(), {})
        with torch.no_grad():
            yield Row("final", float(model(torch.ones(4, 2)).sum()), "")

    return measure


def request(measure, **settings):
    toy = Experiment(
        artefact="Toy, Table 0", cells={"cell": Config()}, tiers={"smoke": lambda config: config}, measure=measure
    )
    given = {"config": Config(), "tier": "smoke", **settings}
    return Request(name="toy/table0", experiment=toy, cell="cell", device=CPU, **given)


def outcome_of(moment=None, act=None, progress=silent, **settings):
    """Run; at an evaluation of the field, counted over the whole sitting, something happens."""
    fields = []

    def field_of():
        fields.append(Field())
        fields[0].moment, fields[0].act = moment, act
        return fields[0]

    outcome = runner.run(request(measure_with(field_of), **settings), progress)
    return outcome, fields[0].count


def ask_to_stop():
    os.kill(os.getpid(), signal.SIGTERM)


def content(folder):
    rows = [row for row in read_rows(folder / "rows.csv") if row.metric not in COST_METRICS]
    return rows, (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("gradient", ["adjoint", "backprop", "checkpoint"])
def test_stopped_at_any_evaluation_of_the_field_it_ends_with_the_same_bits(gradient, tmp_path, monkeypatch):
    """In a forward pass, in a backward one, in an evaluation of the training and in what follows it."""
    config = Config(gradient=gradient)
    whole, total = outcome_of(config=config)
    expected = content(whole.folder)
    for index, moment in enumerate(range(1, total, total // 20)):
        monkeypatch.setenv("REPRO_RESULTS", str(tmp_path / f"results{index}"))
        stopped, count = outcome_of(moment, ask_to_stop, config=config)
        assert (stopped.status, count) == ("interrupted", moment), "not one evaluation more"
        done, _ = outcome_of(config=config)
        assert content(done.folder) == expected, moment
        assert len(json.loads((done.folder / "run.json").read_text())["resumed"]) == 1
    assert index >= 19


def test_stopped_again_and_again_it_ends_with_the_same_bits(tmp_path, monkeypatch):
    whole, total = outcome_of()
    monkeypatch.setenv("REPRO_RESULTS", str(tmp_path / "results again"))
    sittings = [outcome_of(total // 5, ask_to_stop)[0]]
    while sittings[-1].status == "interrupted" and len(sittings) < 30:
        sittings.append(outcome_of(total // 5, ask_to_stop)[0])
    assert sittings[-1].status == "done"
    assert len(sittings) > 4
    assert content(sittings[-1].folder) == content(whole.folder)


def test_nothing_is_saved_of_an_update_that_has_changed_parameters_before_it_is_stopped(tmp_path):
    """As one of two optimiser steps would: the checkpoint before it stays."""
    context = Context(CPU, tmp_path)
    model = nn.Linear(1, 1)

    def update(step):
        optimizer.zero_grad()
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        if step == 4:
            context.stop = True
            context.check()
        return {"loss": 1.0}

    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    training = Training(model, optimizer, 9, update, lambda _: 0.1, list, 100)
    context.checkpoint_seconds = 0.0
    with pytest.raises(experiment.Interrupted):
        list(fit(training, context))
    before = (tmp_path / CHECKPOINT).read_bytes()
    assert b'"step\\": 4' in before


class Stiff(nn.Module):
    """A field for which an explicit method needs some 10^8 evaluations."""

    def forward(self, t, y):
        return -1e8 * (y - torch.cos(t))


def stiff(config, context):
    yield Row("y", float(OdeBlock(Stiff(), config.solver, config.gradient)(torch.ones(2, 3)).sum()), "")


@pytest.mark.parametrize("engine", ["torchdiffeq", "compiled", "scipy"])
def test_a_solve_without_end_stops_at_the_deadline(engine):
    method = "adams" if engine == "scipy" else "dopri5"
    config = Config(solver=Solver(method, rtol=1e-12, atol=1e-12, engine=engine))
    field = replace(config, solver=config.solver)
    start = time.monotonic()
    outcome = runner.run(request(fast if engine == "scipy" else stiff, config=field, max_minutes=0.005), silent)
    assert (outcome.status, outcome.detail.split(";")[0]) == ("paused", "--max-minutes 0.005 reached")
    assert time.monotonic() - start < 5


def fast(config, context):
    """Oscillate fast, which an implicit method follows in small steps too."""

    def field(t, y):
        return 1e7 * torch.stack((y[1], -y[0]))

    solution = solve(field, torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double(), config.solver)
    yield Row("y", float(solution.y[-1].sum()), "")


def test_a_pass_of_a_run_has_a_last_evaluation_and_the_run_is_recorded_as_out_of_budget(monkeypatch):
    monkeypatch.setattr(experiment, "MAX_EVALUATIONS", 2_000)
    outcome = runner.run(request(stiff), silent)
    assert outcome.status == "budget"
    assert "reached the 2,000 evaluations that a run allows one pass" in outcome.detail
    assert (outcome.folder / "diagnosis.json").exists()


def test_outside_of_a_run_there_is_no_last_evaluation():
    assert MAX_EVALUATIONS == 200_000
    y0, t = torch.ones(1, 1), torch.tensor([0.0, 1.0])

    def field(t, y):
        return -y

    class Spent:
        nfe = 10**9

    check_interruption(Spent())
    with interruptible(lambda meter: pytest.fail("asked")), pytest.raises(pytest.fail.Exception):
        solve(field, y0, t)
    with interruptible(lambda meter: None):
        assert solve(field, y0, t).stats.nfe_forward > 0
    with pytest.raises(MaxNFEExceeded):
        solve(field, y0, t, Solver(max_nfe=3))
