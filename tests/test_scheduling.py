"""Many cells at once: order, shards, signals and deaths of real processes of the real command."""

import itertools
import os
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from repro import planning
from repro.papers import EXPERIMENTS
from repro.planning import Probe
from repro.progress import CellLines
from repro.scheduling import Job, Pool, select_shard, sort_longest_first
from repro.training import CHECKPOINT

NAME = "neural_ode/table1_mnist"
CPU = torch.device("cpu")
CELLS = ["run", NAME, "mlp", "--epochs", "4", "--train-limit", "1280", "--evaluation-limit", "100"]
SEEDS = ["--seeds", "3"]
EACH_STEP = ["--checkpoint-seconds", "0"]
STARTING, IMPORTING, TRAINING = "the parent imports", "a child imports", "a child trains"


def children_of(pid):
    """Process ids of the children, from Linux's /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def imports_torch(pid):
    """Tell whether a process has begun to load torch, some tenths of a second before it has."""
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def wait_for(condition, seconds=60.0):
    """Poll a condition; gives its value, or fails."""
    give_up = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    return value


# --- order and shards ------------------------------------------------------------------------------------------------


def test_the_longest_comes_first_and_the_unmeasured_before_it():
    hours = {"mlp": 1.0, "resnet": 3.0, "odenet": 2.0}
    for cell, value in hours.items():
        digest = EXPERIMENTS[NAME].digest(EXPERIMENTS[NAME].config(cell, "small"))
        planning.keep(Probe(1, 1, 3600 * value, 0), NAME, cell, digest, CPU)
    jobs = [
        Job(NAME, cell, "small", seed) for cell in ("mlp", "rknet", "resnet", "odenet", "no_block") for seed in (0, 1)
    ]
    cells = [job.cell for job in sort_longest_first(jobs, CPU)]
    assert cells[::2] == cells[1::2] == ["rknet", "no_block", "resnet", "odenet", "mlp"]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_shards_partition_the_sorted_list(count):
    jobs = [Job(NAME, cell, "smoke", seed) for cell in ("resnet", "mlp", "odenet") for seed in (10, 9, 2)]
    shards = [select_shard(jobs, index, count) for index in range(count)]
    assert sorted(itertools.chain(*shards)) == sorted(jobs)
    for position, job in enumerate(sorted(jobs)):
        assert job in shards[position % count]
    assert [job.seed for job in sorted(jobs)[:3]] == [2, 9, 10]


def test_an_empty_shard_is_done(call):
    code, _, err = call("run", NAME, "mlp", "--shard", "3/4")
    assert (code, err) == (0, "0 of 0 cells ok\n")


def test_cells_may_be_several_and_stand_behind_options(call, monkeypatch):
    jobs = []
    monkeypatch.setattr(Pool, "run", lambda pool, source: jobs.extend(source))
    for words in (["mlp", "res*_res", "--threads", "1"], ["--threads", "1", "mlp", "res*_res"]):
        jobs.clear()
        call("run", NAME, *words, "--epochs", "3")
        assert [job.cell for job in jobs] == ["mlp", "resnet_res"]
        assert jobs[0].options[-2:] == ("--epochs", "3")


# --- real runs -------------------------------------------------------------------------------------------------------


def interrupt(cli, number, moment):
    """Send a signal to the parent at a moment of its or its children's life; gives the ended process."""
    process = cli.start(*CELLS, *SEEDS, "--jobs", 2, *EACH_STEP)
    if moment == STARTING:
        wait_for(lambda: imports_torch(process.pid))
    elif moment == IMPORTING:
        child = wait_for(lambda: children_of(process.pid))[0]
        wait_for(lambda: imports_torch(child))
    else:
        before = {path: path.stat().st_mtime_ns for path in cli.cache.rglob(CHECKPOINT)}
        wait_for(lambda: any(path.stat().st_mtime_ns != before.get(path) for path in cli.cache.rglob(CHECKPOINT)))
    children = children_of(process.pid)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert not any(map(is_alive, children))
    return subprocess.CompletedProcess(CELLS, process.returncode, out, err)


@pytest.mark.slow
def test_interrupted_at_any_moment_all_end_and_the_same_command_finishes_them(cli, call):
    moments = [(signal.SIGINT, STARTING), (signal.SIGTERM, IMPORTING), (signal.SIGINT, TRAINING)]
    for number, moment in moments:
        stopped = interrupt(cli, number, moment)
        assert stopped.returncode == 130, (moment, stopped.stderr)
        assert "Traceback" not in stopped.stderr
    assert len(cli.runs) < 3
    done = cli(*CELLS, *SEEDS, "--jobs", 2)
    assert done.returncode == 0, done.stderr
    together = [cli.numbers(run) for run in cli.runs]
    for seed in range(3):
        assert call(*CELLS, "--seed", seed, "--force")[0] == 0
    assert together == [cli.numbers(run) for run in cli.runs]


@pytest.mark.slow
def test_a_killed_cell_is_named_and_the_others_go_on_but_no_child_outlives_its_parent(cli):
    process = cli.start(*CELLS, *SEEDS, "--jobs", 2, *EACH_STEP)
    first = wait_for(lambda: len(children_of(process.pid)) == 2 and children_of(process.pid))
    os.kill(first[0], signal.SIGKILL)
    second = wait_for(lambda: set(children_of(process.pid)) - set(first))
    children = children_of(process.pid)
    assert second <= set(children)
    process.kill()
    wait_for(lambda: not any(map(is_alive, children)), seconds=3)
    err = process.communicate()[1]
    assert f"{NAME} mlp seed 0: killed by the system (SIGKILL), as it does when memory runs out" in err


def test_a_pipe_ends_a_child_where_the_system_does_not():
    reading, writing = os.pipe()
    code = f"from repro import signals; signals.exit_at_end({reading})"
    child = subprocess.Popen([sys.executable, "-c", code], pass_fds=[reading])
    time.sleep(0.2)
    assert child.poll() is None
    os.close(writing)
    assert child.wait(timeout=10) == 130
    os.close(reading)


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 0.0), (signal.SIGTERM, 0.3), (signal.SIGHUP, 1.0)])
def test_a_command_that_looks_ends_in_one_line_or_well(cli, number, seconds):
    process = cli.start("plan")
    wait_for(lambda: imports_torch(process.pid))
    time.sleep(seconds)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert "Traceback" not in err
    assert process.returncode == 0 or err == "interrupted\n"
    assert process.returncode == 130 or seconds > 0


def test_a_signal_after_the_end_does_not_change_the_exit_code(tmp_path):
    code = "from repro import __main__ as door\nimport os, signal, sys, atexit\n"
    code += "atexit.register(lambda: [os.kill(os.getpid(), n) for n in (2, 15)])\n"
    code += "sys.argv = ['repro', 'run', '--help']\nsys.exit(door.start())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


# --- what waits, and what is drawn -----------------------------------------------------------------------------------


def test_a_cell_that_lacks_weights_is_tried_again_when_others_have_ended(monkeypatch, tmp_path, capsys):
    made = tmp_path / "made"
    programs = {
        0: f"import os, sys; sys.exit(0 if os.path.exists({str(made)!r}) else 69)",
        1: f"import time; time.sleep(1); open({str(made)!r}, 'w')",
        2: "import sys; sys.exit(69)",
    }
    monkeypatch.setattr(Job, "command", property(lambda job: [sys.executable, "-Sc", programs[job.seed]]))
    jobs = [Job(NAME, "mlp", "smoke", seed) for seed in programs]
    pool = Pool(2)
    pool.run(jobs)
    assert [pool.codes[job] for job in jobs] == [0, 0, 1]
    assert not pool.is_interrupted


def test_in_a_terminal_each_running_cell_has_a_line(monkeypatch):
    controller, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    with os.fdopen(terminal, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        lines = CellLines()
        for seed in (0, 1):
            lines.start(seed, f"mlp seed {seed}")
        lines.show(0, "mlp seed 0", "mlp seed 0: step 3/8 (38%) nll 2.1")
        lines.show(1, "mlp seed 1", "error: no weights")
        lines.close()
        screen.flush()
    shown = os.read(controller, 65536).decode()
    os.close(controller)
    assert "mlp seed 0: step 3/8 (38%) nll 2.1" in shown
    assert "mlp seed 1: starting" in shown
    assert "mlp seed 1: error: no weights\r\n" in shown


def test_threads_are_divided_but_in_the_smoke_tier_one(call, monkeypatch):
    jobs = []
    monkeypatch.setattr(Pool, "run", lambda pool, source: jobs.extend(source))
    monkeypatch.setattr("repro.scheduling.count_cores", lambda: 7)
    for words, threads in ((["--jobs", "3"], "2"), (["--jobs", "9"], "1"), (["--jobs", "3", "--threads", "5"], "5")):
        jobs.clear()
        call("run", NAME, "mlp", "--seeds", "2", "--tier", "small", *words)
        options = jobs[0].options
        assert options[options.index("--threads") + 1] == threads
    jobs.clear()
    call("run", NAME, "mlp", "--seeds", "2", "--jobs", "3")
    assert "--threads" not in jobs[0].options
