"""The libraries' table and figure are made from pytest-benchmark's files and hold nothing else."""

import json
import shutil
from pathlib import Path

import pytest

from repro.report.ahead import ahead, finding
from repro.report.benchmarks import OVERHEAD, origins
from repro.report.build import build
from repro.report.peers import COLUMNS, OURS, SHARES, draw_peers, load_peers, peers

PUBLISHED = Path(__file__).parents[2] / "results" / "published.csv"
POINTS = [{"tolerance": 1e-4, "gradient_error": 1e-3, "seconds": 0.05}]
TIMED = {
    "workload": "toy",
    "peer": "zuko",
    "way": "checkpoint",
    "version": "1.6",
    "status": "ok",
    "threads": 1,
    "first_call": 1.26,
    "nfe_forward": 68,
    "nfe_backward": "n/a",
    "loss_error": 1e-5,
    "gradient_error": 2e-4,
    "speedup": 2.5,
    "equal_error": "interpolated",
    "seconds_at_equal_error": 0.0625,
    "sweep": POINTS,
}
MISSING = {
    "workload": "toy",
    "peer": "diffrax",
    "way": "backsolve",
    "version": "n/a",
    "status": "missing: No module named 'jax'",
    "threads": 1,
    "first_call": 0.0,
}


@pytest.fixture
def folder(tmp_path):
    def write(*known):
        entries = [
            {"name": "x", "group": "g", "params": None, "extra_info": extra, "stats": {"median": 0.1234, "iqr": 0.02}}
            for extra in known
        ]
        here = tmp_path / "results" / "benchmarks" / "machine"
        here.mkdir(parents=True)
        (here / "peers.json").write_text(json.dumps({"benchmarks": entries}))
        return here.parent

    return write


def test_a_way_is_a_line_and_one_without_times_says_why(folder):
    table = peers(load_peers(folder(TIMED, MISSING, {"ratio": 3.0})))
    assert tuple(table.columns) == tuple(name for name in COLUMNS if name not in (OVERHEAD, SHARES))
    done, missing = table.to_dict("records")
    assert (done["library"], done["time"], done["speed-up"]) == ("zuko 1.6", "123 ± 10 ms", "2.50")
    assert (done["NFE forward / backward"], done["gradient error"]) == ("68 / n/a", "2.0e-04")
    assert (done["time at the adjoint's error"], done["why not"]) == ("62.5 ms", "")
    assert (missing["time"], missing["gradient error"], missing["why not"]) == ("-", "-", MISSING["status"])


def test_where_time_goes_is_told_in_words(folder):
    parts = [["aten::mm", 0.5], ["_Checkpoint", 0.2], ["Python", 0.2], ["other operations", 0.1]]
    table = peers(load_peers(folder(TIMED | {"shares": parts}, TIMED)))
    assert table[SHARES].tolist() == ["mm 50%, Python 40%, other operations 10%", ""]


def test_the_second_ratio_is_to_backprop_in_the_same_run(folder):
    table = peers(load_peers(folder(TIMED | {"peer": "torchdiffeq", "way": "backprop"}, TIMED, MISSING)))
    assert table["over its backprop"].tolist() == ["1.00", "1.00", "-"]


def ways_of(own, **theirs):
    """The suite's backprop beside both of torchdiffeq's ways, zuko, a wrong gradient and a missing library."""
    reference = TIMED | {"peer": "torchdiffeq", "speedup": 1.0} | theirs
    wrong = TIMED | {"peer": "torchode", "speedup": 50.0, "gradient_error": 1.1}
    suites = TIMED | {"peer": OURS, "way": "backprop", "speedup": 9.71, "seconds_at_equal_error": 0.02} | own
    return [reference | {"way": "adjoint"}, reference | {"way": "backprop"}, suites, TIMED, wrong, MISSING]


def test_like_stands_beside_like_and_beside_the_fastest_other(folder):
    (line,) = ahead(load_peers(folder(*ways_of({})))).to_dict("records")
    assert line == {
        "machine": "machine",
        "workload": "toy",
        "adjoint by adjoint": "-",
        "backprop by backprop": "1",
        "at the adjoint's error": "6.17",
        "its fastest way": "backprop, 123 ms",
        "torchdiffeq's adjoint": "9.71",
        "fastest other": "3.88 (zuko checkpoint)",
    }


def test_a_bound_is_told_as_such_and_a_wrong_gradient_of_ours_leads_nothing(folder):
    found = load_peers(folder(*ways_of({"equal_error": "at most"})))
    assert ahead(found)["at the adjoint's error"].tolist() == ["≥ 6.17"]
    wrong = [way | {"gradient_error": 0.7} if way["peer"] == OURS else way for way in found]
    assert ahead(wrong).empty
    assert finding(wrong) == ""


def test_the_finding_has_the_range_over_workloads_slower_ones_included(folder):
    slow = [way | {"workload": "ode-net"} for way in ways_of({"speedup": 2.0})]
    assert finding(load_peers(folder(*ways_of({}), *slow))) == (
        "A training step by the compiled engine is 1 times as fast as torchdiffeq's by backprop (2 workloads); in its "
        "fastest way it is 2 to 9.71 times as fast as by torchdiffeq's adjoint and 0.8 to 3.88 times as fast as by the "
        "fastest other library (2 workloads)."
    )


def test_methods_that_both_have_come_first_and_the_planar_field_is_explained(folder):
    adjoint = TIMED | {"peer": OURS, "way": "adjoint", "speedup": 1.0}
    said = finding(load_peers(folder(*(way | {"workload": "planar CNF"} for way in (*ways_of({}), adjoint)))))
    assert said.startswith(
        "A training step by the compiled engine is 1 times as fast as torchdiffeq's by adjoint (1 workload) and 1 "
        "times as fast as torchdiffeq's by backprop (1 workload); in its fastest way it is 9.71 times"
    )
    assert "evaluate the public example's field, unit by unit" in said


def test_it_stands_in_the_readme_and_above_the_table(folder, tmp_path, whole_readme):
    folder(*ways_of({}))
    results, readme = tmp_path / "results", tmp_path / "README.md"
    (results / "runs").mkdir()
    shutil.copy(PUBLISHED, results)
    readme.write_text(whole_readme(""))
    build(results, local=False, write=True)
    for page in (readme, results / "tables" / "peers.md"):
        assert "3.88 (zuko checkpoint)" in page.read_text()
    assert 'id="brief"' in (results / "report" / "benchmark-peers.html").read_text()


def test_a_wrong_gradient_has_no_speed_up(folder):
    ways = load_peers(folder(TIMED | {"gradient_error": 1.1}, TIMED))
    wrong, right = peers(ways).to_dict("records")
    assert (wrong["speed-up"], wrong["time at the adjoint's error"], wrong["time"]) == ("-", "-", right["time"])
    assert wrong["why not"] == "its gradient is wrong: relative error 1.1"
    assert {text.get_text() for text in draw_peers(ways).axes[0].texts} == {"wrong gradient", "2.5x"}


def test_it_says_by_which_commit_it_was_measured(folder):
    path = next(folder(TIMED | {"peer": OURS}, TIMED).glob("*/*.json"))
    suite = {"commit": "0123456789abcdef", "dirty": False}
    known = {"machine_info": {"suite": suite}, "datetime": "2026-11-25T15:07:48"}
    path.write_text(json.dumps(json.loads(path.read_text()) | known))
    made = "(commit 0123456789, 2026-11-25)"
    assert made in finding(load_peers(path.parents[1]))
    assert origins(path.parents[1], "peer") == f"Measured on machine {made}."
    assert origins(path.parents[1], "ratio") == ""


def test_without_a_way_of_the_suites_nothing_is_found(folder):
    ways = load_peers(folder(TIMED, MISSING))
    assert finding(ways) == ""
    assert ahead(ways).empty


def test_overhead_is_shown_where_it_was_measured(folder):
    table = peers(load_peers(folder(TIMED | {"batch_doubling": 1.6, "overhead_bound": False}, TIMED, MISSING)))
    assert table[OVERHEAD].tolist() == ["no (1.60)", "", ""]


@pytest.mark.parametrize(
    ("how", "seconds", "shown"),
    [("at most", 0.05, "≤ 50 ms"), ("not reached", None, "not reached"), ("interpolated", 3.21, "3210 ms")],
)
def test_the_time_at_equal_error_says_how_it_was_found(folder, how, seconds, shown):
    table = peers(load_peers(folder(TIMED | {"equal_error": how, "seconds_at_equal_error": seconds})))
    assert table["time at the adjoint's error"].tolist() == [shown]


def test_a_workload_that_was_not_swept_says_so(folder):
    known = {key: value for key, value in TIMED.items() if key not in ("sweep", "seconds_at_equal_error")}
    ways = load_peers(folder(known | {"equal_error": "not swept"}))
    assert peers(ways)["time at the adjoint's error"].tolist() == ["not swept"]
    assert len(draw_peers(ways).axes) == 2


def test_the_figure_has_two_panels_a_workload(folder):
    figure = draw_peers(load_peers(folder(TIMED, TIMED | {"workload": "planar"}, MISSING)))
    assert len(figure.axes) == 4
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["zuko checkpoint"]


def test_no_times_give_no_figure(folder):
    assert draw_peers(load_peers(folder(MISSING))) is None


def test_the_report_has_them_only_where_there_is_a_file(folder, tmp_path):
    results = tmp_path / "results"
    (results / "runs").mkdir(parents=True)
    shutil.copy(PUBLISHED, results)
    names = {"peers.csv", "peers.svg", "peers.png"}
    assert not names & {path.name for path in build(results, local=False, write=False)}
    folder(TIMED)
    assert names <= {path.name for path in build(results, local=False, write=False)}
