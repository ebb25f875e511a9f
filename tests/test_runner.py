"""The runner: where a run goes, when it is skipped, how it fails, and how it is carried to another machine."""

import hashlib
import json
import os
import shutil
import signal
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from repro import experiment, runner
from repro.checkpoint import save_tensors
from repro.experiment import Experiment, silent
from repro.guards import Busy
from repro.nets.odenet import OdeBlock
from repro.ode import Solver
from repro.results import COST_METRICS, Row, load, read_rows, results_root
from repro.runner import MissingWeights, Request
from repro.training import CHECKPOINT, Training, fit

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    solver: Solver = Solver("dopri5", rtol=1e-3, atol=1e-3)
    steps: int = 6
    rate: float = 0.1
    note: str | None = None


def measure(config, context):
    """Fit one number; leaves weights."""
    torch.manual_seed(config.seed)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.rate, momentum=0.9)

    def update(step):
        optimizer.zero_grad()
        loss = (model(torch.ones(1, 1)) - step).square().sum()
        loss.backward()
        optimizer.step()
        return {"loss": loss.item()}

    def evaluate():
        return [Row("weight", model.weight.item(), "")]

    yield Row("parameters", 2, "parameters")
    yield from fit(Training(model, optimizer, config.steps, update, lambda _: config.rate, evaluate, 2), context)
    save_tensors(context.artefacts / "model.safetensors", model.state_dict(), {})
    yield Row("final", model.weight.item(), "")


def toy(measure=measure, **settings):
    return Experiment(
        artefact="Toy, Table 0",
        cells={"cell": Config()},
        tiers={"smoke": lambda config: config, "small": lambda config: replace(config, steps=12)},
        measure=measure,
        **settings,
    )


def request(measure=measure, config=Config(), **settings):
    settings = {"tier": "smoke", **settings}
    return Request(name="toy/table0", experiment=toy(measure), cell="cell", config=config, device=CPU, **settings)


def run(request, progress=silent):
    return runner.run(request, progress)


def stopping_at(step):
    """A progress that sends this process a real SIGINT."""
    return lambda done, total, values: os.kill(os.getpid(), signal.SIGINT) if done == step else None


def info(outcome):
    return json.loads((outcome.folder / "run.json").read_text())


def numbers(folder):
    return [row for row in read_rows(folder / "rows.csv") if row.metric not in COST_METRICS]


# --- digest ----------------------------------------------------------------------------------------------------------


def test_the_digest_is_that_of_the_settings_without_seed_and_none():
    digest = toy().digest(Config())
    assert len(digest) == 8
    assert set(digest) <= set("0123456789abcdef")
    assert toy().digest(Config(seed=7)) == digest
    assert toy().digest(Config(solver=Solver("dopri5", rtol=1e-3, atol=1e-3, max_nfe=None))) == digest

    @dataclass(frozen=True, kw_only=True)
    class Later(Config):
        another: int | None = None

    assert toy().digest(Later()) == digest, "a new optional setting must not orphan old runs"


def test_the_digest_changes_with_every_setting_and_with_the_version():
    others = [
        Config(steps=7),
        Config(rate=0.1 + 1e-12),
        Config(note=""),
        Config(solver=Solver("dopri8", rtol=1e-3, atol=1e-3)),
        Config(solver=Solver("dopri5", rtol=1e-4, atol=1e-3)),
        Config(solver=Solver("dopri5", rtol=1e-3, atol=1e-3, max_nfe=100)),
    ]
    digests = [toy().digest(config) for config in (Config(), *others)]
    digests.append(toy(version=2).digest(Config()))
    assert len(set(digests)) == len(digests)


def test_the_digest_never_changes():
    """Written down, since published folders are named after it."""
    assert toy().digest(Config()) == "14eb0aa6"


def test_tiers_cut_down_and_paper_is_the_identity():
    assert toy().config("cell", "paper") == Config()
    assert toy().config("cell", "small") == Config(steps=12)
    with pytest.raises(KeyError):
        toy().config("other", "smoke")


# --- destination -----------------------------------------------------------------------------------------------------


def test_a_run_is_a_folder_with_rows_weights_and_provenance(tmp_path):
    outcome = run(request())
    assert outcome.status == "done"
    folder = outcome.folder
    assert folder.parent.parent == tmp_path / "results" / "local" / "toy" / "table0"
    assert {path.name for path in folder.iterdir()} == {"rows.csv", "run.json", "model.safetensors"}
    found = info(outcome)
    assert folder.parent.name == f"cell-{found['digest']}"
    assert folder.name == f"{found['machine']}-seed0"
    assert (found["experiment"], found["cell"], found["tier"], found["status"]) == ("toy/table0", "cell", "smoke", "ok")
    assert found["config"]["solver"]["rtol"] == 1e-3
    metrics = [row.metric for row in read_rows(folder / "rows.csv")]
    assert metrics[0] == "parameters"
    assert {"final", "wall_time", "peak_memory"} <= set(metrics)
    assert not list(tmp_path.rglob(CHECKPOINT)), "nothing is left in the cache"


def test_a_finished_run_is_skipped_unless_forced():
    first = run(request())
    before = (first.folder / "run.json").read_bytes()
    again = run(request(lambda config, context: pytest.fail("must not run")))
    assert (again.status, again.folder) == ("skipped", first.folder)
    assert (first.folder / "run.json").read_bytes() == before

    def other(config, context):
        yield Row("other", 1.0, "")

    forced = run(request(other, force=True))
    assert (forced.status, forced.folder) == ("done", first.folder)
    assert [row.metric for row in read_rows(first.folder / "rows.csv")] == ["other", "peak_memory"]
    assert [path.name for path in first.folder.parent.iterdir()] == [first.folder.name], "no old folder stays behind"


def test_another_seed_setting_or_tier_is_another_run():
    folders = {run(request(config=config)).folder for config in (Config(), Config(seed=1), Config(steps=4))}
    assert len(folders) == 3
    assert load(results_root() / "local")["run"].nunique() == 3


def test_published_and_local_runs_do_not_skip_one_another():
    published = run(request(publish=True))
    local = run(request())
    assert (published.status, local.status) == ("done", "done")
    assert published.folder.relative_to(results_root() / "runs") == local.folder.relative_to(results_root() / "local")
    assert numbers(published.folder) == numbers(local.folder)
    assert run(request(publish=True)).status == "skipped"
    shutil.rmtree(published.folder)
    assert run(request(publish=True)).status == "done", "a local run causes no skip of a published one either"


def test_a_failed_measurement_leaves_nothing_in_results(tmp_path):
    def broken(config, context):
        yield Row("one", 1.0, "")
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(request(broken))
    assert not list((tmp_path / "results").rglob("*"))
    assert run(request()).status == "done"


def test_leftovers_of_a_process_killed_while_moving_are_cleared(tmp_path):
    wanted = request()
    for name in (f".{wanted.destination.name}.partial", f".{wanted.destination.name}.old"):
        folder = wanted.destination.with_name(name)
        folder.mkdir(parents=True)
        (folder / "junk").write_text("")
    outcome = run(wanted)
    assert [path.name for path in outcome.folder.parent.iterdir()] == [outcome.folder.name]
    assert not (outcome.folder / "junk").exists()


# --- failures are runs -----------------------------------------------------------------------------------------------


class NotANumber(nn.Module):
    def __init__(self, after):
        super().__init__()
        self.rate = nn.Parameter(torch.ones(()))
        self.after = after

    def forward(self, t, y):
        return self.rate * y if t < self.after else y * float("nan")


def solving(field):
    def measure(config, context):
        yield Row("before", 1.0, "")
        block = OdeBlock(field, config.solver, "adjoint")
        yield Row("y", block(torch.ones(2, 3)).sum().item(), "")

    return measure


@pytest.mark.parametrize("after", [-1.0, 0.5])
def test_a_field_that_returns_nan_is_a_diverged_run(after):
    outcome = run(request(solving(NotANumber(after))))
    assert outcome.status == "diverged"
    found = info(outcome)
    assert found["status"] == "diverged"
    assert found["stop_reason"] == outcome.detail != ""
    assert [row.metric for row in read_rows(outcome.folder / "rows.csv")] == ["before", "peak_memory"]
    diagnosis = json.loads((outcome.folder / "diagnosis.json").read_text())
    assert diagnosis["error"] == outcome.detail
    for step in diagnosis["last_steps"]:
        assert step.keys() == {"t", "dt", "accepted"}
    assert load(results_root() / "local")["status"].unique().tolist() == ["diverged"]
    again = run(request(solving(NotANumber(after))))
    assert (again.status, again.detail) == ("diverged", "finished before with status diverged; --force runs it again")


def test_the_diagnosis_holds_the_steps_before_the_failure():
    outcome = run(request(solving(NotANumber(0.5))))
    steps = json.loads((outcome.folder / "diagnosis.json").read_text())["last_steps"]
    assert steps
    assert steps[0]["t"] == 0.0
    assert all(step["t"] <= 0.5 for step in steps)


def test_a_solve_that_exceeds_its_budget_is_a_budget_run():
    config = Config(solver=Solver("dopri5", rtol=1e-6, atol=1e-6, max_nfe=9))
    outcome = run(request(solving(NotANumber(2.0)), config=config))
    assert outcome.status == info(outcome)["status"] == "budget"
    assert "max_nfe = 9" in info(outcome)["stop_reason"]
    assert (outcome.folder / "diagnosis.json").exists()


# --- stopping, resuming, moving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("publish", [False, True])
def test_stopped_and_resumed_is_uninterrupted(publish, tmp_path, monkeypatch):
    whole = run(request())
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setenv("REPRO_RESULTS", str(tmp_path / "other"))
    for step in (1, 2, 5):
        paused = run(request(publish=publish), stopping_at(step))
        assert paused.status == "interrupted"
        assert paused.detail.startswith("asked to stop")
        assert paused.folder is None
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    done = run(request(publish=publish))
    assert numbers(done.folder) == numbers(whole.folder)
    assert len(info(done)["resumed"]) == 3
    assert (done.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()


def test_no_time_left_is_a_pause():
    paused = run(request(max_minutes=0.0))
    assert (paused.status, paused.detail) == ("paused", "--max-minutes 0 reached; the same command goes on from here")
    assert run(request(max_minutes=60.0)).status == "done"


def test_a_published_run_goes_on_on_a_new_machine(tmp_path, monkeypatch):
    whole = run(request())
    paused = request(publish=True)
    assert run(paused, stopping_at(3)).status == "interrupted"
    cell = tmp_path / "results" / "checkpoints" / paused.path.parent
    assert paused.parked == cell / "seed0" / CHECKPOINT, "no machine in its path: another kind may go on from it"
    assert paused.parked.exists()
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "new machine"))
    seen = []
    done = run(request(publish=True), lambda step, total, values: seen.append(step))
    assert seen == [4, 5, 6]
    assert len(info(done)["resumed"]) == 1, "the first sitting is not forgotten"
    assert numbers(done.folder) == numbers(whole.folder)
    assert not paused.parked.exists()


def test_the_cache_counts_before_the_parked_checkpoint():
    assert run(request(publish=True), stopping_at(2)).status == "interrupted"
    old = request(publish=True).parked.read_bytes()
    assert run(request(publish=True), stopping_at(4)).status == "interrupted"
    request(publish=True).parked.write_bytes(old)
    seen = []
    run(request(publish=True), lambda step, total, values: seen.append(step))
    assert seen == [5, 6]


def test_local_runs_park_nothing_and_large_checkpoints_stay_out_of_git(monkeypatch):
    assert run(request(), stopping_at(2)).status == "interrupted"
    assert not (results_root() / "checkpoints").exists()
    monkeypatch.setattr(runner, "MAX_COMMITTED_CHECKPOINT", 10)
    assert run(request(publish=True, config=Config(seed=1)), stopping_at(2)).status == "interrupted"
    assert not (results_root() / "checkpoints").exists()


def test_a_run_that_somebody_works_on_is_busy_and_untouched():
    wanted = request()

    def second(done, total, values):
        if done == 3:
            with pytest.raises(Busy, match="another process is working on cell-"):
                run(request(force=True))

    outcome = run(wanted, second)
    assert outcome.status == "done"
    assert len(numbers(outcome.folder)) > 3


def test_a_damaged_journal_cannot_come_from_a_kill(monkeypatch):
    """It is written as a checkpoint is: whole or not at all."""
    assert run(request(), stopping_at(2)).status == "interrupted"
    journal = request().work / "journal.json"
    before = journal.read_bytes()

    def fail(number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            run(request())
    assert journal.read_bytes() == before
    assert run(request()).status == "done"


# --- weights of other runs -------------------------------------------------------------------------------------------


def reading(found):
    def measure(config, context):
        found.append(context.find_weights(toy(), "toy/table0", "cell", config.seed))
        yield Row("read", 1.0, "")

    return measure


def reader(found, **settings):
    wanted = request(reading(found), **settings)
    return Request(**{**vars(wanted), "name": "toy/figure0"})


def test_missing_weights_name_the_command_that_makes_them():
    message = "first `python -m repro run toy/table0 cell --tier small --seed 3`"
    with pytest.raises(MissingWeights, match=message):
        run(reader([], tier="small", config=Config(seed=3)))


def test_weights_of_another_tier_seed_or_status_do_not_count():
    run(request(tier="small"))
    run(request(config=Config(seed=1)))
    with pytest.raises(MissingWeights):
        run(reader([]))
    done = run(request())
    edited = info(done) | {"status": "diverged"}
    (done.folder / "run.json").write_text(json.dumps(edited))
    with pytest.raises(MissingWeights):
        run(reader([]))


def test_weights_of_a_run_with_other_settings_do_not_count():
    run(request(config=Config(rate=0.2)))
    with pytest.raises(MissingWeights):
        run(reader([]))


def test_the_users_own_weights_come_before_published_ones():
    found = []
    run(request(publish=True))
    published = info(run(reader(found)))["inputs"]
    own = run(request())
    later = info(run(reader(found, force=True)))["inputs"]
    assert [weights.keys() for weights in found] == [{"weight", "bias"}] * 2
    ((name, sha256),) = published.items()
    assert name.split("/")[0] == "runs"
    assert sha256 == hashlib.sha256((results_root() / name).read_bytes()).hexdigest()
    assert list(later) == [(own.folder / "model.safetensors").relative_to(results_root()).as_posix()]
