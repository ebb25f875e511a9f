"""Counts stand beside each other as they are in the files, and what does not apply is n/a, never 0."""

import json

import pytest

from repro.report.nfe import COLUMNS, finding, held, load_nfe, nfe, shown
from repro.report.nfe_figure import draw_nfe

FORWARD = {"nfe_forward": 14, "n_accepted": 2, "n_rejected": 0}
TRAINED = {"nfe_forward": 38, "n_accepted": 4, "n_rejected": 2}
NOTHING = dict.fromkeys(("nfe_backward", "n_accepted_backward", "n_rejected_backward"))


def backward(evaluations, accepted, rejected=0):
    return {"nfe_backward": evaluations, "n_accepted_backward": accepted, "n_rejected_backward": rejected}


def entry(axis, value, way, counts, state="at initialisation", status="ok", laws=(True, "n/a")):
    known = {"nfe": axis, "workload": "toy", "value": value, "way": way, "state": state, "tolerance": 1e-5}
    laws = {"identity": laws[0], "identity_backward": laws[1]}
    return {"extra_info": known | {"status": status} | counts | laws, "stats": {}}


@pytest.fixture
def folder(tmp_path):
    """Three gradient methods at one tolerance, untrained and trained; output times; a solver that cannot."""
    entries = [
        entry("tolerance", 1e-3, "backprop", FORWARD | NOTHING),
        entry("tolerance", 1e-3, "adjoint", FORWARD | backward(20, 2, 1), laws=(True, True)),
        entry("tolerance", 1e-3, "adjoint", TRAINED | backward(26, 4), "trained", laws=(True, True)),
        entry("solver", "vode_adams", "backprop", {}, status="not supported: no", laws=("n/a", "n/a")),
        entry(
            "solver", "vode_adams", "adjoint", {**FORWARD, "n_rejected": None} | backward(9, 7, None), laws=("n/a",) * 2
        ),
        {"extra_info": {"ratio": 1.0}, "stats": {}},
    ]
    for times, evaluations, replayed in ((2, 32, 31), (101, 800, 35)):
        entries.append(entry("output times", times, "adjoint", TRAINED | backward(evaluations, 5), "trained"))
        entries.append(entry("output times", times, "checkpoint", TRAINED | backward(replayed, 5), "trained"))
    for dim in (2, 256):
        entries.append(entry("dimension", dim, "adjoint", FORWARD | backward(14, 2), laws=(True, True)))
    (tmp_path / "machine").mkdir()
    (tmp_path / "machine" / "nfe.json").write_text(json.dumps({"benchmarks": entries}))
    return tmp_path


def test_a_line_has_every_way_and_n_a_where_a_count_does_not_apply(folder):
    table = nfe(load_nfe(folder))
    assert tuple(table.columns) == COLUMNS
    first, trained, *_ = table.to_dict("records")
    assert (first["against"], first["value"], first["forward"]) == ("tolerance", "1e-3", "14 (2 + 0)")
    assert (first["backward, adjoint"], first["backward, backprop"]) == ("20 (2 + 1)", "n/a")
    assert (first["backward, checkpoint"], first["2 + 6k"]) == ("", "holds")
    assert (trained["state"], trained["forward"]) == ("trained", "38 (4 + 2)")
    vode = table[table["value"] == "vode_adams"].iloc[0]
    assert (vode["forward"], vode["backward, adjoint"]) == ("14 (2 + n/a)", "9 (7 + n/a)")
    assert (vode["2 + 6k"], vode["why n/a"]) == ("n/a", "backprop: not supported: no")
    assert list(dict.fromkeys(table["against"])) == ["tolerance", "output times", "solver", "dimension"]


def test_forward_counts_that_differ_between_ways_are_all_given(folder):
    cells = load_nfe(folder)
    cells.loc[0, "nfe_forward"] = 20
    assert nfe(cells).iloc[0]["forward"] == "20 (2 + 0) or 14 (2 + 0)"


def test_the_identity_fails_by_a_single_solve():
    good, bad = ({"identity": law, "identity_backward": "n/a"} for law in (True, False))
    assert (held([good, good]), held([good, bad])) == ("holds", "fails")
    assert held([{"identity": "n/a", "identity_backward": "n/a"}]) == "n/a"


def test_the_finding_has_the_numbers(folder):
    assert finding(load_nfe(folder)) == (
        "Training raises dopri5's forward evaluations from 14 to 38 at tolerance 1e-3; the adjoint's "
        "backward solve on the trained field takes 0.68 times the forward evaluations; the adjoint starts anew at "
        "every output time, so that 101 of them instead of 2 take it from 32 to 800 backward evaluations on the "
        "trained field, checkpoint from 31 to 35; from 2 to 256 dimensions an untrained flow of one width takes 14 "
        "forward evaluations, which says nothing of FFJORD's Figure 5, whose flows are trained; "
        "dopri5's identity 2 + 6 k holds in 13 of 13 passes to which it applies."
    )


def test_the_figure_has_a_panel_for_each_axis_and_state_and_none_without_counts(folder, tmp_path):
    figure = draw_nfe(load_nfe(folder))
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles[:3] == ["a  tolerance, at initialisation", "b  tolerance, trained", "c  output times, trained"]
    assert len({axis.get_ylim() for axis, title in zip(figure.axes, titles, strict=True) if title}) == 1
    (tmp_path / "empty").mkdir()
    assert draw_nfe(load_nfe(tmp_path / "empty")) is None
    assert load_nfe(tmp_path / "empty").empty


@pytest.mark.parametrize(("value", "words"), [(1e-5, "1e-5"), (101, "101"), ("rk4", "rk4")])
def test_values_are_shown_as_they_are_said(value, words):
    assert shown(value) == words
