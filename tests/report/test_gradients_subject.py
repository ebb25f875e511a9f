"""Costs at an error are interpolated, the cheapest ways are named, failures are told."""

import json

import pytest

from repro.report.benchmarks import OVERHEAD
from repro.report.gradients import COLUMNS, cost_at, draw_gradients, finding, gradients, load_gradients

MIB = 2**20


def entry(way, tolerance, error, ms, peak=8.0, status="ok"):
    known = {"gradients": "toy", "way": way, "tolerance": tolerance, "status": status, "nfe_forward": 20}
    known |= {"nfe_backward": None if way.startswith("backprop") else 14}
    if status == "ok":
        known |= {"gradient_error": error, "saved_bytes": 2 * MIB, "peak_bytes": peak * MIB}
    return {"extra_info": known, "stats": {"median": ms / 1e3, "iqr": ms / 1e4}}


@pytest.fixture
def write(tmp_path):
    def written(*found):
        (tmp_path / "machine").mkdir(exist_ok=True)
        (tmp_path / "machine" / "gradients.json").write_text(json.dumps({"benchmarks": list(found)}))
        return load_gradients(tmp_path)

    return written


CELLS = [
    entry("backprop", 1e-3, 1e-1, 10, peak=40),
    entry("backprop", 1e-5, 1e-3, 40, peak=90),
    entry("adjoint", 1e-3, 1e-1, 20, peak=4),
    entry("adjoint", 1e-5, 1e-3, 80, peak=4),
]


def test_a_line_has_everything(write):
    table = gradients(write(*CELLS))
    assert tuple(table.columns) == tuple(name for name in COLUMNS if name != OVERHEAD)
    first = table.iloc[0]
    assert (first["gradient error"], first["NFE forward / backward"]) == ("1.0e-01", "20 / n/a")
    assert (first["time"], first["kept by autograd"], first["peak"]) == ("10 ± 0.5 ms", "2 MiB", "40 MiB")
    assert table.iloc[2]["NFE forward / backward"] == "20 / 14"


@pytest.mark.parametrize(("ratio", "bound", "shown"), [(1.04, True, "yes (1.04)"), (1.9, False, "no (1.90)")])
def test_overhead_is_shown_where_it_was_measured(write, ratio, bound, shown):
    new = entry("checkpoint", 1e-3, 1e-1, 10)
    new["extra_info"] |= {"batch_doubling": ratio, "overhead_bound": bound}
    table = gradients(write(*CELLS, new))
    assert tuple(table.columns) == COLUMNS
    assert table[OVERHEAD].tolist() == [*[""] * len(CELLS), shown]


def test_the_cost_of_an_error_lies_between_the_points():
    assert cost_at([1e-1, 1e-3], [10, 40], 1e-2) == pytest.approx(20)
    assert cost_at([1e-3, 1e-5], [10, 40], 1e-2) == 10
    assert cost_at([1e-1, 2e-2], [10, 40], 1e-2) is None


def test_the_finding_names_the_cheapest_ways(write):
    assert finding(write(*CELLS)) == (
        "For a gradient with a relative error of 0.01: on the toy the least time is 20 ms, by backprop, and the "
        "least memory 4 MiB, by adjoint."
    )
    assert finding(write(entry("backprop", 1e-3, 0.5, 1))).endswith(
        "on the toy none reaches it at the tolerances measured."
    )


def test_ways_that_differ_by_less_than_a_repetition_are_level(write):
    near = [entry(way, 1e-3, 1e-2, ms) for way, ms in (("backprop", 10.2), ("checkpoint", 10.0), ("adjoint", 10.4))]
    assert "the least time is 10 ms, by backprop or checkpoint, and" in finding(write(*near))


def test_a_failed_cell_has_its_status(write):
    table = gradients(write(entry("adjoint", 1e-3, 0, 0, status="out of memory")))
    assert table["status"].item() == "out of memory"
    assert table["time"].item() == "-"


def test_times_have_their_quartiles_where_they_were_kept(write):
    spread = entry("checkpoint", 1e-3, 1e-1, 10)
    spread["stats"] |= {"q1": 0.008, "q3": 0.015}
    figure = draw_gradients(write(*CELLS, spread))
    ends = [segment for line in figure.axes[0].collections for segment in line.get_segments()]
    assert [sorted(end[0] for end in segment) for segment in ends] == [pytest.approx([8.0, 15.0])]
    assert not figure.axes[1].collections


def test_compiled_ways_have_their_methods_colour(write):
    figure = draw_gradients(write(*CELLS, entry("adjoint, compiled", 1e-3, 1e-1, 5)))
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert lines["adjoint, compiled"].get_color() == lines["adjoint"].get_color()
    assert lines["adjoint, compiled"].get_linestyle() == "--"
    assert figure.axes[1].get_xlabel() == "peak, MiB per training step"
    assert draw_gradients(write()) is None
