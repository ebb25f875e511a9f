"""`report --check` notices every published run whose files, settings or names are not as they were recorded."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from repro import experiment, runner
from repro.arrays import ARRAYS, save_arrays
from repro.checkpoint import save_tensors
from repro.experiment import Experiment, silent
from repro.report.audit import Findings, Problem, audit_runs
from repro.results import Row, results_root
from repro.runner import Request

PUBLISHED = Path(__file__).parents[2] / "results" / "published.csv"
NO_PROBLEMS = ([], [])


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    iterations: int = 10_000
    note: str | None = None


def measure(config, context):
    """Leave a curve, weights and arrays that depend on the seed."""
    torch.manual_seed(config.seed)
    weight = torch.randn(3)
    for step in range(3):
        yield Row("train_nll", 3.0 + step, "nats", step)
    save_tensors(context.artefacts / "model.safetensors", {"weight": weight}, {})
    save_arrays(context.artefacts / ARRAYS, {"weight": weight.numpy()})
    yield Row("test_nll", float(weight.sum()), "nats")


TOY = Experiment(artefact="Toy", cells={"cell": Config()}, tiers={"smoke": lambda config: config}, measure=measure)


@pytest.fixture
def folders():
    """Two published runs that differ in their seed."""
    common = {"name": "toy/table0", "experiment": TOY, "cell": "cell", "tier": "smoke", "publish": True}
    configs = (replace(Config(), seed=seed) for seed in (0, 1))
    requests = [Request(config=config, device=torch.device("cpu"), **common) for config in configs]
    return [runner.run(request, silent).folder for request in requests]


def edit(folder, change):
    """Edit run.json."""
    record = json.loads((folder / "run.json").read_text())
    change(record)
    (folder / "run.json").write_text(json.dumps(record, indent=2))


def audit():
    return audit_runs(results_root() / "runs")


def test_untouched_runs_have_no_problem(folders):
    assert audit() == NO_PROBLEMS
    assert not Findings([], *audit()).fatal


def exchange_weights(first, second):
    a, b = (folder / "model.safetensors" for folder in (first, second))
    c = a.with_name("c")
    a.rename(c), b.rename(a), c.rename(b)


def edit_curve(first, second):
    path = first / "rows.csv"
    text = path.read_text()
    assert "train_nll,3.0,nats,0" in text
    path.write_text(text.replace("train_nll,3.0,nats,0", "train_nll,9.0,nats,0"))


CHANGED = {
    "weights of two seeds exchanged": (exchange_weights, ["model.safetensors was changed after the run"] * 2),
    "a point of a curve edited": (edit_curve, ["rows.csv was changed after the run"]),
    "an array deleted": (lambda first, second: (first / ARRAYS).unlink(), ["arrays.npz is missing"]),
    "a file added": (
        lambda first, second: (first / "notes.txt").write_text(""),
        ["notes.txt is not listed in run.json"],
    ),
    "no hashes": (
        lambda first, second: edit(first, lambda record: record.pop("files")),
        ["run.json (schema 2) lists no hashes"],
    ),
    "no record": (lambda first, second: (first / "run.json").unlink(), ["run.json is missing or cannot be read"]),
    "an empty record": (
        lambda first, second: (first / "run.json").write_text(""),
        ["run.json is missing or cannot be read"],
    ),
}


@pytest.mark.parametrize(("change", "sentences"), CHANGED.values(), ids=CHANGED)
def test_a_changed_file_makes_a_run_unbound(folders, change, sentences):
    change(*folders)
    unbound, digests = audit()
    assert [each.problem for each in unbound] == sentences
    assert unbound[0].run == folders[0].relative_to(results_root() / "runs").as_posix()
    assert digests == []
    assert Findings([], unbound, digests).fatal


CONTRADICTIONS = {
    "a setting under the old digest": (lambda record: record["config"].update(iterations=20_000), "have the digest"),
    "a setting that was None": (lambda record: record["config"].update(note=""), "have the digest"),
    "a version": (lambda record: record.update(version=2), "have the digest"),
    "a digest": (lambda record: record.update(digest="deadbeef"), "not deadbeef"),
    "a seed": (lambda record: record.update(seed=5), "have the seed 0, not 5"),
    "the settings' seed": (lambda record: record["config"].update(seed=5), "have the seed 5, not 0"),
    "both seeds": (lambda record: record.update(seed=5, config=record["config"] | {"seed": 5}), "run.json is that of"),
    "a cell": (lambda record: record.update(cell="other"), "run.json is that of toy/table0/other-"),
    "an experiment": (lambda record: record.update(experiment="toy/other"), "run.json is that of toy/other/"),
    "a machine": (lambda record: record.update(machine="other"), "run.json is that of"),
    "no settings": (lambda record: record.pop("config"), "holds no settings"),
}


@pytest.mark.parametrize(("change", "sentence"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_an_edited_record_contradicts_its_digest_or_folder(folders, change, sentence):
    edit(folders[0], change)
    unbound, digests = audit()
    assert unbound == [], "no file but the record was touched"
    assert sentence in digests[0].problem
    assert {each.run for each in digests} == {folders[0].relative_to(results_root() / "runs").as_posix()}
    assert Findings([], unbound, digests).fatal


def test_what_is_none_or_a_new_optional_setting_changes_no_digest(folders):
    edit(folders[0], lambda record: record["config"].pop("note"))
    assert audit() == NO_PROBLEMS


def test_a_folder_renamed_to_another_seed_contradicts_its_record(folders):
    other = folders[0].with_name(folders[0].name.replace("seed0", "seed7"))
    folders[0].rename(other)
    (problem,) = audit()[1]
    assert problem == Problem(other.relative_to(results_root() / "runs").as_posix(), problem.problem)
    assert "run.json is that of" in problem.problem


def test_a_run_that_ended_on_another_machine_lies_there(folders):
    last = folders[0].with_name("elsewhere-seed0")
    folders[0].rename(last)
    edit(last, lambda record: record.update(resumed=[{"machine": "elsewhere"}]))
    assert audit() == NO_PROBLEMS


def test_what_a_killed_process_left_is_no_run(folders):
    shutil.copytree(folders[0], folders[0].with_name(f".{folders[0].name}.partial"))
    assert audit() == NO_PROBLEMS


@pytest.mark.slow
def test_the_command_prints_lines_or_json_and_fails(folders, call):
    numbers = PUBLISHED.read_text(encoding="utf-8").splitlines(keepends=True)
    (results_root() / "published.csv").write_text("".join(numbers[:4]), encoding="utf-8")  # all would only take time
    code, _, err = call("report")
    assert code == 0, err
    code, out, _ = call("report", "--check", "--json")
    assert (code, json.loads(out)) == (0, {"stale": [], "unbound": [], "digests": []})
    edit(folders[0], lambda record: record.update(seed=5))
    (folders[1] / ARRAYS).unlink()
    (results_root() / "tables" / "claims.md").unlink()
    code, out, err = call("report", "--check", "--json")
    found = json.loads(out)
    assert code == 1
    assert [path.rpartition("/")[2] for path in found["stale"]] == ["claims.md"]
    run = folders[1].relative_to(results_root() / "runs").as_posix()
    assert found["unbound"] == [{"run": run, "problem": "arrays.npz is missing"}]
    assert len(found["digests"]) == 2
    assert len(err.splitlines()) == 2
    code, out, _ = call("report", "--check")
    assert code == 1
    assert f"{run}: arrays.npz is missing" in out.splitlines()
    assert len(out.splitlines()) == 4
