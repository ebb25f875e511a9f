"""The queue of runs: what its table says and what is wrong in it, its two columns, and how it is worked through."""

import json
import os
import subprocess
import sys

import pytest

from repro import queue_command
from repro.papers import EXPERIMENTS
from repro.queue_file import QueueError, read_queue, write_status
from repro.results import results_root
from repro.scheduling import Job
from repro.training import CHECKPOINT

NAME = "neural_ode/table1_mnist"
HEAD = """# Queue

Words about it, with a | in them.

| order | experiment | cells | tier | seeds | threads | budget | state | hours so far | purpose |
|---|---|---|---|---|---|---|---|---|---|
"""


def line(order="1", experiment=NAME, cells="mlp", tier="smoke", seeds="0", threads="", state="-"):
    cells = [order, experiment, cells, tier, seeds, threads, "2 epochs", f"{state}      ", "-", "why \\| what"]
    return f"| {' | '.join(cells)} |\n"


def write_queue(*lines, after="\nWords below.\n"):
    path = results_root() / "QUEUE.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + "".join(lines) + after)
    return path


def columns(path):
    """State and hours of each entry."""
    lines = [text for text in path.read_text().splitlines() if text.startswith("| ")][1:]
    return [tuple(cell.strip() for cell in text.split("|")[8:10]) for text in lines]


def published(*parts):
    return sorted(results_root().glob("/".join(["runs", *parts])))


# --- the table -------------------------------------------------------------------------------------------------------


def test_cells_and_seeds_are_expanded_in_their_order():
    lines = [line("1", cells="res* mlp", seeds="3 0-1"), line("1.5", cells="`*_res`, mlp", tier="paper", threads="2")]
    first, second = read_queue(HEAD + "".join(lines))
    matching = tuple(cell for cell in EXPERIMENTS[NAME].cells if cell.startswith("res"))
    assert (first.cells, first.seeds, first.tier, first.threads) == ((*matching, "mlp"), (3, 0, 1), "smoke", 1)
    assert list(first.runs())[: len(matching) + 2] == [*((cell, 3) for cell in (*matching, "mlp")), (matching[0], 0)]
    assert second.cells[-1] == "mlp"
    assert (second.tier, second.threads) == ("paper", 2)


WRONG = [
    (line(experiment="neural_ode/table9"), "line 7: no experiment 'neural_ode/table9'"),
    (line(cells="mlp rsnet"), "line 7: no cell 'rsnet' in neural_ode/table1_mnist; there are: mlp, resnet"),
    (line(cells=" "), "line 7: it names no cell"),
    (line(tier="huge"), "line 7: tier 'huge' is none of smoke, small, paper"),
    (line(seeds="4-2"), "line 7: seeds '4-2' cannot be read"),
    (line(seeds="one"), "line 7: seeds 'one' cannot be read"),
    (line(seeds=""), "line 7: it names no seed"),
    (line(threads="0"), "line 7: threads '0' is no number of threads"),
    (line(order="first"), "line 7: order 'first' is no number"),
    (line("2") + line("1"), "line 8: order 1 does not come after 2"),
    ("| 1 | neural_ode/table1_mnist |\n", "line 7: it has 2 cells, the header 10"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_what_is_wrong_is_one_sentence_with_the_line(text, message):
    with pytest.raises(QueueError) as error:
        read_queue(HEAD + text)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("column", ["tier", "hours so far"])
def test_a_missing_column_is_named(column):
    with pytest.raises(QueueError, match=f"line 5: the column `{column}` is missing"):
        read_queue(HEAD.replace(f"| {column} ", "| other ") + line())


def test_the_command_says_it_in_one_line_and_starts_nothing(call):
    path = results_root() / "QUEUE.md"
    assert call("queue") == (2, "", f"error: there is no {path}\n")
    write_queue(line(), line("2", cells="nothing"))
    code, out, err = call("queue", "--publish")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path}: line 8: no cell 'nothing'")
    assert err.count("\n") == 1
    path.write_text("# Queue\n\nno table\n")
    assert call("queue", "--status")[0] == 2
    assert not published("*")


def test_only_the_two_columns_are_rewritten():
    text = HEAD + line("1") + line("2", cells="resnet") + "\r\nWords below | with a bar"
    new = write_status(text, {6: ("3 of 5 done, 1 paused, and more", "1.5"), 7: ("x", "0.0")})
    assert write_status(new, {6: ("-", "-"), 7: ("-", "-")}).replace(" ", "") == text.replace(" ", "")
    before, after = text.splitlines(), new.splitlines()
    assert before[:6] + before[8:] == after[:6] + after[8:]
    assert after[7] == before[7].replace("| -       |", "| x       |").replace("| - |", "| 0.0 |")
    cells = [cell.strip() for cell in after[6].split("|")]
    assert cells[8:10] == ["3 of 5 done, 1 paused, and more", "1.5"]


def test_the_committed_queue_can_be_read():
    text = (queue_command.Path(__file__).parents[1] / "results" / "QUEUE.md").read_text(encoding="utf-8")
    entries = read_queue(text)
    assert entries
    assert all(entry.seeds and entry.cells for entry in entries)


# --- working through it ----------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch):
    """Command lines of the children that the queue starts."""
    commands = []
    command = Job.command.fget
    monkeypatch.setattr(Job, "command", property(lambda job: commands.append(command(job)) or commands[-1]))
    return commands


@pytest.mark.slow
def test_the_queue_pauses_parks_resumes_skips_and_goes_on_after_a_failure(call, cli, started, monkeypatch):
    monkeypatch.setattr(queue_command, "LEAST_MINUTES", -1.0)
    path = write_queue(line(cells="mlp", seeds="1 0"))
    code, out, _ = call("queue", "--status")
    assert code == 0
    assert out.splitlines() == path.read_text().splitlines()[4:7]
    assert columns(path) == [("0 of 2 done", "0.0")]

    assert call("run", NAME, "mlp", "--seed", 0, "--publish", "--threads", 1)[0] == 0
    code, _, err = call("queue", "--publish", "--max-minutes", 0.001)
    assert code == 75, err
    assert f"{NAME} mlp seed 1: paused (--max-minutes 0" in err
    assert err.endswith("1 of 2 runs were done, 0 more are now\n")
    assert [command[9] for command in started] == ["1"]
    assert len(list(results_root().glob(f"checkpoints/{NAME}/*/seed1/{CHECKPOINT}"))) == 1
    assert columns(path)[0][0] == "1 of 2 done, 1 paused"

    for work in cli.cache.rglob(CHECKPOINT):  # another machine has the parked checkpoint alone
        work.unlink()
    started.clear()
    failing = line("1", experiment="neural_ode/fig3_solver_stats", cells="dopri5")  # nobody made its weights
    path = write_queue(failing, line("2", cells="mlp", seeds="1 0"), after="Other words.\n")
    code, _, err = call("queue", "--jobs", 2, "--publish")
    assert code == 1, err
    assert "fig3_solver_stats dopri5 seed 0: error: no finished run of neural_ode/table1_mnist odenet" in err
    assert [command[4] for command in started] == ["neural_ode/fig3_solver_stats", NAME]
    assert err.endswith("1 of 3 runs were done, 1 more are now\n")
    assert [state for state, _ in columns(path)] == ["0 of 1 done", "2 of 2 done"]
    assert path.read_text().endswith("Other words.\n")
    (resumed,) = published(NAME, "mlp-*", "*-seed1")
    assert len(json.loads((resumed / "run.json").read_text())["resumed"]) == 1
    assert not list(results_root().rglob(f"checkpoints/**/{CHECKPOINT}"))
    assert call("run", NAME, "mlp", "--seed", 1, "--threads", 1)[0] == 0
    (whole,) = results_root().glob(f"local/{NAME}/mlp-*/*-seed1")
    assert cli.numbers(resumed) == cli.numbers(whole)


def test_nothing_starts_with_less_than_two_minutes_left(call, started):
    path = write_queue(line())
    code, _, err = call("queue", "--publish", "--max-minutes", "1.9")
    assert (code, err, started) == (75, "0 of 1 runs were done, 0 more are now\n", [])
    assert columns(path) == [("0 of 1 done", "0.0")]


PRINT_PRIORITIES = """
import os, time
time.sleep(0.3)
session = open("/proc/self/autogroup").read().split()[-1] if os.path.exists("/proc/self/autogroup") else os.nice(0)
print(os.nice(0), session, file=__import__("sys").stderr)
"""


def test_children_run_in_order_at_low_priority_with_the_threads_of_their_entry(call, monkeypatch):
    ran = []

    def program(job):
        ran.append((job.cell, job.seed, job.options[1]))
        return [sys.executable, "-Sc", PRINT_PRIORITIES]

    monkeypatch.setattr(Job, "command", property(program))
    write_queue(line("1", cells="mlp resnet", seeds="1 2", threads="3"), line("2", cells="mlp rknet", seeds="1"))
    code, _, err = call("queue", "--nice", 7)
    assert code == 0
    assert ran == [("mlp", 1, "3"), ("resnet", 1, "3"), ("mlp", 2, "3"), ("resnet", 2, "3"), ("rknet", 1, "1")]
    priority = min(19, os.nice(0) + 7)
    assert err.count(f": {priority} {priority}\n") == 5  # of the process and, on Linux, of its session


def test_a_recorded_failure_is_reported_and_not_run_again(call, started):
    words = ["run", NAME, "mlp", "--publish"]
    assert call(*words)[0] == 0
    (folder,) = published(NAME, "mlp-*", "*-seed0")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"status": "diverged"}))
    path = write_queue(line())
    code, _, err = call("queue", "--publish")
    assert code == 1
    assert f"{NAME} mlp seed 0: failed before, as its record says" in err
    assert started == []
    assert columns(path)[0][0] == "0 of 1 done, 1 failed"
    (folder / "run.json").write_text("{")
    call("queue", "--status")
    assert columns(path)[0][0] == "0 of 1 done", "a record that cannot be read is no run"


# --- the states of plan --json ---------------------------------------------------------------------------------------

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


def test_plan_gives_the_state_of_each_run_as_json(call, cli):
    assert call("run", NAME, "mlp", "--seed", 0)[0] == 0
    assert call("run", NAME, "mlp", "--seed", 1, "--max-minutes", 0)[0] == 75
    code, out, _ = call("plan", NAME, "mlp", "--tier", "smoke", "--seeds", 3, "--json")
    assert code == 0
    items = json.loads(out)
    assert [item["state"] for item in items] == ["done", "paused", "todo"]
    digest = EXPERIMENTS[NAME].digest(EXPERIMENTS[NAME].config("mlp", "smoke"))
    for seed, item in enumerate(items):
        assert list(item) == ["experiment", "cell", "tier", "seed", "digest", "state", "hours", "memory_mib"]
        assert (item["experiment"], item["cell"], item["tier"], item["seed"]) == (NAME, "mlp", "smoke", seed)
        assert item["digest"] == digest
        assert 0 <= item["hours"] < 0.1
        assert item["memory_mib"] > 1
    (lock,) = cli.cache.rglob("*seed1.lock")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=-1)
    assert holder.stdout.readline() == b"held\n"
    out = call("plan", NAME, "mlp", "odenet", "--tier", "smoke", "--seeds", 2, "--json")[1]
    holder.kill()
    holder.wait()
    assert [item["state"] for item in json.loads(out)] == ["done", "running", "todo", "todo"]
    assert [item["hours"] is None for item in json.loads(out)] == [False, False, True, True]
