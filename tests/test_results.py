"""Run records: numbers keep every bit, and tables are tidy."""

import json
import math
import os
import struct
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from repro import results
from repro.results import COLUMNS, Row, load, read_rows, write_rows

ODD = [
    0.1,
    -0.0,
    5e-324,
    2.2250738585072014e-308,
    1.7976931348623157e308,
    1 / 3,
    math.inf,
    -math.inf,
    2**53 + 1,
    -1e-300,
]


def bits(value):
    return struct.pack("<d", value)


def random_floats(n):
    """Any 64 bits that are no NaN."""
    raw = np.random.default_rng(0).integers(0, 2**64, n, dtype=np.uint64).view(np.float64)
    return raw[~np.isnan(raw)].tolist()


def test_rows_come_back_bit_for_bit(tmp_path):
    values = [*ODD, *random_floats(2000)]
    rows = [Row(f"m{i % 7}", value, "s, or, 'so'", None if i % 3 else i) for i, value in enumerate(values)]
    write_rows(tmp_path / "rows.csv", rows)
    back = read_rows(tmp_path / "rows.csv")
    assert [bits(row.value) for row in back] == [bits(value) for value in values]
    assert [(row.metric, row.unit, row.step) for row in back] == [(row.metric, row.unit, row.step) for row in rows]


def test_nan_and_step_zero_come_back(tmp_path):
    write_rows(tmp_path / "rows.csv", [Row("a", math.nan, "%", 0), Row("a", torch.tensor(1.5).item(), "%")])
    first, second = read_rows(tmp_path / "rows.csv")
    assert math.isnan(first.value)
    assert first.step == 0
    assert second == Row("a", 1.5, "%", None)


@pytest.mark.parametrize("text", ["", "metric,value\n", "metric,value,step,unit\na,1,2,%\n"])
def test_another_header_is_refused_by_name(tmp_path, text):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"rows\.csv: expected the header metric,value,unit,step"):
        read_rows(path)


def make_run(root, name, rows, **info):
    folder = root / name
    folder.mkdir(parents=True)
    write_rows(folder / "rows.csv", rows)
    keys = {
        "experiment": "a/b",
        "cell": "c",
        "tier": "smoke",
        "seed": 0,
        "machine": "m",
        "threads": 1,
        "digest": "d",
        "status": "ok",
    }
    (folder / "run.json").write_text(json.dumps(keys | info))


def test_load_is_one_tidy_line_per_row(tmp_path):
    local, runs = tmp_path / "local", tmp_path / "runs"
    make_run(local, "a/b/c-d/m-seed0", [Row("x", 1.0, "s", 3), Row("y", 2.0, "%")])
    make_run(runs, "a/b/c-d/m-seed1", [Row("y", 3.0, "%")], seed=1, status="diverged")
    table = load(runs, local)
    context = ["experiment", "cell", "tier", "seed", "machine", "threads", "digest", "status", "source", "run"]
    assert list(table.columns) == list(load(tmp_path / "none").columns) == [*context, *COLUMNS]
    assert table["source"].tolist() == ["runs", "local", "local"]
    assert table["run"].tolist() == ["a/b/c-d/m-seed1", "a/b/c-d/m-seed0", "a/b/c-d/m-seed0"]
    assert table["status"].tolist() == ["diverged", "ok", "ok"]
    assert table["value"].tolist() == [3.0, 1.0, 2.0]
    assert table["step"].isna().tolist() == [True, False, True]
    assert table["step"].dtype == np.float64, "final rows alone must not turn the column into objects"


def test_a_run_without_rows_still_counts_as_a_run(tmp_path):
    make_run(tmp_path, "a/b/c-d/m-seed0", [], status="diverged")
    table = load(tmp_path)
    assert table["status"].tolist() == ["diverged"]
    assert table["metric"].tolist() == ["none"]


@pytest.mark.parametrize("leftover", [".m-seed0.partial", ".m-seed0.old"])
def test_what_a_killed_process_left_half_moved_is_no_run(tmp_path, leftover):
    make_run(tmp_path, f"a/b/c-d/{leftover}", [Row("y", 1.0, "%")])
    assert load(tmp_path).empty


UNREADABLE = {"empty": b"", "cut": b'{"status": "o', "not UTF-8": b'{"a": "\xff"}', "keys missing": b'{"status": "ok"}'}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_a_run_without_a_readable_record_counts_as_none_and_is_named_once(content, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REPRO_RESULTS", str(tmp_path))
    runs = tmp_path / "runs"
    for seed in (0, 1):
        make_run(runs, f"a/b/c-d/m-seed{seed}", [Row("y", 1.0, "%")], seed=seed)
        (runs / f"a/b/c-d/m-seed{seed}" / "model.safetensors").write_bytes(b"")
    damaged = runs / "a/b/c-d/m-seed0"
    (damaged / "run.json").write_bytes(content)
    assert load(runs)["seed"].tolist() == [1]
    assert [folder.name for folder in results.run_folders(runs)] == ["m-seed1"]
    assert [folder.name for folder, _ in results.read_runs(runs)] == ["m-seed1"]
    assert list(results.weights_of("runs", "a/b", "c", "d", 0)) == []
    assert [info["seed"] for _, info in results.weights_of("runs", "a/b", "c", "d", 1)] == [1]
    assert results.read_record(damaged) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {damaged / 'run.json'} cannot be read (")


def test_a_folder_without_a_record_is_no_run_and_no_warning(tmp_path, capsys):
    assert results.read_record(tmp_path) is None
    assert results.read_record(tmp_path / "none") is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"metric,value,unit,step\nx,one,s,\n", b"\xff\x00", None])
def test_a_run_without_readable_rows_counts_as_none(content, tmp_path, capsys):
    make_run(tmp_path, "a/b/c-d/m-seed0", [Row("y", 1.0, "%")])
    make_run(tmp_path, "a/b/c-d/m-seed1", [Row("y", 1.0, "%")], seed=1)
    rows = tmp_path / "a/b/c-d/m-seed0" / "rows.csv"
    if content is None:
        rows.unlink()
    else:
        rows.write_bytes(content)
    assert load(tmp_path)["seed"].tolist() == [1]
    (line,) = capsys.readouterr().err.splitlines()
    assert str(rows) in line


def test_records_are_utf_8_whatever_the_locale(tmp_path):
    """Written and read in a process that has the C locale and no UTF-8 mode."""
    code = (
        "import sys; from pathlib import Path; from repro.results import *; folder = Path(sys.argv[1])\n"
        "write_rows(folder / 'rows.csv', [Row('\\u03ba', 1.0, '\\u00b5s')])\n"
        "write_json(folder / 'run.json', {'a': '\\u00b1'})\n"
        "assert read_rows(folder / 'rows.csv') == [Row('\\u03ba', 1.0, '\\u00b5s')]\n"
    )
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    assert (tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()[1] == "\u03ba,1.0,\u00b5s,"


def test_final_values_and_curves_take_successful_runs_only(tmp_path):
    for seed, value, status in ((1, 4.0, "ok"), (0, 2.0, "ok"), (2, 9.0, "diverged")):
        rows = [Row("e", value, "%", 1), Row("e", value / 2, "%", 2), Row("e", value, "%")]
        make_run(tmp_path, f"a/b/c-d/m-seed{seed}", rows, seed=seed, status=status)
    table = load(tmp_path)
    assert results.final_values(table, "a/b", "c", "e") == [2.0, 4.0]
    assert results.curve(table, "a/b", "c")["e"].to_dict() == {1.0: 3.0, 2.0: 1.5}
    assert results.curve(table, "a/b", "other").empty


def test_results_root_is_the_checkouts_or_the_current_folders(monkeypatch, tmp_path):
    checkout = tmp_path / "checkout"
    (checkout / "results").mkdir(parents=True)
    (checkout / "results" / "published.csv").write_text("x\n")
    monkeypatch.setattr(results, "__file__", str(checkout / "repro" / "results.py"))
    assert results.results_root() == tmp_path / "results"  # $REPRO_RESULTS
    monkeypatch.delenv("REPRO_RESULTS")
    assert results.results_root() == checkout / "results"
    (checkout / "results" / "published.csv").unlink()
    monkeypatch.chdir(tmp_path)
    assert results.results_root() == tmp_path / "results"


def final(*lines):
    """Final rows of an experiment e, from (cell, seed, value)."""
    frame = pd.DataFrame(lines, columns=["cell", "seed", "value"]).astype({"value": float})
    return frame.assign(experiment="e", metric="m", status="ok", machine="m", step=math.nan)


def test_tables_print_a_mean_and_the_seeds_deviation_only_where_they_differ():
    rows = final(("one", 0, 1234.5), ("same", 0, 2), ("same", 1, 2), ("two", 0, 1), ("two", 1, 3))
    printed = {cell: results.mean_text(rows, "e", cell, "m", 1) for cell in ("one", "same", "two", "none")}
    assert printed == {"one": "1,234.5", "same": "2.0", "two": "2.0 ± 1.4", "none": "-"}
    assert results.largest_text(rows, "e", "two", "m") == "3.0e+00"
    assert results.largest_text(rows, "e", "none", "m") == "-"


def test_a_pair_is_compared_over_the_seeds_that_both_cells_have():
    rows = final(("a", 0, 1), ("a", 1, 3), ("a", 2, 100), ("b", 1, 5), ("b", 0, 4), ("c", 7, 1))
    assert results.seed_values(rows, "e", "b", "m") == {0: 4.0, 1: 5.0}
    assert results.mean_pair(rows, "e", "a", "b", "m") == (2.0, 4.5)
    assert results.mean_pair(rows, "e", "a", "c", "m") is None


def test_failed_runs_are_counted_once_each_by_how_they_ended():
    status = ["ok", "diverged", "diverged", "budget", "diverged"]
    rows = pd.DataFrame({"run": ["r0", "r1", "r1", "r2", "r3"], "status": status})
    assert results.failures(rows) == "2 diverged; 1 budget"
    assert results.outcomes(rows, "seeds") == "1 of 4 seeds; 2 diverged; 1 budget"
    assert results.failures(rows[:1]) == ""
