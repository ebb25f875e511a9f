"""What may happen to a run in the real world, done to real processes of the real command."""

import getpass
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from repro.checkpoint import load_tensors
from repro.data.files import EMBEDDED
from repro.loading import NotPublished, load_model
from repro.training import CHECKPOINT

RUN = ["run", "neural_ode/table1_mnist", "mlp", "--tier", "smoke", "--threads", "1", "--evaluation-limit", "200"]
SHORT = [*RUN, "--epochs", "2", "--train-limit", "512"]
LONG = [*RUN, "--epochs", "15", "--train-limit", "1280"]
"""150 steps; with a checkpoint after each it lasts long enough to be hit anywhere."""
EACH_STEP = ["--checkpoint-seconds", "0"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, make_cli):
    """Folder of the long run when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    cli = make_cli(folder / "results", folder / "cache")
    done = cli(*LONG)
    assert done.returncode == 0, done.stderr
    return cli.runs[0]


def step_of(cli):
    """The step of the checkpoint in the cache, -1 without one."""
    found = list(cli.cache.rglob(CHECKPOINT))
    return load_tensors(found[0])[1]["step"] if found else -1


def wait_until(process, condition):
    """Wait for something that the process does; fails if it ends before."""
    give_up = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.01)


def disturb(cli, number, step):
    """Start the long run, send it a signal once it has passed a step; gives the process, ended."""
    process = cli.start(*LONG, *EACH_STEP)
    wait_until(process, lambda: step_of(cli) >= step)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(LONG, process.returncode, out, err)


def one_line(err):
    """The only line beside the progress."""
    lines = [line for line in err.splitlines() if not line.startswith("neural_ode/table1_mnist mlp seed 0: step")]
    assert len(lines) == 1, err
    return lines[0]


def half_written(root):
    """Files below results/ that are in no finished run."""
    runs = [path.parent for path in root.rglob("run.json") if not path.parent.name.startswith(".")]
    files = [path for path in root.rglob("*") if path.is_file()]
    return [path for path in files if path.parent not in runs]


# --- killed ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_killed_anywhere_any_number_of_times_it_ends_with_the_same_rows(cli, call, undisturbed):
    draw = random.Random(0)
    steps = sorted(draw.sample(range(100), 3))
    for step in steps:
        killed = disturb(cli, signal.SIGKILL, step)
        assert killed.returncode == -signal.SIGKILL
        assert cli.runs == []
        assert half_written(cli.results) == []
    assert call(*LONG)[0] == 0
    assert cli.numbers(cli.runs[0]) == cli.numbers(undisturbed)
    assert len(json.loads((cli.runs[0] / "run.json").read_text())["resumed"]) == len(steps)
    assert not list(cli.cache.rglob(CHECKPOINT))


@pytest.mark.slow
def test_asked_to_stop_it_saves_says_so_and_goes_on_later(cli, call, undisturbed):
    for number, step in ((signal.SIGINT, 20), (signal.SIGTERM, 90)):
        stopped = disturb(cli, number, step)
        assert stopped.returncode == 130
        assert "interrupted (asked to stop; the same command goes on from here)" in one_line(stopped.stderr)
        assert half_written(cli.results) == []
        assert step_of(cli) >= step
    assert call(*LONG)[0] == 0
    assert cli.numbers(cli.runs[0]) == cli.numbers(undisturbed)


def test_interrupted_before_it_trains_it_leaves_without_a_traceback(cli):
    """A signal at any moment after the start, here as soon as the run's folder exists."""
    process = cli.start(*SHORT)
    wait_until(process, lambda: list(cli.cache.rglob("*.lock")))
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert cli.runs == []


# --- two at once -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_two_at_once_one_works_and_the_other_says_so(cli, undisturbed):
    first = cli.start(*LONG, *EACH_STEP)
    wait_until(first, lambda: list(cli.cache.rglob(CHECKPOINT)))
    first.send_signal(signal.SIGSTOP)  # so that it cannot end before the second looks
    try:
        second = cli(*LONG)
    finally:
        first.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert one_line(second.stderr).startswith("error: another process is working on mlp-")
    assert first.wait(timeout=120) == 0, first.communicate()
    assert len(cli.runs) == 1
    assert cli.numbers(cli.runs[0]) == cli.numbers(undisturbed)


# --- no space --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB: too small for the weights."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    possible = os.geteuid() == 0 and shutil.which("mount") is not None
    if not possible or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_under_results_loses_nothing(cli, call, small_disk, tmp_path):
    cli.results = small_disk / "results"
    full = cli(*SHORT)
    assert full.returncode == 1
    line = one_line(full.stderr)
    assert line.startswith(f"error: can't write {cli.results}")
    assert "No space left on device" in line
    assert half_written(cli.results) == []
    assert cli.runs == []
    assert step_of(cli) == 8, "all eight steps are in the cache"
    cli.results = tmp_path / "results"
    code, _, err = call(*SHORT)
    assert code == 0
    assert "step" not in err, "it trained again"
    assert len(cli.runs) == 1


def test_no_room_for_a_checkpoint_ends_in_one_line_and_keeps_the_last_one(cli, call):
    """A limit on the size of files, which needs no root: 2 MB hold weights and momentum, but not the best weights too.

    Those come with the first evaluation, after step 4.
    """
    limit = 2_500_000
    full = cli(*SHORT, *EACH_STEP, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert full.returncode == 1
    assert "File too large" in one_line(full.stderr)
    assert CHECKPOINT in one_line(full.stderr)
    assert half_written(cli.results) == []
    assert not list(cli.cache.rglob("*.partial"))
    assert step_of(cli) == 3
    code, _, err = call(*SHORT)
    assert code == 0, err
    assert len(json.loads((cli.runs[0] / "run.json").read_text())["resumed"]) == 1


# --- damaged files ---------------------------------------------------------------------------------------------------


def test_a_flipped_byte_in_a_data_file_ends_in_one_line_and_no_result(cli, tmp_path):
    name = "mnist/t10k-images-idx3-ubyte.gz"
    raw = bytearray((EMBEDDED / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    bad = tmp_path / "data" / name
    bad.parent.mkdir(parents=True)
    bad.write_bytes(raw)
    cli.environment["REPRO_DATA"] = str(tmp_path / "data")
    failed = cli(*SHORT)
    assert failed.returncode == 1
    assert one_line(failed.stderr).startswith(f"error: data file {name} is corrupt")
    assert not list(cli.results.rglob("*.*"))


def test_a_damaged_checkpoint_ends_in_one_line_that_says_what_to_do(cli, call):
    assert call(*SHORT, "--max-minutes", "0")[0] == 75
    (path,) = cli.cache.rglob(CHECKPOINT)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    failed = cli(*SHORT)
    assert failed.returncode == 1
    assert one_line(failed.stderr).startswith(f"error: {path} is damaged")
    assert "delete it" in failed.stderr
    assert cli.runs == []
    path.unlink()
    assert call(*SHORT)[0] == 0


UNREADABLE = {
    "empty": b"",
    "cut": b'{"schema": 2, "exp',
    "not UTF-8": b'{"a": "\xff"}',
    "keys missing": b'{"status": "ok"}',
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_run_whose_record_cannot_be_read_counts_as_none_for_every_command(cli, call, content):
    """As a power cut or a full disk leaves it; the other run of the cell stays in sight."""
    assert call(*SHORT, "--publish")[0] == 0
    (good,) = cli.results.glob("runs/*/*/*/*")
    damaged = good.with_name(good.name.replace("seed0", "seed1"))
    shutil.copytree(good, damaged)
    (damaged / "run.json").write_bytes(content)
    first = cli("list")
    assert first.returncode == 0, first.stderr
    assert "1 runs with settings of their own" in first.stdout
    (line,) = first.stderr.splitlines()
    assert line.startswith(f"warning: {damaged / 'run.json'} cannot be read (")
    for words in (("show", "neural_ode/table1_mnist", "mlp"), ("plan", "neural_ode/table1_mnist", "mlp")):
        code, _, err = call(*words)
        assert code == 0, err
    code, _, err = call("show", damaged)
    assert (code, err.splitlines()[-1]) == (1, f"error: {damaged} holds no run that can be read")
    with pytest.raises(NotPublished):
        load_model("neural_ode/table1_mnist", "mlp", tier="smoke", seed=1)
    assert call(*SHORT, "--publish", "--seed", "1")[0] == 0
    assert len(json.loads((damaged / "run.json").read_text())["files"]) == len(list(damaged.iterdir())) - 1


# --- provenance of a real process ------------------------------------------------------------------------------------


def test_run_json_of_a_real_run_names_no_person_host_or_place(undisturbed):
    text = (undisturbed / "run.json").read_text()
    found = json.loads(text)
    assert found["command"] == "python -m repro " + " ".join(LONG)
    for secret in (platform.node(), str(undisturbed.parents[5]), str(Path.home()), str(Path.cwd())):
        assert secret not in text
    words = text.replace('"', " ").replace("/", " ").split()
    assert getpass.getuser() not in words
    assert len(found["inputs"]) == 4
    assert all(len(sha256) == 64 for sha256 in found["inputs"].values())
