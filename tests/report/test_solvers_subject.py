"""Costs at an error follow power laws, and the sentence names the cheapest solver by the figures."""

import json

import pytest

from repro.report.solvers import COLUMNS, cost_at, finding, load_solvers, solvers
from repro.report.solvers_figure import draw_solvers

FLOW = "8gaussians"


def entry(problem, method, setting, error, evaluations, seconds, order=4.0, nominal=4):
    kind = "tolerance" if setting < 1 else "steps"
    engine = "compiled" if method.endswith("_compiled") else "torchdiffeq"
    known = {"work_precision": problem, "method": method, "engine": engine, "setting": setting, "kind": kind}
    known |= {"order": order, "nominal_order": nominal, "status": "ok", "error": error, "nfe_forward": evaluations}
    known |= {"error_log_prob": 10 * error} if problem == FLOW else {}
    return {"extra_info": known, "stats": {"median": seconds}}


def failed(problem, method, setting):
    known = {"work_precision": problem, "method": method, "engine": "torchdiffeq", "setting": setting}
    status = "failed: reached max_nfe = 2000 in the step from t = 1, dt = 2, after 2000 evaluations"
    return {"extra_info": known | {"status": status, "order": None, "nominal_order": None}, "stats": {"median": 0.0}}


@pytest.fixture
def folder(tmp_path):
    """rk4 with error steps^-4 by two engines, one of them twice as fast; VODE with a failure."""
    entries = [{"extra_info": {"ratio": 2.0}, "stats": {}}]
    for problem in ("oscillator", "decay", FLOW):
        for steps in (4, 8, 16, 32, 64):
            entries.append(entry(problem, "rk4", steps, steps**-4.0, 4 * steps, 1e-3 * steps))
            entries.append(entry(problem, "rk4_compiled", steps, steps**-4.0, 4 * steps, 5e-4 * steps))
        entries.append(entry(problem, "vode_adams", 1e-2, 1e-4, 10, 1e-1, None, None))
        entries.append(failed(problem, "vode_adams", 1e-9))
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "solvers.json").write_text(json.dumps({"benchmarks": entries}))
    return tmp_path


def test_a_line_interpolates_and_says_what_was_not_reached(folder):
    table = solvers(load_solvers(folder))
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 9
    rk4, compiled, vode = table[table["problem"] == FLOW].to_dict("records")
    assert rk4["order observed (of theory)"] == "4.00 (4)"
    assert (rk4["NFE at error 1e-3"], rk4["time at error 1e-3"]) == ("22", "5.62 ms")  # 4 · 1000^(1/4) = 22.5
    assert (rk4["NFE at error 1e-6"], rk4["time at error 1e-6"]) == ("126", "31.6 ms")
    assert (rk4["smallest error"], rk4["log-density there"]) == ("6.0e-08", "6.0e-07 nats")
    assert (compiled["engine"], compiled["time at error 1e-6"]) == ("compiled", "15.8 ms")
    assert vode["order observed (of theory)"] == "- (varies)"
    assert (vode["NFE at error 1e-3"], vode["NFE at error 1e-6"]) == ("≤ 10", "not reached")
    assert vode["failed"] == "1e-9: failed: reached max_nfe = 2000"
    assert (table["log-density there"] == "").sum() == 6


def test_dearer_and_less_exact_points_do_not_count():
    points = [(1e-2, 10.0), (2e-2, 50.0), (1e-4, 1000.0)]
    assert cost_at(points, 1e-3) == (pytest.approx(100.0), "interpolated")
    assert cost_at(points, 1e-4) == (pytest.approx(1000.0), "interpolated")
    assert cost_at(points, 0.5) == (10.0, "at most")
    assert cost_at(points, 1e-5) == (None, "not reached")
    assert cost_at([(float("nan"), 1.0)], 1e-5) == (None, "not reached")
    assert cost_at([(0.0, 3.0), (1.0, 1.0)], 1.0) == (1.0, "at most")


def test_the_finding_names_the_cheapest_on_the_trained_flow(folder):
    assert finding(load_solvers(folder)) == (
        "On the flow trained on 8gaussians, by a solver that chooses its steps, a relative error of 0.001 is reached "
        "soonest by vode_adams (at most 100 ms), with the fewest evaluations by vode_adams (at most 10), by the best "
        "fixed step, which is known only afterwards, by rk4_compiled (2.81 ms); a relative error of 1e-06 is reached "
        "by none of them, by the best fixed step, which is known only afterwards, by rk4_compiled (15.8 ms)."
    )


def test_without_a_flow_there_is_nothing_to_find(folder):
    cells = load_solvers(folder)
    assert finding(cells[cells["problem"] != FLOW]) == ""


def test_the_figure_shows_the_closed_forms_that_are_chosen_and_the_flow(folder, tmp_path):
    figure = draw_solvers(load_solvers(folder))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[:2] == ["oscillator: adaptive", "flow of 8gaussians: adaptive"]
    assert len(titles) == 8
    counts, times = figure.axes[4], figure.axes[6]
    assert [line.get_label() for line in counts.get_lines()] == ["rk4"]
    assert [(line.get_label(), line.get_linestyle()) for line in times.get_lines()] == [
        ("rk4", "-"),
        ("rk4_compiled", "--"),
    ]
    (tmp_path / "empty").mkdir()
    empty = load_solvers(tmp_path / "empty")
    assert draw_solvers(empty) is None
    assert solvers(empty).empty
