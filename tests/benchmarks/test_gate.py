"""The regression gate: the same figures every time, a changed one fails, and renewing says that it is meant."""

import json
from pathlib import Path

import pytest

from benchmarks import gate

PUBLISHED = Path(__file__).parents[2] / "results" / "benchmarks" / "reference.json"


@pytest.fixture
def stored(monkeypatch, tmp_path):
    """A results folder of this test's own, and few figures, so that nothing is computed."""
    monkeypatch.setattr(gate, "figures", lambda: {"steps": 4, "exponent": 1.5, "nothing": None})
    monkeypatch.setattr(gate, "results_root", lambda: tmp_path)
    return tmp_path / "benchmarks" / "reference.json"


def test_the_published_figures_are_those_of_today():
    found = {}
    found |= gate._operations("hutchinson")
    found |= gate._named("oscillator, dopri5, adjoint", gate._solved(gate.SOLVERS["dopri5"], "adjoint"), gate.COUNTS)
    published = json.loads(PUBLISHED.read_text())
    assert gate.differences({name: published[name] for name in found}, found) == []
    assert found["oscillator, dopri5, adjoint: nfe_backward"] > 0


def test_a_difference_fails_until_it_is_renewed(stored, capsys):
    assert gate.main([]) == 1  # nothing stored yet
    assert gate.main(["--renew"]) == 0
    assert gate.main([]) == 0
    figures = json.loads(stored.read_text())
    stored.write_text(json.dumps(figures | {"steps": 5, "gone": 1}))
    capsys.readouterr()
    assert gate.main([]) == 1
    said = capsys.readouterr().out
    assert "steps: stored 5, now 4" in said
    assert "gone: stored 1, now nothing" in said
    assert "--renew" in said


def test_rounding_of_a_fit_is_no_difference_and_one_more_evaluation_is():
    assert gate.differences({"exponent": 1.5, "nfe": 44}, {"exponent": 1.5 + 1e-12, "nfe": 44}) == []
    assert gate.differences({"nfe": 44}, {"nfe": 45}) == ["nfe: stored 44, now 45"]
    assert gate.differences({"nfe": None}, {"nfe": 0}) == ["nfe: stored None, now 0"]
    assert gate.differences({"exponent": 1.5}, {"exponent": 1.5001}) != []


def test_it_is_a_cpus(monkeypatch, stored, capsys):
    monkeypatch.setattr(gate, "DEVICE", gate.torch.device("cuda"))
    with pytest.raises(SystemExit) as end:
        gate.main([])
    assert end.value.code == 2
    assert "REPRO_BENCH_DEVICE=cpu" in capsys.readouterr().err
