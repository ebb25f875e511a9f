"""Runs of schema 1 get the rows, files and hashes that a run of today has; recorded lines stay as they are."""

import json
import math
import shutil

import pytest

from repro import migration
from repro.checkpoint import load_tensors, save_tensors
from repro.integrity import hash_files, verify_files
from repro.migration import NEW_METRICS
from repro.per_point import PER_POINT
from repro.results import read_rows, results_root

NAMES = {
    "table1": "neural_ode/table1_mnist",
    "fig4": "neural_ode/fig4_nf_vs_cnf",
    "fig5": "neural_ode/fig5_noise_to_data",
    "fig1": "ffjord/fig1_density1d",
    "fig2": "ffjord/fig2_toy2d",
    "table2": "ffjord/table2_tabular",
}
TOY = ["--iterations", "2", "--test-points", "40"]
CELLS = [
    ("table1", "odenet", ["--epochs", "1", "--train-limit", "128", "--evaluation-limit", "4"]),
    ("table1", "mlp", ["--epochs", "1", "--train-limit", "128", "--evaluation-limit", "50"]),
    ("fig4", "u1_cnf_2", [*TOY, "--side", "4"]),
    ("fig4", "u1_nf_2", [*TOY, "--side", "4"]),
    ("fig5", "moons_cnf", [*TOY, "--side", "4", "--film-frames", "2"]),
    ("fig1", "mixture_1d", [*TOY, "--times", "2"]),
    ("fig2", "moons", [*TOY, "--side", "4", "--film-frames", "2"]),
    ("fig2", "8gaussians_glow", [*TOY, "--side", "4", "--depth", "2"]),
    (
        "table2",
        "power_fm",
        ["--data", "miniboone_partial", "--multiplier", "1", "--iterations", "2", "--test-rows", "30"],
    ),
]
MLP = CELLS[1]


def publish(call, kind, cell, settings):
    """A published run of today, and the same as it was before schema 2."""
    assert call("run", NAMES[kind], cell, *settings, "--publish")[0] == 0
    (folder,) = (path.parent for path in results_root().glob(f"runs/{NAMES[kind]}/{cell}-*/*/run.json"))
    today = folder.with_name(f".{folder.name}.today")
    shutil.copytree(folder, today)
    (folder / PER_POINT).unlink()
    lines = (folder / "rows.csv").read_text().splitlines(keepends=True)
    (folder / "rows.csv").write_text("".join(line for line in lines if line.split(",")[0] not in NEW_METRICS))
    record = json.loads((folder / "run.json").read_text())
    record = {key: value for key, value in record.items() if key != "files"} | {"schema": 1}
    (folder / "run.json").write_text(json.dumps(record, indent=2) + "\n")
    return folder, today


def migrate(capsys, *words):
    code = migration.main(["--allow-dirty", *map(str, words)])
    return code, *capsys.readouterr()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("kind", "cell", "settings"), CELLS, ids=[cell for _, cell, _ in CELLS])
def test_a_migrated_run_holds_what_a_run_of_today_holds(call, capsys, kind, cell, settings):
    folder, today = publish(call, kind, cell, settings)
    before = contents(folder)
    code, out, _ = migrate(capsys)
    assert code == 0, out
    after = contents(folder)
    assert after["rows.csv"].startswith(before["rows.csv"])
    assert after[PER_POINT] == (today / PER_POINT).read_bytes()
    expected = {row.metric: row for row in read_rows(today / "rows.csv") if row.metric in NEW_METRICS}
    added = {row.metric: row for row in read_rows(folder / "rows.csv") if row.metric in NEW_METRICS}
    assert added == expected
    assert (added == {}) == (cell in ("mlp", "u1_nf_2", "8gaussians_glow"))
    old, new = json.loads(before["run.json"]), json.loads(after["run.json"])
    assert new["schema"] == 2
    assert new["files"] == hash_files(folder)
    assert verify_files(folder, new) == []
    assert set(new["migrated"]) == {"commit", "dirty", "machine", "date", "threads", "rows"}
    assert new["migrated"]["rows"] == [metric for metric in NEW_METRICS if metric in added]
    assert {key: new[key] for key in old if key != "schema"} == {key: old[key] for key in old if key != "schema"}
    assert list(new)[: len(old)] == list(old)
    assert call("evaluate", folder)[0] == 0


def test_a_migrated_run_is_skipped_and_a_killed_one_is_finished(call, capsys):
    folder, _ = publish(call, *CELLS[2])
    before = contents(folder)
    assert "1 migrated, 0 skipped, 0 failed" in migrate(capsys)[1]
    after = contents(folder)
    assert "0 migrated, 1 skipped, 0 failed" in migrate(capsys)[1]
    assert contents(folder) == after
    (folder / "run.json").write_bytes(before["run.json"])  # killed between rows.csv and run.json
    assert "1 migrated, 0 skipped, 0 failed" in migrate(capsys)[1]
    again = contents(folder)
    assert {name: data for name, data in again.items() if name != "run.json"} == {
        name: data for name, data in after.items() if name != "run.json"
    }


def test_runs_without_weights_get_hashes_only(call, capsys):
    folder, _ = publish(call, *MLP)
    (folder / "model.safetensors").unlink()
    before = contents(folder)
    assert migrate(capsys)[0] == 0
    after = contents(folder)
    assert after.keys() == before.keys()
    assert after["rows.csv"] == before["rows.csv"]
    assert json.loads(after["run.json"])["migrated"]["rows"] == []
    assert set(json.loads(after["run.json"])["files"]) == {"rows.csv"}


@pytest.mark.parametrize("factor", [0.5, math.nan])
def test_weights_that_do_not_give_the_recorded_numbers_fail_and_change_nothing(call, capsys, factor):
    folder, _ = publish(call, *MLP)
    tensors, values = load_tensors(folder / "model.safetensors")
    save_tensors(folder / "model.safetensors", {name: factor * tensor for name, tensor in tensors.items()}, values)
    before = contents(folder)
    code, out, _ = migrate(capsys)
    assert code == 1
    assert "the weights do not give the recorded numbers: " in out
    assert "test_nll is " in out
    assert contents(folder) == before


def test_a_damaged_run_does_not_stop_the_others(call, capsys):
    folder, _ = publish(call, *MLP)
    broken = folder.with_name(f"{folder.name}1")
    shutil.copytree(folder, broken)
    (broken / "run.json").write_text("{")
    before = contents(broken)
    code, out, _ = migrate(capsys)
    assert code == 0
    assert "1 migrated, 0 skipped, 0 failed" in out, "a run without a readable record counts as none"
    assert contents(broken) == before


def test_a_checkout_with_changes_is_refused(monkeypatch, capsys):
    for state, words in (({"commit": "c", "dirty": True}, "has changes"), ({"commit": None, "dirty": None}, "no git")):
        monkeypatch.setattr(migration, "git_state", lambda state=state: state)
        assert migration.main([]) == 1
        assert words in capsys.readouterr().err
    monkeypatch.setattr(migration, "git_state", lambda: {"commit": "c", "dirty": False})
    assert migration.main([]) == 0


def test_local_runs_are_another_source(call, capsys):
    assert call("run", NAMES["table1"], "mlp", *MLP[2])[0] == 0
    (record,) = results_root().glob("local/*/*/*/*/run.json")
    info = json.loads(record.read_text())
    record.write_text(json.dumps({key: value for key, value in info.items() if key != "files"} | {"schema": 1}))
    assert "0 migrated" in migrate(capsys)[1]
    assert "1 migrated" in migrate(capsys, "--source", "local")[1]
