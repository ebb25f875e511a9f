"""The door: what each command prints and returns; fast paths in this process, the rest in real ones."""

import json
import os
import re
import resource
import subprocess
import sys

import pytest
import torch

from repro.papers import EXPERIMENTS
from repro.results import results_root

SMALL = ["--epochs", "1", "--train-limit", "256", "--evaluation-limit", "100"]
MLP = ["run", "neural_ode/table1_mnist", "mlp", *SMALL]


def folders():
    return sorted(path.parent for path in results_root().glob("*/*/*/*/*/run.json"))


# --- commands that look ----------------------------------------------------------------------------------------------


def test_list_names_every_experiment_and_cell(call):
    code, out, _ = call("list")
    assert code == 0
    for name, experiment in EXPERIMENTS.items():
        assert f"{name}  ({experiment.artefact})" in out
        assert {line.split()[0] for line in out.splitlines() if line.startswith("  ")} >= set(experiment.cells)


def test_list_counts_runs_and_tells_those_with_other_settings_apart(call):
    for more in ([], ["--seed", "1"], ["--publish"]):
        call("run", "neural_ode/table1_mnist", "mlp", *more)
    call(*MLP)
    out = call("list")[1]
    line = next(line for line in out.splitlines() if re.match(r"  mlp\s", line))
    assert "2 ok smoke (local)" in line
    assert "1 ok smoke (published)" in line
    assert "and 1 runs with settings of their own" in out


def test_data_says_what_is_sound_and_what_is_not(call, tmp_path, monkeypatch):
    code, out, _ = call("data")
    assert code == 0
    assert len(out.splitlines()) >= 4
    assert {line.split()[0] for line in out.splitlines()} == {"ok", "absent"}
    assert not [line for line in out.splitlines() if line.startswith("absent") and "mnist" in line]
    bad = tmp_path / "data" / "mnist" / "t10k-labels-idx1-ubyte.gz"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"no labels")
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    code, out, _ = call("data")
    assert code == 1
    assert [line.split()[2] for line in out.splitlines() if line.startswith("corrupt")] == ["mnist/" + bad.name]


def test_doctor_finds_this_machine_fit_and_corrupt_data_unfit(call, tmp_path, monkeypatch):
    code, out, _ = call("doctor")
    assert code == (1 if "BAD" in out else 0)
    judged = {line[4:].split()[0]: line.startswith("ok") for line in out.splitlines()}
    assert judged["data"]
    assert judged["results"]
    assert judged["versions"]
    assert torch.__version__ in out
    bad = tmp_path / "data" / "mnist" / "t10k-labels-idx1-ubyte.gz"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"no labels")
    monkeypatch.setenv("REPRO_DATA", str(tmp_path / "data"))
    code, out, _ = call("doctor")
    assert code == 1
    assert "BAD data      missing or corrupt: mnist/t10k-labels-idx1-ubyte.gz" in out


# --- run -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["table9"], "error: no experiment 'table9'; there are: neural_ode/table1_mnist"),
        (
            ["neural_ode/table1_mnst"],
            "error: no experiment 'neural_ode/table1_mnst'; did you mean 'neural_ode/table1_mn",
        ),
        (
            ["neural_ode/table1_mnist", "resnt"],
            "error: no cell 'resnt' in Neural ODE, Table 1; did you mean 'resnet'? the",
        ),
        (["neural_ode/table1_mnist", "mlp", "rs*"], "error: no cell 'rs*' in Neural ODE, Table 1; there are: mlp"),
    ],
)
def test_what_is_unknown_is_answered_with_what_there_is(call, words, line):
    code, out, err = call("run", *words)
    assert code == 2
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_without_a_command_the_help_is_shown_and_a_misspelt_one_is_answered_with_the_nearest(call):
    code, out, err = call()
    assert (code, out) == (2, "")
    assert "work through results/QUEUE.md" in err
    code, out, err = call("evalaute", "--all")
    assert (code, out) == (2, "")
    assert err.startswith("error: no command 'evalaute'; did you mean 'evaluate'? there are: list, plan, run")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["list", "--rtol", "1"], "unknown arguments: --rtol 1"),
        ([*MLP, "--tier", "huge"], "argument --tier: invalid choice: 'huge' (choose from"),
        ([*MLP, "--threads", "-1"], "argument --threads: must be between 1 and 2147483647; got -1"),
        ([*MLP, "--threads", "two"], "argument --threads: must be a whole number; got 'two'"),
        ([*MLP, "--max-minutes", "nan"], "argument --max-minutes: must be finite and at least 0; got nan"),
        (
            [*MLP, "--checkpoint-seconds", "nan"],
            "argument --checkpoint-seconds: must be finite and at least 0; got nan",
        ),
        (
            [*MLP, "--seed", "99999999999999999999"],
            "argument --seed: must be between 0 and 9223372036854775807; got 99",
        ),
        ([*MLP, "--shard", "2/2"], "argument --shard: must be I/N with I < N"),
        ([*MLP, "--epoch", "1"], "unknown option --epoch; did you mean '--epochs'?"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it(call, words, line):
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {line}")
    assert err.count("\n") == 1
    assert folders() == []


def test_no_memory_is_one_line(cli):
    """A batch for which no machine has memory; the process's limit keeps this one from trying."""
    limit = 6 * 2**30
    words = ["run", "ffjord/fig1_density1d", "mixture_1d", "--batch", 10**9]
    done = cli(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert done.returncode == 1
    assert done.stderr.startswith("error: out of memory (")
    assert done.stderr.count("\n") == 1


def test_cuda_without_cuda(call, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, err = call(*MLP, "--device", "cuda")
    assert (code, err) == (1, "error: --device cuda: torch sees no CUDA device here; use --device cpu\n")
    assert folders() == []


def test_done_then_skipped_then_forced(call):
    for words, said in (
        ([], "done (finished)"),
        ([], "skipped (finished before with status ok;"),
        (["--force"], "done (finished)"),
    ):
        code, _, err = call(*MLP, *words)
        assert code == 0
        assert f"neural_ode/table1_mnist mlp seed 0: {said}" in err.splitlines()[-1]
    assert len(folders()) == 1


def test_an_override_is_another_run(call):
    call(*MLP)
    call(*MLP, "--solver.rtol", "1e-6")
    call(*MLP, "--solver.rtol", "1e-6", "--seed", "3")
    infos = [json.loads((folder / "run.json").read_text()) for folder in folders()]
    assert sorted((info["config"]["solver"]["rtol"], info["seed"]) for info in infos) == [
        (1e-6, 0), (1e-6, 3), (1e-3, 0)]  # fmt: skip
    assert len({info["digest"] for info in infos}) == 2


def test_paused_by_the_budget_is_75_and_goes_on(call):
    code, _, err = call(*MLP, "--max-minutes", "0")
    assert code == 75
    assert "paused (--max-minutes 0 reached; the same command goes on from here)" in err
    assert folders() == []
    assert call(*MLP)[0] == 0
    assert len(json.loads((folders()[0] / "run.json").read_text())["resumed"]) == 1


def test_missing_weights_are_one_line_with_the_command(call):
    code, _, err = call("run", "neural_ode/fig3_solver_stats", "dopri5", "--seed", "4")
    assert code == 1
    assert "first `python -m repro run neural_ode/table1_mnist odenet --tier smoke --seed 4`" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [[], ["fly"], ["list", "--rtol", "1"], ["run"], ["run", "neural_ode/table1_mnist", "mlp", "--tier", "huge"],
     [*MLP, "--no-such-setting", "1"], [*MLP, "--solver.rtol", "-1"], [*MLP, "--gradient", "magic"],
     [*MLP, "--threads", "0"], [*MLP, "--max-minutes", "nan"], [*MLP, "--seed", "-1"], [*MLP, "--jobs", "0"],
     [*MLP, "--shard", "2/2"], [*MLP, "--shard", "1"], [*MLP, "--shard", "-1/2"]],
)  # fmt: skip
def test_wrong_usage_is_2(call, words):
    assert call(*words)[0] == 2
    assert folders() == []


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--help"], ["list", "run", "queue", "report", "compare", "evaluate", "data", "doctor"]),
        (["run", "--help"], ["--tier", "--publish", "--max-minutes"]),
        (["run", "neural_ode/table1_mnist", "mlp", "--help"], ["--tier", "--solver.rtol", "--epochs"]),
        (["run", "neural_ode/table1_mnist", "-h"], ["--tier", "--solver.rtol", "--epochs"]),
        (["evaluate", "--help"], ["--device"]),
        (["compare", "--help"], ["--time-factor", "--any", "--csv"]),
    ],
)
def test_help(call, words, shown):
    code, out, _ = call(*words)
    assert code == 0
    assert all(word in out for word in shown)
    assert folders() == []


# --- several cells: real processes -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pattern_runs_one_process_per_cell(cli):
    done = cli("run", "neural_ode/table1_m*", "ml[p]", "--seed", "0", "1", "--threads", "1", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 cells ok" in done.stderr
    infos = [json.loads((folder / "run.json").read_text()) for folder in cli.runs]
    assert [info["seed"] for info in infos] == [0, 1]
    assert len({info["digest"] for info in infos}) == 1
    for info in infos:
        assert info["threads"] == 1
        assert info["command"].startswith(
            f"python -m repro run neural_ode/table1_mnist mlp --tier smoke --seed {info['seed']}"
        )


def test_exit_codes_of_several_cells(monkeypatch, call):
    """Interrupted ends the rest; a failure counts more than a pause; a child killed by a signal has failed."""
    real = subprocess.Popen
    started = []

    def ends_with(*codes):
        remaining = iter(codes)

        def start(command, **settings):
            started.append(command)
            return real([sys.executable, "-Sc", f"import os; {next(remaining)}"], **settings)

        monkeypatch.setattr(subprocess, "Popen", start)

    cases = [
        (["os._exit(0)", "os._exit(0)", "os._exit(0)"], 0, 3),
        (["os._exit(75)", "os._exit(1)", "os._exit(0)"], 1, 3),
        (["os._exit(0)", "os._exit(75)", "os._exit(0)"], 75, 3),
        (["os._exit(0)", "os.kill(os.getpid(), 9)", "os._exit(0)"], 1, 3),
        (["os._exit(1)", "os._exit(130)", "os._exit(0)"], 130, 2),
    ]
    for codes, expected, number in cases:
        started.clear()
        ends_with(*codes)
        code, _, err = call("run", "neural_ode/table1_mnist", "mlp", "--seed", "0", "1", "2")
        assert (code, len(started)) == (expected, number)
        assert f"{codes.count('os._exit(0)') - (3 - number)} of 3 cells ok" in err


IMPORTS = """
import time
start = time.process_time()
import repro
bare = time.process_time() - start
import torch
start = time.process_time()
import repro.ode
print(bare, time.process_time() - start)
"""


def test_importing_the_package_costs_little_more_than_torch():
    out = subprocess.check_output([sys.executable, "-c", IMPORTS], env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True)
    bare, ode = map(float, out.split())  # processor time, not the clock's
    assert bare < 0.3
    assert ode < 1.0


def test_a_training_that_diverges_is_a_recorded_failure_and_not_a_success(cli):
    words = ["run", "neural_ode/table1_mnist", "mlp", "--threads", 1, "--learning-rate", 1e38, "--epochs", 1]
    done = cli(*words)
    assert done.returncode == 1
    assert "diverged (training diverged at step" in done.stderr
    (folder,) = cli.runs
    assert "Traceback" not in done.stderr
    assert '"status": "diverged"' in (folder / "run.json").read_text()
    assert "test_error" not in (folder / "rows.csv").read_text()
