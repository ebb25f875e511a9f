"""Published numbers are recomputed from their weights: one run or all, at tolerances near rounding."""

import fnmatch
import json
import math

import pytest

from repro.checkpoint import load_tensors, save_tensors
from repro.evaluate_command import CHEAP, compare_rows, tolerance_of
from repro.papers import EXPERIMENTS
from repro.per_point import PER_POINT
from repro.results import Row, read_rows, results_root, write_rows

SMALL = ["--epochs", "1", "--train-limit", "256", "--evaluation-limit", "100"]
MLP = ["run", "neural_ode/table1_mnist", "mlp", *SMALL]
PLANAR = ["run", "neural_ode/fig4_nf_vs_cnf", "u1_nf_2", "--iterations", "3", "--test-points", "40", "--side", "4"]


def folders(source="*"):
    return sorted(path.parent for path in results_root().glob(f"{source}/*/*/*/*/run.json"))


def alter(folder, factor):
    tensors, values = load_tensors(folder / "model.safetensors")
    save_tensors(folder / "model.safetensors", {name: tensor * factor for name, tensor in tensors.items()}, values)


# --- one run ---------------------------------------------------------------------------------------------------------


def test_a_run_agrees_until_its_weights_are_altered(call):
    call(*MLP)
    (folder,) = folders()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out, _ = call("evaluate", folder)
    assert (code, out.splitlines()[-1]) == (0, "agrees with the record")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, "evaluation writes nothing"
    for factor in (0.5, math.nan):
        alter(folder, factor)
        code, out, _ = call("evaluate", folder)
        assert code == 1
        assert out.splitlines()[-1].startswith("differs from the record: ")
        assert "test_nll" in out.splitlines()[-1]


def test_overridden_settings_are_rebuilt(call):
    limited = ["--epochs", "1", "--train-limit", "128", "--evaluation-limit", "4", "--solver.rtol", "0.01"]
    call("run", "neural_ode/table1_mnist", "odenet", *limited)
    code, out, _ = call("evaluate", folders()[0])
    assert (code, out.splitlines()[-1]) == (0, "agrees with the record")
    for metric in ("test_error_tight", "reconstruction_error", "value_drift"):
        assert metric in out


def test_a_metric_that_was_not_recorded_is_printed_and_not_compared(call):
    """As in a run that was made before there were such rows."""
    call(*MLP)
    (folder,) = folders()
    write_rows(folder / "rows.csv", [row for row in read_rows(folder / "rows.csv") if row.metric != "test_nll"])
    code, out, _ = call("evaluate", folder)
    assert code == 0
    assert "recorded -" in next(line for line in out.splitlines() if line.startswith("test_nll"))


def test_what_is_wrong_is_one_line(call, tmp_path):
    code, _, err = call("evaluate", tmp_path)
    assert (code, err) == (1, f"error: {tmp_path} is no run's folder: there is no run.json in it\n")
    call(*MLP)
    (folder,) = folders()
    weights, record = folder / "model.safetensors", folder / "run.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    code, _, err = call("evaluate", folder)
    assert code == 1
    assert err.startswith(f"error: {weights} is damaged")
    assert err.count("\n") == 1
    weights.unlink()
    code, _, err = call("evaluate", folder)
    assert (code, err) == (1, f"error: {folder} holds no weights to evaluate\n")
    content = record.read_text()
    for text in (content[:-20], "[]", "{}"):
        record.write_text(text)
        code, _, err = call("evaluate", folder)
        assert code == 1
        assert err.startswith(f"error: {record} is damaged")
        assert err.count("\n") == 1
    info = json.loads(content)
    for change, words in (
        ({"experiment": "neural_ode/table9"}, "does not have"),
        ({"cell": "gone"}, "another version"),
    ):
        record.write_text(json.dumps(info | change))
        code, _, err = call("evaluate", folder)
        assert code == 1
        assert words in err
        assert err.count("\n") == 1


def test_a_run_of_a_newer_version_and_foreign_weights_are_one_line(call):
    call(*MLP)
    (folder,) = folders()
    record, weights = folder / "run.json", folder / "model.safetensors"
    content = json.loads(record.read_text())
    newer = content | {"config": content["config"] | {"dropout": 0.1}}
    record.write_text(json.dumps(newer))
    code, _, err = call("evaluate", folder)
    assert code == 1
    assert err.startswith(f"error: {folder} was made by another version of neural_ode/table1_mnist: ")
    assert "dropout" in err
    assert err.count("\n") == 1
    record.write_text(json.dumps(content))
    tensors, values = load_tensors(weights)
    tensors["0.weight"] = tensors.pop(next(iter(tensors))).flatten()
    save_tensors(weights, tensors, values)
    code, _, err = call("evaluate", folder)
    assert code == 1
    assert err.startswith("error: weights must be those of the settings' Sequential; ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("factor", [math.nan, 1e20])
def test_weights_whose_flow_cannot_be_solved_are_one_line(call, factor):
    small = ["--iterations", "2", "--test-points", "20", "--side", "4", "--film-frames", "2"]
    assert call("run", "ffjord/fig2_toy2d", "8gaussians", *small, "--publish")[0] == 0
    (folder,) = folders("runs")
    alter(folder, factor)
    code, _, err = call("evaluate", folder)
    assert code == 1
    assert ": the flow of these weights cannot be solved: " in err
    assert err.count("\n") == 1
    code, _, err = call("evaluate", "--all")
    assert code == 1
    assert err.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either one run's folder or --all"),
        (["somewhere", "--all"], "either one run's folder or --all"),
        (["somewhere", "--cheap"], "--cheap needs --all"),
        (["--all", "--jobs", "0"], "argument --jobs: must be between 1 and 2147483647; got 0"),
    ],
)
def test_wrong_usage_is_refused(call, words, message):
    code, _, err = call("evaluate", *words)
    assert code == 2
    assert message in err


# --- all runs --------------------------------------------------------------------------------------------------------


def test_all_published_runs_are_recomputed_and_local_ones_are_not(call):
    for words in ([*MLP, "--publish"], [*PLANAR, "--publish"], [*MLP, "--seed", "1"]):
        assert call(*words)[0] == 0
    code, out, err = call("evaluate", "--all", "--json")
    assert code == 0
    lines = json.loads(out)
    assert set(lines[0]) == {"run", "metric", "published", "recomputed", "difference", "tolerance", "ok"}
    assert {line["run"] for line in lines} == {
        f.relative_to(results_root() / "runs").as_posix() for f in folders("runs")
    }
    assert {line["metric"] for line in lines} == {
        *("test_images", "test_errors", "test_error", "test_nll"),
        *("kl", "kl_error", "log_normaliser"),
    }
    assert all(line["ok"] and line["difference"] == 0 for line in lines)
    assert "4 of 4 numbers agree" in err
    assert (
        call("evaluate", "--all")[1].splitlines()[-1] == "7 of 7 published numbers of 2 runs agree with their weights"
    )


def test_altered_and_damaged_weights_fail_and_the_others_are_still_recomputed(call):
    for seed in (0, 1, 2):
        assert call(*MLP, "--seed", seed, "--publish")[0] == 0
    altered, damaged, whole = folders("runs")
    alter(altered, 0.5)
    (damaged / "model.safetensors").write_bytes(b"")
    code, out, err = call("evaluate", "--all", "--json")
    assert code == 1
    by_run = {folder: [line for line in json.loads(out) if line["run"].endswith(folder.name)]
              for folder in (altered, damaged, whole)}  # fmt: skip
    assert "test_nll" in {line["metric"] for line in by_run[altered] if not line["ok"]}
    assert by_run[damaged] == []
    assert all(line["ok"] for line in by_run[whole])
    assert next(line for line in err.splitlines() if line.startswith("error: ")).endswith(
        "run its cell again with --force"
    )
    code, out, _ = call("evaluate", "--all")
    assert code == 1
    assert f"{altered.relative_to(results_root() / 'runs')} test_nll: " in out


def test_several_processes_give_the_same_json(call, cli):
    for words in ([*MLP, "--publish"], [*PLANAR, "--publish"]):
        assert call(*words)[0] == 0
    code, out, _ = call("evaluate", "--all", "--json")
    two = cli("evaluate", "--all", "--json", "--jobs", 2)
    assert (code, two.returncode) == (0, 0)
    assert out == two.stdout


def test_cheap_takes_the_first_seed_of_each_cell_up_to_its_last_metric(call):
    for seed in (2, 1):
        assert call(*MLP, "--seed", seed, "--publish")[0] == 0
    narrow = ["--data", "miniboone_partial", "--multiplier", "1", "--iterations", "2", "--test-rows", "20"]
    assert call("run", "ffjord/table2_tabular", "power_fm", *narrow, "--check-rows", "10", "--publish")[0] == 0
    assert call("run", "neural_ode/table1_mnist", "no_block", *SMALL, "--publish")[0] == 0
    code, out, _ = call("evaluate", "--all", "--cheap", "--json")
    assert code == 0
    lines = json.loads(out)
    assert {line["run"].split("/")[2].partition("-")[0] for line in lines} == {"mlp", "power_fm"}
    assert all(line["run"].endswith("seed1") for line in lines if "mlp" in line["run"])
    assert [line["metric"] for line in lines if "power_fm" in line["run"]] == ["tolerance_nll"]


def test_nothing_to_recompute_is_no_agreement(call):
    code, _, err = call("evaluate", "--all")
    assert (code, err) == (1, "error: no published run has weights to evaluate\n")
    call(*PLANAR, "--publish")
    (folder,) = folders("runs")
    write_rows(folder / "rows.csv", [])
    code, out, err = call("evaluate", "--all", "--json")
    assert (code, json.loads(out)) == (1, [])
    assert "none of the recomputed numbers is recorded" in err


@pytest.mark.parametrize("name", CHEAP)
def test_cheap_cells_exist(name):
    subset, experiment = CHEAP[name], EXPERIMENTS[name]
    assert experiment.evaluate is not None
    for pattern in subset.cells:
        assert fnmatch.filter(experiment.chosen(None, "small"), pattern), pattern


def test_numbers_that_are_not_finite_are_null_in_json(call):
    call(*MLP, "--publish")
    (folder,) = folders("runs")
    alter(folder, math.nan)
    out = call("evaluate", "--all", "--json")[1]
    (line,) = (line for line in json.loads(out) if line["metric"] == "test_nll")
    assert (line["recomputed"], line["difference"], line["ok"]) == (None, None, False)


# --- tolerances ------------------------------------------------------------------------------------------------------


def agrees(metric, unit, published, recomputed, n=10_000.0):
    recorded = {metric: Row(metric, published, unit), "test_images": Row("test_images", n, "images")}
    (comparison,) = compare_rows("run", recorded, [Row(metric, recomputed, unit)])
    assert comparison.difference == recomputed - published or not math.isfinite(comparison.difference)
    return comparison.ok


@pytest.mark.parametrize(
    ("metric", "unit", "published", "near", "far"),
    [
        ("test_nll", "nats", 1.0, 1.00009, 1.00011),
        ("kl", "nats", -1.0, -1.00009, -1.00011),
        ("tolerance_nll_tight", "nats, the same rows, float64, a tenth of the tolerance", 1.0, 1.00009, 1.00011),
        ("value_drift", "nats", 0.0, 9e-5, -1.1e-4),
        ("test_errors", "images", 60.0, 58.0, 63.0),
        ("test_error", "%", 0.60, 0.62, 0.63),
        ("test_error_tight", "% at a tenth of the tolerance", 0.63, 0.61, 0.60),
        ("nfe_test", "evaluations", 32.0, 44.0, 50.0),
        ("nfe_test", "evaluations", 1061.5, 1042.0, 1083.0),
        ("nfe_there", "evaluations, data to base, without density", 56.0, 44.0, 43.0),
        ("rmse", "of the positions", 2.0, 2.00001, 2.00003),
        ("reversibility_error", "largest distance", 2e-4, 1.9e-3, 2.1e-3),
        ("reconstruction_error", "relative, 1000 points", 2e-4, 2.1e-5, 1.9e-5),
        ("reconstruction_error_p99", "relative, 1000 points", 2e-4, 2.1e-5, 1.9e-5),
        ("integral", "probability in 2 times the window", 1.0, 1.000009, 1.00002),
    ],
)
def test_numbers_near_rounding_agree_and_others_do_not(metric, unit, published, near, far):
    assert agrees(metric, unit, published, published)
    assert agrees(metric, unit, published, near)
    assert not agrees(metric, unit, published, far)
    assert not agrees(metric, unit, published, math.nan)
    assert not agrees(metric, unit, published, math.inf)


@pytest.mark.parametrize(("metric", "unit"), [("test_images", "images"), ("test_rows", "rows"), ("other", "furlongs")])
def test_what_no_rounding_moves_must_be_equal(metric, unit):
    recorded = {metric: Row(metric, 100.0, unit)}
    assert [c.ok for c in compare_rows("run", recorded, [Row(metric, 100.0, unit), Row(metric, 101.0, unit)])] == [
        True,
        False,
    ]


def test_percentages_follow_from_the_number_of_images():
    assert agrees("test_error", "%", 10.0, 12.0, n=100.0)
    assert not agrees("test_error", "%", 10.0, 13.0, n=100.0)


def test_two_failed_reconstructions_agree():
    assert agrees("reconstruction_error", "relative, 1000 points", math.inf, math.inf)
    assert not agrees("reconstruction_error", "relative, 1000 points", math.inf, 1.0)


def test_the_unit_decides_unless_the_metric_does():
    assert tolerance_of(Row("any", 1.0, "nats")) == tolerance_of(Row("other", 1.0, "nats, float64"))
    assert tolerance_of(Row("reversibility_error", 1.0, "nats")).factor == 10


def test_evaluation_leaves_no_per_point_file_behind(call):
    call(*PLANAR)
    (folder,) = folders()
    (folder / PER_POINT).unlink()
    assert call("evaluate", folder)[0] == 0
    assert not (folder / PER_POINT).exists()
