"""Two sets of benchmarks or runs: a seeded regression is found, noise is not, and nothing is said of two machines."""

import copy
import json
import math
from pathlib import Path

import pandas as pd
import pytest

from repro.report.compare import COLUMNS, Limits, compare, join, warnings
from repro.report.measured import CompareError, load_pair
from repro.results import Row, write_rows

HOUSE = Path(__file__).parents[2]
MACHINE = {"machine": "epyc", "cpu": "EPYC", "gpu": None, "threads": 2}
INFO = {"experiment": "neural_ode/table1", "cell": "mlp", "tier": "small", "seed": 0, "digest": "d1", "status": "ok"}
ROWS = {"test_nll": 0.5, "nfe_test": 40.0, "parameters": 100.0}


def a_benchmark(name, median=1.0, spread=0.1, **extra):
    stats = {"median": median, "iqr": spread, "q1": median - spread / 2, "q3": median + spread / 2}
    return {"fullname": name, "extra_info": extra, "stats": stats}


SOLVE = a_benchmark(
    "solve", nfe_forward=44, nfe_backward="n/a", saved_bytes_8=1000, gradient_error_ours=1e-4, ratio=2.0
)


def write(path, *benchmarks, **machine):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine_info": {"suite": MACHINE | machine}, "benchmarks": list(benchmarks)}
    path.write_text(json.dumps(content))
    return path


def write_run(folder, rows=None, info=None):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"schema": 1} | MACHINE | INFO | (info or {})))
    curve = [Row("loss", 3.0, "nats", 10)]
    write_rows(folder / "rows.csv", [*curve, *(Row(*row) for row in (rows or [(k, v, "") for k, v in ROWS.items()]))])
    return folder


def changes(a, b, **limits):
    """Figure -> (verdict, outcome) of what changed, and the warnings."""
    pairs = join(*load_pair(a, b))
    lines = compare(pairs, Limits(**limits))
    assert tuple(lines.columns) == COLUMNS
    changed = lines[lines["outcome"] != "same"]
    keys = [figure or entry for entry, figure in zip(changed["entry"], changed["figure"], strict=True)]
    found = dict(zip(keys, zip(changed["verdict"], changed["outcome"], strict=True), strict=True))
    return found, warnings(pairs)


@pytest.fixture
def altered(tmp_path):
    """What changes where one benchmark's extra_info or stats are altered."""

    def altered(extra=(), stats=(), machine=(), **limits):
        other = copy.deepcopy(SOLVE)
        other["extra_info"] |= dict(extra)
        other["stats"] |= dict(stats)
        return changes(write(tmp_path / "a.json", SOLVE), write(tmp_path / "b.json", other, **dict(machine)), **limits)

    return altered


# --- benchmarks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "verdict"),
    [
        ({"nfe_forward": 45}, ("more evaluations", "worse")),
        ({"nfe_forward": 43}, ("fewer evaluations", "better")),
        ({"saved_bytes_8": 1001}, ("more saved bytes", "worse")),
        ({"saved_bytes_8": 999}, ("fewer saved bytes", "better")),
        ({"nfe_backward": 38}, ("differs", "worse")),
        ({"n_rejected": 3}, ("only in B", "new")),
        ({"gradient_error_ours": 2.5e-4}, ("larger error", "worse")),
        ({"gradient_error_ours": 0.4e-4}, ("smaller error", "better")),
        ({"gradient_error_ours": math.nan}, ("differs", "worse")),
    ],
)
def test_a_deterministic_figure_changes(altered, extra, verdict):
    assert altered(extra) == ({next(iter(extra)): verdict}, [])


@pytest.mark.parametrize(
    "extra", [{}, {"gradient_error_ours": 1.9e-4}, {"ratio": 9.0, "seconds_at_equal_error": 1.0, "first_call": 3.0}]
)
def test_rounding_and_what_was_taken_once_are_no_change(altered, extra):
    assert altered(extra) == ({}, [])


def test_a_tolerance_lets_counts_pass(altered):
    assert altered({"nfe_forward": 45}, count_tolerance=0.03) == ({}, [])
    assert altered({"nfe_forward": 46}, count_tolerance=0.03)[0] == {"nfe_forward": ("more evaluations", "worse")}


@pytest.mark.parametrize(
    ("median", "q1", "q3", "found"),
    [
        (2.0, 1.9, 2.1, {"median time": ("slower", "worse")}),
        (0.5, 0.45, 0.55, {"median time": ("faster", "better")}),
        (1.3, 1.0, 1.6, {}),  # beyond the factor, but the quartiles overlap
        (1.2, 1.19, 1.21, {}),  # the quartiles are apart, but within the factor
    ],
)
def test_a_time_changes_beyond_factor_and_quartiles(altered, median, q1, q3, found):
    stats = {"median": median, "q1": q1, "q3": q3}
    assert altered(stats=stats) == (found, [])
    lines = altered(stats=stats, extra={"nfe_forward": 45}, machine={"threads": 1, "gpu": "H100"})
    unjudged = {figure: (f"{verdict}, another machine", "unjudged") for figure, (verdict, _) in found.items()}
    assert lines[0] == unjudged | {"nfe_forward": ("more evaluations", "worse")}  # counts are judged everywhere
    assert lines[1] == ["the machines differ (gpu: none and H100; threads: 2 and 1): times are shown, not judged"]


def test_processors_of_one_name_and_unrecorded_machines_are_not_the_same(tmp_path):
    a, b = (write(tmp_path / f"{name}.json", SOLVE) for name in "ab")
    for path, model in ((a, 17), (b, 2)):
        content = json.loads(path.read_text())
        content["machine_info"]["cpu"] = {"brand_raw": "EPYC", "family": 25, "model": model}
        path.write_text(json.dumps(content))
    assert "cpu: EPYC, family 25, model 17 and EPYC, family 25, model 2" in changes(a, b)[1][0]
    for path in (a, b):
        path.write_text(json.dumps({"benchmarks": [SOLVE]}))
    assert "not recorded" in changes(a, b)[1][0]


def test_an_entry_that_is_missing_or_new(tmp_path):
    a = write(tmp_path / "a.json", SOLVE, a_benchmark("old"))
    b = write(tmp_path / "b.json", SOLVE, a_benchmark("new"))
    assert changes(a, b)[0] == {"old": ("only in A", "worse"), "new": ("only in B", "new")}


def test_what_is_not_possible_any_more_has_no_time(tmp_path):
    a = write(tmp_path / "a.json", a_benchmark("solve", status="ok", nfe_forward=3))
    b = write(tmp_path / "b.json", a_benchmark("solve", median=9.0, status="not possible: no such operator"))
    assert changes(a, b)[0] == {"status": ("no longer ok", "worse")}
    assert changes(b, a)[0] == {"status": ("ok now", "better")}
    c = write(tmp_path / "c.json", a_benchmark("solve", median=1.0, status="not possible: out of memory"))
    assert changes(b, c)[0] == {"status": ("differs", "worse")}


def test_folders_are_joined_across_files_and_machines(tmp_path):
    for side, nfe in (("a", 44), ("b", 45)):
        write(tmp_path / side / "epyc" / f"of_{side}.json", a_benchmark("one"), a_benchmark("solve", nfe_forward=44))
        write(tmp_path / side / "h100" / "x.json", a_benchmark("solve", nfe_forward=nfe), machine="h100", gpu="H100")
        (tmp_path / side / "other.json").write_text('{"what": "no benchmark"}')
    pairs = join(*load_pair(tmp_path / "a", tmp_path / "b"))
    assert [pair.name for pair in pairs] == ["one", "solve on epyc", "solve on h100"]
    worse = compare(pairs, Limits()).query("outcome == 'worse'")
    assert worse[["entry", "figure", "a", "b", "change"]].values.tolist() == [
        ["solve on h100", "nfe_forward", 44, 45, 1]
    ]
    assert warnings(pairs) == []


# --- runs ------------------------------------------------------------------------------------------------------------


def runs(tmp_path, side, rows=None, info=None, name="x"):
    return write_run(tmp_path / side / "neural_ode" / "table1" / "mlp-d1" / f"epyc-{name}", rows, info).parents[3]


@pytest.mark.parametrize(
    ("metric", "before", "after", "unit", "verdict"),
    [
        ("test_nll", 0.5, 0.501, "nats", ("worse", "worse")),
        ("test_nll", -0.5, -0.501, "nats", ("better", "better")),
        ("test_nll", 0.5, 0.5004, "nats", None),
        ("test_nll", 0.5, math.inf, "nats", ("worse", "worse")),
        ("test_nll", 0.5, math.nan, "nats", ("differs", "worse")),
        ("test_nll", math.nan, math.nan, "nats", None),
        ("test_nll_error", 0.0, 1e-9, "nats", ("worse", "worse")),
        ("nll_floor", 0.5, 0.4, "nats", ("differs", "worse")),  # the data's own: there is no better
        ("parameters", 100.0, 101.0, "", ("differs", "worse")),
        ("wall_time", 10.0, 12.0, "s", None),
        ("wall_time", 10.0, 13.0, "s", ("slower", "worse")),
        ("peak_memory", 1e8, 0.5e8, "bytes", ("less memory", "better")),
    ],
)
def test_final_metrics_of_runs(tmp_path, metric, before, after, unit, verdict):
    a, b = (runs(tmp_path, side, [(metric, value, unit)]) for side, value in (("a", before), ("b", after)))
    assert changes(a, b) == ({metric: verdict} if verdict else {}, [])


def test_a_run_s_step_time_has_quartiles_and_belongs_to_its_machine(tmp_path):
    def step(side, median, low, high, **info):
        rows = [("step_time", median, "s"), ("step_time_low", low, "s"), ("step_time_high", high, "s")]
        return runs(tmp_path, side, rows, info)

    a = step("a", 1.0, 0.9, 1.5)
    assert changes(a, step("b", 1.4, 1.3, 1.5))[0] == {}
    assert changes(a, step("c", 2.0, 1.9, 2.1))[0] == {"step_time": ("slower", "worse")}
    found, said = changes(a, step("d", 2.0, 1.9, 2.1, machine="xeon", cpu="Xeon"))
    assert found == {"step_time": ("slower, another machine", "unjudged")}
    assert said == ["the machines differ (machine: epyc and xeon; cpu: EPYC and Xeon): times are shown, not judged"]


def test_a_run_that_diverged_is_worse_and_its_numbers_say_nothing(tmp_path):
    a, b = runs(tmp_path, "a"), runs(tmp_path, "b", [("wall_time", 1.0, "s")], {"status": "diverged"})
    assert changes(a, b)[0] == {"status": ("no longer ok", "worse")}
    assert changes(b, a)[0] == {"status": ("ok now", "better")}
    assert changes(b, b) == ({}, [])


def test_other_settings_are_a_warning_and_runs_of_one_cell_are_told_apart(tmp_path):
    a, b = runs(tmp_path, "a"), runs(tmp_path, "b", info={"digest": "d2"})
    assert changes(a, b) == ({}, ["other settings, by the digest: neural_ode/table1 mlp small seed 0 (d1, d2)"])
    runs(tmp_path, "b", name="y")
    assert changes(a, b) == ({"neural_ode/table1 mlp small seed 0 (d2)": ("only in B", "new")}, [])


def test_two_single_runs_are_compared_whatever_they_are(tmp_path):
    a, b = write_run(tmp_path / "a"), write_run(tmp_path / "b", info={"seed": 1})
    found, (warning,) = changes(a, b)
    assert found == {}
    assert warning.startswith("two different runs: ")
    assert warning.endswith("seed 0 / neural_ode/table1 mlp small seed 1")


# --- what can't be compared ------------------------------------------------------------------------------------------


def test_every_bad_input_is_named(tmp_path):
    good, _ = write(tmp_path / "good.json", SOLVE), write_run(tmp_path / "run")
    cases = {
        "nowhere": "does not exist",
        "broken.json": "is no readable JSON",
        "other.json": 'it has no list "benchmarks"',
        "list.json": 'it has no list "benchmarks"',
        "nameless.json": "is not as a benchmark is written",
        "empty": "holds neither benchmark files nor runs",
        "run": "they can't be compared",
    }
    (tmp_path / "broken.json").write_text('{"benchmarks": [')
    (tmp_path / "other.json").write_text('{"benchmarks": 3}')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "nameless.json").write_text('{"benchmarks": [{"fullname": "x"}]}')
    (tmp_path / "empty").mkdir()
    for name, words in cases.items():
        for pair in ((good, tmp_path / name), (tmp_path / name, good)):
            with pytest.raises(CompareError, match=words) as caught:
                load_pair(*pair)
            assert str(tmp_path / name) in str(caught.value)


def test_a_damaged_run_is_named(tmp_path):
    run = write_run(tmp_path / "run")
    whole = json.loads((run / "run.json").read_text())
    without_cell = {key: value for key, value in whole.items() if key != "cell"}
    for content, words in (
        (whole | {"schema": 3}, "run.json has schema 3; this version reads 1 and 2"),
        (without_cell, "is not as a run is written: KeyError"),
        ([], "run.json has schema None"),
    ):
        (run / "run.json").write_text(json.dumps(content))
        with pytest.raises(CompareError, match=words) as caught:
            load_pair(run, run)
        assert str(run) in str(caught.value)
    (run / "run.json").write_text(json.dumps(whole))
    (run / "rows.csv").write_text("metric,value\n")
    with pytest.raises(CompareError, match="expected the header"):
        load_pair(run, run)
    (run / "rows.csv").unlink()
    with pytest.raises(OSError, match=r"rows\.csv"):
        load_pair(run, run)


def test_ambiguous_folders_are_refused(tmp_path):
    write_run(tmp_path / "both" / "run")
    write(tmp_path / "both" / "benchmarks.json", SOLVE)
    with pytest.raises(CompareError, match="name the files or folders that you mean"):
        load_pair(tmp_path / "both", tmp_path / "both")
    twice = write(tmp_path / "twice.json", SOLVE, SOLVE)
    with pytest.raises(CompareError, match=r"nothing tells two entries solve in twice\.json apart"):
        join(*load_pair(twice, twice))


@pytest.mark.parametrize(
    "path", ["results/benchmarks", "results/benchmarks/amd-epyc-2-cores/memory.json", "results/runs"]
)
def test_what_is_published_equals_itself(path):
    pairs = join(*load_pair(HOUSE / path, HOUSE / path))
    lines = compare(pairs, Limits())
    assert isinstance(lines, pd.DataFrame)
    assert len(lines) > len(pairs) > 0
    assert set(lines["outcome"]) == {"same"}
    assert warnings(pairs) == []
