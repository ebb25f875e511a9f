"""The runner: where a run goes, when it is skipped, how it fails, and how it is carried to another machine."""

import errno
import hashlib
import json
import os
import shutil
import signal
import threading
import warnings
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from repro import durability, experiment, runner
from repro.checkpoint import CheckpointError, save_tensors
from repro.experiment import Experiment, silent
from repro.guards import Busy
from repro.integrity import verify_files
from repro.nets.odenet import OdeBlock
from repro.ode import BackwardDriftWarning, Solver
from repro.results import COST_METRICS, Row, load, read_record, read_rows, results_root
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


# --- durable from the rename on, the cache deleted last --------------------------------------------------------------

OPERATIONS = ("fsync", "mkdir", "open", "rename", "rmdir", "unlink")
"""Functions of `os` by which files and folders are changed; `open` is only called for flushing and deleting."""


def each_operation(monkeypatch, act):
    """Call `act` with a count, a name and arguments before every operation from the assembly of the run's folder on."""
    finish, count = runner._finish, iter(range(10**6))

    def watched(name, original):
        def operation(*arguments, **options):
            act(next(count), name, arguments)
            return original(*arguments, **options)

        return operation

    def watching(*arguments):
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
        finish(*arguments)

    monkeypatch.setattr(runner, "_finish", watching)


def flushed(arguments):
    """Name what an fsync is of."""
    return str(Path(f"/proc/self/fd/{arguments[0]}").readlink())


@pytest.fixture
def one_provenance(monkeypatch):
    """Ask git once, not for each of a hundred runs."""
    monkeypatch.setattr(runner, "provenance", cache(runner.provenance))


def left_in(root):
    """What lies below a folder, but for empty folders and lock files."""
    return [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]


def killed_at(operation, wanted, monkeypatch):
    """Run in a process of its own that is killed before an operation; gives whether it came so far."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)

    def act(count, name, arguments):
        if count == operation:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        each_operation(monkeypatch, act)
        run(wanted)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("force", [False, True])
def test_killed_at_any_operation_of_the_end_the_same_command_leaves_a_whole_run_and_nothing_else(
    force, tmp_path, monkeypatch, one_provenance
):
    """Real kills of real processes, at every operation in turn; a forced run replaces another one."""
    expected = numbers(run(request()).folder)
    published = 0
    for operation in range(200):
        wanted = request(publish=True, force=force)
        shutil.rmtree(tmp_path / "results", ignore_errors=True)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        before = force and run(request(publish=True)) and (wanted.destination / "run.json").read_bytes()
        wanted.parked.parent.mkdir(parents=True)
        if not killed_at(operation, wanted, monkeypatch):
            break
        seen = read_record(wanted.destination) is not None
        assert seen or not force, "a reader sees the old run, the new one, or none yet"
        if there := seen and (wanted.destination / "run.json").read_bytes() != before:
            published += 1
            assert numbers(wanted.destination) == expected
        again = run(request(publish=True, force=force and not there))
        assert again.status == ("skipped" if there else "done")
        assert numbers(again.folder) == expected
        assert verify_files(again.folder, info(again)) == []
        assert left_in(tmp_path / "cache") == []
        assert {path.parent for path in left_in(tmp_path / "results")} == {again.folder}
    assert 10 < published < operation, "killed before and after the rename"


def test_an_error_at_any_operation_of_the_end_keeps_all_or_leaves_a_published_run(
    tmp_path, monkeypatch, one_provenance
):
    for operation in range(200):
        shutil.rmtree(tmp_path / "results", ignore_errors=True)
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        reached = []

        def act(count, name, arguments, operation=operation, reached=reached):
            if count == operation:
                reached.append(name)
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as broken:
            each_operation(broken, act)
            try:
                status = run(request()).status
            except OSError as error:
                status = str(error)
        if not reached:
            break
        if read_record(request().destination) is None:
            assert "all is kept, the same command goes on from here" in status
            assert (request().work / CHECKPOINT).exists()
        else:
            assert status == "done", "published, whatever happened in the clean-up"
        assert run(request()).status in ("done", "skipped")
        assert verify_files(request().destination, read_record(request().destination)) == []
        assert left_in(tmp_path / "cache") == []
        assert {path.parent for path in left_in(tmp_path / "results")} == {request().destination}
    assert operation > 20


def test_files_are_flushed_before_the_rename_and_folders_after_it_and_the_cache_goes_last(monkeypatch):
    calls = []

    def act(count, name, arguments):
        if name == "fsync":
            calls.append(("fsync", flushed(arguments)))
        elif name == "rename":
            calls.append(("rename", str(arguments[0])))

    wanted = request()
    staging = str(durability.name_hidden_sibling(wanted.destination, "partial"))
    with monkeypatch.context() as watched:
        each_operation(watched, act)
        run(wanted)
    (moved,) = [index for index, call in enumerate(calls) if call == ("rename", staging)]
    files = {("fsync", f"{staging}/{name}") for name in ("model.safetensors", "rows.csv", "run.json")}
    assert set(calls[: moved - 1]) == files
    assert calls[moved - 1] == ("fsync", staging), "the folder's entries after the files"
    parents = [wanted.destination.parents[level] for level in range(4)]
    assert parents[-1] == results_root() / "local"
    assert calls[moved + 1 :] == [
        *(("fsync", str(parent)) for parent in (*parents, results_root())),
        ("rename", str(wanted.work)),
    ]


def test_a_disk_that_does_not_confirm_the_rename_keeps_the_cache(monkeypatch, capsys):
    def act(count, name, arguments):
        if name == "fsync" and flushed(arguments) == str(request().destination.parent):
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        each_operation(broken, act)
        assert run(request()).status == "done"
    assert "not yet safe from a power cut" in capsys.readouterr().err
    assert (request().work / CHECKPOINT).exists()
    assert run(request()).status == "skipped"
    assert not request().work.exists()


def test_what_a_reader_sees_is_never_nothing_while_a_run_is_replaced(tmp_path):
    """Two folders change places some thousand times, as by --force, under a reader that never rests."""
    new, place = tmp_path / ".new", tmp_path / "place"
    for folder in (new, place):
        folder.mkdir()
        (folder / "run.json").write_text(folder.name)
    missed, over = [], threading.Event()

    def read():
        while not over.is_set():
            missed.extend([] if (place / "run.json").exists() else [1])

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(2001):
        durability.put_folder(new, place)
    over.set()
    reader.join()
    assert missed == []
    assert ((place / "run.json").read_text(), (new / "run.json").read_text()) == (".new", "place")


def test_without_an_exchange_two_renames_do(tmp_path, monkeypatch):
    monkeypatch.setattr(durability, "_exchange", lambda a, b: False)
    first = info(run(request()))
    forced = run(request(force=True))
    assert info(forced)["start"] > first["start"]
    assert [path.name for path in forced.folder.parent.iterdir()] == [forced.folder.name]
    new = tmp_path / "new"
    new.mkdir()
    durability.put_folder(new, forced.folder)
    assert list(forced.folder.iterdir()) == []
    assert (new / "run.json").exists(), "the replaced one is where the new one was"


def test_a_run_that_lost_an_artefact_is_not_published():
    def losing(config, context):
        yield from measure(config, context)
        (context.artefacts / "model.safetensors").unlink()
        yield Row("last", 1.0, "")

    with pytest.raises(
        OSError, match=r"can't write .*model.safetensors was deleted while the run went on.*all is kept"
    ):
        run(request(losing))
    assert not request().destination.exists()
    assert run(request()).status == "done"


@pytest.mark.parametrize("deleted", [False, True])
def test_a_run_whose_work_folder_another_process_used_is_not_published(deleted):
    """As where the lock file was deleted."""

    def shared(done, total, values):
        if done == 3:
            (request().work.parent / f"{request().work.name}.lock").unlink()
            assert run(request(), stopping_at(5) if not deleted else silent).status == (
                "done" if deleted else "interrupted"
            )

    with pytest.raises(OSError, match=r"another process worked in|No such file"):
        run(request(), shared)
    assert run(request()).status == ("skipped" if deleted else "done")
    assert verify_files(request().destination, read_record(request().destination)) == []


# --- forced ----------------------------------------------------------------------------------------------------------


def steps_of(wanted):
    """Run; gives the steps that were trained, and the run's record."""
    seen = []
    outcome = run(wanted, lambda step, total, values: seen.append(step))
    assert outcome.status == "done"
    return seen, info(outcome)


def test_a_forced_run_begins_afresh_whatever_an_earlier_one_left(monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(runner, "_clean_up", lambda request, replaced: None)
        run(request())
    assert (request().work / CHECKPOINT).exists()
    seen, record = steps_of(request(force=True))
    assert seen == [1, 2, 3, 4, 5, 6]
    assert record["resumed"] == []
    assert "replaces" not in record


def test_a_forced_run_begins_afresh_beside_an_unfinished_one():
    assert run(request(publish=True), stopping_at(3)).status == "interrupted"
    seen, record = steps_of(request(publish=True, force=True))
    assert (seen, record["resumed"]) == ([1, 2, 3, 4, 5, 6], [])
    assert not request(publish=True).parked.exists()


def test_an_unfinished_forced_run_goes_on_and_is_not_what_the_finished_one_left():
    first = info(run(request()))
    for step in (2, 4):
        assert run(request(force=True), stopping_at(step)).status == "interrupted"
    assert run(request()).status == "skipped"
    seen, record = steps_of(request(force=True))
    assert seen == [5, 6]
    assert len(record["resumed"]) == 2
    assert first["files"].keys() == record["files"].keys()
    assert steps_of(request(force=True))[0] == [1, 2, 3, 4, 5, 6], "the next one is another run"


def test_a_parked_forced_run_goes_on_on_a_new_machine(tmp_path, monkeypatch):
    run(request(publish=True))
    assert run(request(publish=True, force=True), stopping_at(3)).status == "interrupted"
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "new machine"))
    assert steps_of(request(publish=True, force=True))[0] == [4, 5, 6]


def test_a_checkpoint_without_its_journal_is_not_gone_on_from():
    assert run(request(), stopping_at(3)).status == "interrupted"
    (request().work / "journal.json").unlink()
    seen, record = steps_of(request())
    assert (seen, record["resumed"]) == ([1, 2, 3, 4, 5, 6], [])


@pytest.mark.parametrize("content", [b"", b"[{]", b"\xff", b"7", b"[7]", b'[{"start": "x"}]'])
def test_a_damaged_journal_ends_in_one_line_that_says_what_to_do(content):
    assert run(request(), stopping_at(3)).status == "interrupted"
    (request().work / "journal.json").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"journal.json is damaged .*; delete .* to start this run from the beginning"
    ):
        run(request())
    assert steps_of(request(force=True))[0] == [1, 2, 3, 4, 5, 6]


def test_a_finished_local_run_deletes_no_parked_checkpoint():
    assert run(request(publish=True), stopping_at(3)).status == "interrupted"
    assert run(request()).status == "done"
    assert request(publish=True).parked.exists()


def test_skipping_deletes_no_state_of_another_run():
    """A published run is there; a local one of the same cell is unfinished."""
    run(request(publish=True))
    assert run(request(), stopping_at(3)).status == "interrupted"
    assert run(request(publish=True)).status == "skipped"
    assert steps_of(request())[0] == [4, 5, 6]


# --- a run without a readable record counts as none ------------------------------------------------------------------

UNREADABLE = {"empty": b"", "cut": b'{"schema": 2, "exp', "no JSON": b"hello", "not UTF-8": b'{"a": "\xff"}'}
UNREADABLE |= {"a list": b"[]", "missing keys": b'{"status": "ok"}', "a wrong type": b'{"status": 7}'}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_run_whose_record_cannot_be_read_is_run_again(content, capsys):
    first = run(request())
    (first.folder / "run.json").write_bytes(content)
    again = run(request())
    assert again.status == "done"
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1, err
    assert err[0].startswith(f"warning: {first.folder / 'run.json'} cannot be read (")
    assert numbers(again.folder)
    assert [path.name for path in again.folder.parent.iterdir()] == [again.folder.name]


def test_the_record_lists_the_hash_of_every_file():
    outcome = run(request())
    assert info(outcome)["schema"] == 2
    assert info(outcome)["files"].keys() == {"rows.csv", "model.safetensors"}
    assert verify_files(outcome.folder, info(outcome)) == []
    failed = run(request(solving(NotANumber(0.5)), config=Config(seed=1)))
    assert info(failed)["files"].keys() == {"rows.csv", "diagnosis.json"}


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


def test_of_many_drifts_the_first_is_shown_and_other_warnings_all():
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warnings, "showwarning", lambda message, *place, **more: shown.append(str(message)))
        with runner.warn_of_one_drift():
            for n in range(3):
                warnings.warn(f"drift {n}", BackwardDriftWarning, stacklevel=1)
                warnings.warn(f"other {n}", stacklevel=1)
        patch.undo()
    assert shown == ["drift 0", "other 0", "other 1", "other 2"]
