"""Lines through times: a cost that is linear is found to be, one that is not shows its deviation."""

import json

import pytest

from repro.report.scaling import COLUMNS, draw_scaling, line, load_scaling, scaling


@pytest.fixture
def folder(tmp_path):
    """A file of times 2 ms + 3 µs · value along one axis, and an entry of another benchmark."""
    entries = [{"extra_info": {"ratio": 2.0}, "stats": {}}]
    for value in (8, 2, 32):
        seconds = 2e-3 + 3e-6 * value
        stats = {"median": seconds, "q1": 0.9 * seconds, "q3": 1.2 * seconds}
        entries.append({"extra_info": {"scaling": "batch", "value": value, "way": "compiled"}, "stats": stats})
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "scaling.json").write_text(json.dumps({"benchmarks": entries}))
    return tmp_path


def test_a_line_is_found_with_its_units(folder):
    table = scaling(load_scaling(folder))
    assert tuple(table.columns) == COLUMNS
    (row,) = table.to_dict("records")
    assert row["at the least"] == "2.01 ms at 2"
    assert row["at the most"] == "2.1 ms at 32"
    assert (row["fixed cost"], row["per unit"], row["largest deviation"]) == ("2 ms", "3 µs", "0%")


def test_a_parabola_deviates():
    values = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert line(values, [3 * value for value in values])[2] < 1e-9
    assert line(values, [value**2 for value in values])[2] > 0.5


def test_the_figure_has_one_panel_an_axis_and_none_without_times(folder, tmp_path):
    figure = draw_scaling(load_scaling(folder))
    assert figure is not None
    assert [axis.get_xlabel() for axis in figure.axes] == ["batch"]
    (tmp_path / "empty").mkdir()
    assert draw_scaling(load_scaling(tmp_path / "empty")) is None
    assert scaling(load_scaling(tmp_path / "empty")).empty
