"""The command `compare`: what it prints and how it ends."""

import csv
import json
import re
from pathlib import Path

import pytest

PUBLISHED = Path(__file__).parent / "records"


@pytest.fixture
def altered(tmp_path):
    """A copy of a published file in which something was done to the first benchmark."""

    def altered(change):
        content = json.loads((PUBLISHED / "flows.json").read_text())
        change(content["benchmarks"][0], content)
        (tmp_path / "b.json").write_text(json.dumps(content))
        return PUBLISHED / "flows.json", tmp_path / "b.json"

    return altered


def slow(benchmark, _):
    benchmark["stats"] |= {key: 2 * benchmark["stats"][key] for key in ("median", "q1", "q3")}


def fewer(benchmark, _):
    benchmark["extra_info"]["nfe_forward"] -= 1


def slow_elsewhere(benchmark, content):
    slow(benchmark, content)
    content["machine_info"]["suite"]["threads"] = 1


def test_the_same_is_one_line_and_0(call):
    code, out, err = call("compare", PUBLISHED, PUBLISHED, "--any")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"\d+ figures of \d+ benchmarks compared: nothing changed\n", out)


@pytest.mark.parametrize(
    ("change", "code", "with_any", "verdict", "row"),
    [
        (slow, 1, 1, "1 slower", "median time"),
        (fewer, 0, 1, "1 fewer evaluations", "nfe_forward"),
        (slow_elsewhere, 0, 0, "1 slower, another machine", "median time"),
    ],
)
def test_what_changed_is_a_row_and_a_count_and_decides(call, altered, change, code, with_any, verdict, row):
    pair = altered(change)
    ended, out, err = call("compare", *pair)
    assert ended == code
    assert out.splitlines()[-1].endswith(f" compared: {verdict}")
    (line,) = [line for line in out.splitlines() if line.startswith("| benchmarks/")]
    assert f"| {row} " in line
    assert err.startswith("warning: the machines differ (threads: 2 and 1)") == (change is slow_elsewhere)
    assert call("compare", *pair, "--any")[0] == with_any


def test_thresholds_listings_and_csv(call, altered, tmp_path):
    pair = altered(slow)
    assert call("compare", *pair, "--time-factor", "2.5", "--any")[0] == 0
    target = tmp_path / "changes.csv"
    whole = call("compare", *pair, "--all", "--csv", target)[1]
    figures = int(whole.splitlines()[-1].split()[0])
    with target.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == figures == sum(line.startswith("| benchmarks/") for line in whole.splitlines())
    (slower,) = [line for line in lines if line["outcome"] == "worse"]
    assert float(slower["b"]) == 2 * float(slower["a"])
    assert (float(slower["change"]), slower["unit"], slower["verdict"]) == (2.0, "s", "slower")


def test_what_can_not_be_compared_is_one_line(call, tmp_path):
    code, out, err = call("compare", PUBLISHED, tmp_path / "nowhere")
    assert (code, out, err) == (1, "", f"error: {tmp_path / 'nowhere'} does not exist\n")


@pytest.mark.parametrize(
    "words", [[], ["a"], ["a", "b", "--time-factor", "0.5"], ["a", "b", "--count-tolerance", "nan"], ["a", "b", "c"]]
)
def test_wrong_usage_is_2(call, words):
    assert call("compare", *words)[0] == 2


def test_runs_of_two_seeds(call):
    call("run", "neural_ode/table1_mnist", "mlp", "--seed", "0", "--epochs", "1", "--train-limit", "256")
    call("run", "neural_ode/table1_mnist", "mlp", "--seed", "1", "--epochs", "1", "--train-limit", "256", "--publish")
    from repro.results import results_root

    first, second = (next((results_root() / name).glob("*/*/*/*")) for name in ("local", "runs"))
    assert 1 in {call("compare", *pair)[0] for pair in ((first, second), (second, first))}
    _, out, err = call("compare", first, second)
    assert "test_nll" in out
    assert " of 1 run compared: " in out
    assert err.startswith("warning: two different runs: ")
    code, out, _ = call("compare", results_root() / "local", results_root() / "runs")
    assert code == 1
    assert out.endswith("0 figures of 0 runs compared: 1 only in A, 1 only in B\n")
