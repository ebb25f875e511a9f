"""The commands that look ahead and back: `plan`, `show`, and `run --seeds`."""

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from repro import experiment, planning
from repro.experiment import Experiment
from repro.papers import EXPERIMENTS
from repro.provenance import machine_slug
from repro.results import Row, hours_of, results_root
from repro.runner import MissingWeights

MLP = ("neural_ode/table1_mnist", "mlp")
CPU = torch.device("cpu")
PUBLISHED = Path(__file__).parents[1] / "results" / "runs"


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Steps that take a known time by the clock below."""

    seconds: float = 0.01
    steps: int = 1000


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the steps of `measure` move."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(planning, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def made_of(clock, **settings):
    def measure(config, context):
        for step in range(config.steps):
            context.check()
            clock.now += config.seconds
            context.progress(step + 1, config.steps, {})
        yield Row("metric", 1.0, "units")

    return Experiment(
        artefact="Test",
        cells={"cell": Config(**settings)},
        tiers={"smoke": lambda c: c, "small": lambda c: c},
        measure=measure,
    )


def line_of(out, *words):
    return next(re.split(r"\s{2,}", line) for line in out.splitlines() if all(word in line for word in words))


# --- plan ------------------------------------------------------------------------------------------------------------


def probed(clock, lasting, **settings):
    return planning.first_steps("test", made_of(clock, **settings), "cell", "paper", CPU, lasting)


def test_a_probe_extrapolates_steps_of_known_length(clock):
    found = probed(clock, 0.2, seconds=0.01, steps=1000)
    assert found.total == 1000
    assert found.steps == 19  # 0.2 s from the end of the first on, less a warm one
    assert found.estimate().hours * 3600 == pytest.approx(10)


def test_a_probe_of_slow_steps_needs_two_and_a_short_run_ends(clock):
    slow = probed(clock, 0.01, seconds=0.1, steps=50)
    assert slow.steps == 1
    assert slow.estimate().hours * 3600 == pytest.approx(5)
    short = probed(clock, 5.0, seconds=0.01, steps=4)
    assert short.total == 0
    assert short.estimate().origin == "run here to its end"
    assert short.estimate().hours * 3600 == pytest.approx(0.04)


def test_a_run_is_known_from_its_record_on_this_kind_of_machine_first(call):
    call("run", *MLP)
    digest = EXPERIMENTS[MLP[0]].digest(EXPERIMENTS[MLP[0]].config("mlp", "smoke"))
    known = planning.records()
    ((machine, hours, memory),) = known[MLP[0], digest]
    assert machine == machine_slug(CPU)
    assert 0 <= hours < 0.1
    assert memory > 2**20
    elsewhere = {(MLP[0], digest): [("another-machine", 5.0, 1.0)]}
    assert planning.recorded(elsewhere, MLP[0], digest, CPU) == planning.Estimate(
        5.0, 1.0, "1 run on another-machine", here=False
    )
    both = {(MLP[0], digest): [("another-machine", 5.0, 1.0), (machine, 1.0, 2.0), (machine, 3.0, 1.0)]}
    assert planning.recorded(both, MLP[0], digest, CPU) == planning.Estimate(2.0, 2.0, "2 runs on this kind of machine")
    assert planning.recorded(known, MLP[0], "00000000", CPU) is None


def test_what_lay_still_between_sittings_is_not_counted():
    times = {"start": "2026-01-01T00:00:00+00:00", "end": "2026-01-02T00:00:00+00:00"}
    assert hours_of({**times, "resumed": []}, 7200.0) == 24
    assert hours_of({**times, "resumed": [{}]}, 7200.0) == 2
    assert math.isnan(hours_of({**times, "resumed": [{}]}, None))


def test_plan_sums_main_cells_and_lists_single_ones(call):
    call("run", *MLP)
    code, out, err = call("plan", "--tier", "smoke")
    assert code == 0
    assert line_of(out, "table1_mnist")[2] == "1 of 6"
    assert len(out.splitlines()) == 2 + len(EXPERIMENTS)
    assert "--measure" in err
    out = call("plan", "neural_ode/table1_mnist", "mlp*")[1]
    assert line_of(out, " mlp ", "smoke")[-1] == "1 run on this kind of machine"
    assert line_of(out, "mlp_public", "paper")[-1] == "-"


def test_plan_measures_what_was_not_run_and_keeps_it(call):
    code, out, err = call("plan", *MLP, "--tier", "paper", "--measure", "0.2")
    assert code == 0
    assert "timing neural_ode/table1_mnist mlp paper" in err
    found = line_of(out, "mlp")
    assert re.fullmatch(r"\d+ of 62,400 steps, timed here", found[-1])
    assert re.fullmatch(r"[\d.,]+ MiB", found[-2])
    assert call("plan", *MLP, "--tier", "paper") == (0, out, "")
    assert not list(results_root().glob("local/*"))


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"steps": 1}', b'{"more": 1}'])
def test_a_damaged_probe_counts_as_none(content, call):
    probe = planning.Probe(1, 2, 3.0, 4)
    place = ("neural_ode/table1_mnist", "mlp", "0" * 8, CPU)
    planning.keep(probe, *place)
    assert planning.kept(*place) == probe
    (path,) = planning.cache_root().rglob("*.json")
    path.write_bytes(content)
    assert planning.kept(*place) is None


def test_a_probe_does_not_train_what_a_cell_needs_first():
    with pytest.raises(MissingWeights, match="no finished run of ffjord/fig2_toy2d 8gaussians"):
        planning.first_steps("ffjord/section3_noise", EXPERIMENTS["ffjord/section3_noise"], "fixed", "small", CPU, 0.2)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nothing"], 2, "error: no experiment 'nothing'"),
        (["ffjord/*", "nothing"], 2, "error: no cell 'nothing'; there are: mixture_1d"),
        (["ffjord/*", "--measure", "0"], 2, "argument --measure: must be > 0; got 0"),
    ],
)
def test_plan_says_what_is_wrong(call, words, code, said):
    assert call("plan", *words)[0] == code
    assert said in call("plan", *words)[2]


# --- show ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_show_an_artefact_names_its_cells_and_claims(call, name):
    results_root().mkdir(parents=True)
    (results_root() / "published.csv").write_text(
        "experiment,cell,metric,method,value,spread,unit,better,source,note\n"
    )
    code, out, _ = call("show", name)
    assert code == 0
    assert set(EXPERIMENTS[name].cells) <= {line.split()[0] for line in out.splitlines() if line}
    for claim in EXPERIMENTS[name].claims:
        assert f"NOT ATTEMPTED: {claim.statement}" in out


def test_show_a_cell_gives_settings_of_each_tier_as_they_are(call):
    call("run", *MLP)
    code, out, _ = call("show", *MLP)
    assert code == 0
    assert line_of(out, "epochs") == ["epochs", "160", "10", "2"]
    assert line_of(out, "solver.max_nfe")[1:] == ["-", "same", "same"]
    assert line_of(out, "parameters")[1] == "238510"
    assert "smoke: 1 ok smoke (local)" in out
    out = call("show", "ffjord/fig2_toy2d", "8gaussians")[1]
    assert line_of(out, "released_sampling")[1] == "False"  # and no text that a truth value was made of
    assert "not run yet: python -m repro run ffjord/fig2_toy2d 8gaussians --tier small" in out


def test_show_a_run_gives_its_record(call):
    call("run", *MLP, "--learning-rate", "0.05")
    (folder,) = (path.parent for path in results_root().glob("local/*/*/*/*/run.json"))
    code, out, _ = call("show", folder)
    info = json.loads((folder / "run.json").read_text())
    assert code == 0
    assert line_of(out, "learning_rate")[1] == "0.05"
    assert info["command"] in out
    assert line_of(out, "validation_error", "2")[1] == "2"  # points of its curve
    assert "model.safetensors" in out


def test_every_published_run_can_be_shown(call):
    """Early records lack what later ones have."""
    folders = sorted(path.parent for path in PUBLISHED.glob("*/*/*/*/run.json"))
    assert folders
    for folder in folders:
        code, out, _ = call("show", folder)
        assert code == 0, folder
        assert "rows.csv" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "nothing is neither a run's folder nor an experiment; there are: neural_ode/table1_mnist"),
        ([MLP[0], "nothing"], "no cell 'nothing'; there are: mlp, resnet"),
        ([MLP[0], "resnt"], "no cell 'resnt'; did you mean 'resnet'? there are: mlp, resnet"),
    ],
)
def test_show_says_what_there_is(call, words, said):
    code, out, err = call("show", *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {said}")


# --- run --seeds -----------------------------------------------------------------------------------------------------


def test_seeds_are_counted_from_0(call, monkeypatch):
    commands = []

    def start(command, **settings):
        commands.append(command)
        return subprocess.Popen([sys.executable, "-Sc", ""], **settings)

    monkeypatch.setattr("repro.scheduling.subprocess", SimpleNamespace(Popen=start, PIPE=-1, TimeoutExpired=OSError))
    assert call("run", "neural_ode/table1*", "one*_block", "--seeds", "2")[0] == 0
    experiments = ("neural_ode/table1_mnist", "neural_ode/table1_cost")
    expected = [[name, "one_block", "--tier", "smoke", "--seed", str(seed)] for name in experiments for seed in (0, 1)]
    assert [command[4:10] for command in commands] == expected


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--seeds", "x"], ["--seeds", "2", "--seed", "1"]])
def test_seeds_that_make_no_sense_are_wrong_usage(call, words):
    assert call("run", *MLP, *words)[0] == 2
