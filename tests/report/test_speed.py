"""The table of speeds is read from pytest-benchmark's files and holds nothing else."""

import json

from repro.report.benchmarks import OVERHEAD
from repro.report.speed import COLUMNS, speeds


def entry(ratio=None, **settings):
    extra = {} if ratio is None else {"ratio": ratio, "other_median": 0.5, "nfe_forward": 68, "nfe_backward": "n/a"}
    return {
        "name": "test_step[x]",
        "group": "a step",
        "params": settings or None,
        "extra_info": extra,
        "stats": {"median": 0.1234, "iqr": 0.02},
    }


def write(folder, *entries):
    folder.mkdir(parents=True)
    (folder / "flows.json").write_text(json.dumps({"benchmarks": entries}))


def test_only_paired_benchmarks_are_lines(tmp_path):
    write(
        tmp_path / "machine",
        entry(),
        entry(4.0, name="toy", engine="compiled", gradient="checkpoint"),
        entry(2.0),
        entry(3.0, name="wide"),
    )
    table = speeds(tmp_path)
    assert tuple(table.columns) == tuple(name for name in COLUMNS if name != OVERHEAD)
    assert table["work"].tolist() == ["toy", "a step", "a step: wide"]
    assert table["ours"].tolist() == ["compiled checkpoint", "", ""]
    assert table["time"].tolist() == ["123 ± 10 ms"] * 3
    assert table["the other way"].tolist() == ["500 ms"] * 3
    assert table["speed-up"].tolist() == ["4.00", "2.00", "3.00"]
    assert table["NFE forward / backward"].tolist() == ["68 / n/a"] * 3
    assert table["gradient error"].tolist() == [""] * 3


def test_errors_stand_beside_those_of_the_other(tmp_path):
    line = entry(4.0)
    line["extra_info"] |= {
        "gradient_error_ours": 1e-4,
        "gradient_error_torchdiffeq_adjoint": 2e-4,
        "gradient_error_torchdiffeq_backprop": 3e-4,
    }
    write(tmp_path / "machine", line)
    assert speeds(tmp_path)["gradient error"].tolist() == ["1.0e-04"]
    assert speeds(tmp_path)["torchdiffeq's: adjoint, backprop"].tolist() == ["2.0e-04, 3.0e-04"]


def test_overhead_is_shown_where_it_was_measured(tmp_path):
    line = entry(4.0)
    line["extra_info"] |= {"batch_doubling": 1.1, "overhead_bound": True}
    write(tmp_path / "machine", line, entry(2.0))
    assert speeds(tmp_path)[OVERHEAD].tolist() == ["yes (1.10)", ""]


def test_no_file_is_an_empty_table(tmp_path):
    assert speeds(tmp_path).empty
