"""`python -m benchmarks`: what it runs, what it refuses, and that one subset's failure leaves the others."""

import json
from types import SimpleNamespace

import pytest
import torch

from benchmarks import __main__ as door
from benchmarks.recorded import CLOCK, record


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """What would be run, with an environment each; a subset named in `failing` fails before it writes."""
    calls = SimpleNamespace(commands=[], environments=[], failing=set(), results=tmp_path)

    def run(command, env=None, **settings):
        calls.commands.append(command)
        calls.environments.append(env)
        name = next((part for part in command if part.endswith(".py")), "")
        output = next((part.partition("=")[2] for part in command if part.startswith("--benchmark-json")), None)
        failed = any(f"bench_{bad}.py" in name for bad in calls.failing)
        if output and not failed:
            with open(output, "w") as file:  # noqa: PTH123 (as the other process would)
                file.write(json.dumps({"benchmarks": []}))
        return SimpleNamespace(returncode=int(failed))

    monkeypatch.setattr(door.subprocess, "run", run)
    monkeypatch.setenv("REPRO_RESULTS", str(tmp_path))
    return calls


def test_each_subset_has_a_process_and_a_file(ran, capsys):
    assert door.main(["memory", "solvers", "--device", "cpu"]) == 0
    (folder,) = (ran.results / "benchmarks").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["memory.json", "solvers.json"]
    assert ran.environments[0]["REPRO_BENCH_DEVICE"] == "cpu"
    assert ran.environments[0]["REPRO_BENCH_QUICK"] == "0"
    assert ran.commands[-1][-1] == "report"


def test_a_quick_pass_is_this_machines_own(ran):
    assert door.main(["--quick", "--device", "cpu"]) == 0
    (folder,) = (ran.results / "local" / "benchmarks").iterdir()
    assert {path.stem for path in folder.iterdir()} == set(door.QUICK)
    assert ran.environments[0]["REPRO_BENCH_QUICK"] == "1"
    assert ran.commands[-1][-1] == "--local"
    assert not (ran.results / "benchmarks").exists()


def test_by_default_everything_runs_but_what_needs_other_libraries(ran):
    door.main(["--device", "cpu"])
    (folder,) = (ran.results / "benchmarks").iterdir()
    assert {path.stem for path in folder.iterdir()} == set(door.SUBSETS) - set(door.OPTIONAL)


def test_one_failure_leaves_the_others_and_the_older_file(ran, capsys):
    door.main(["memory", "--device", "cpu"])
    (before,) = ran.results.glob("benchmarks/*/memory.json")
    before.write_text("older")
    ran.failing.add("memory")
    assert door.main(["memory", "solvers", "--device", "cpu"]) == 1
    assert before.read_text() == "older"
    assert before.with_name("solvers.json").exists()
    assert "failed: memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"), [(["magic"], "no subset 'magic'"), (["peers", "--quick"], "no quick pass of 'peers'")]
)
def test_an_unknown_subset_is_named(ran, arguments, line, capsys):
    with pytest.raises(SystemExit) as end:
        door.main(arguments)
    assert end.value.code == 2
    assert line in capsys.readouterr().err
    assert not ran.commands


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_line(ran, capsys):
    assert door.main(["memory", "--device", "cuda"]) == 1
    assert "torch sees no CUDA device" in capsys.readouterr().err
    assert not ran.commands


def test_every_subset_has_a_file():
    assert set(door.QUICK) | set(door.OPTIONAL) <= set(door.SUBSETS)


def test_recorded_durations_come_back():
    seconds = []

    def pedantic(call, rounds, iterations):
        for _ in range(rounds):
            began = CLOCK()
            call()
            seconds.append(CLOCK() - began)

    benchmark = SimpleNamespace(extra_info={}, pedantic=pedantic)
    record(benchmark, {"status": "ok"}, [0.25, 1.0])
    record(benchmark, {"peak_bytes": 3})
    assert seconds == [0.25, 1.0, 0.0]
    assert benchmark.extra_info == {"status": "ok", "peak_bytes": 3}
