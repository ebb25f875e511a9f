"""What notebooks read is what the README shows."""

from pathlib import Path

from repro import plotting
from repro.report.reading import picture, published_ledger, published_runs

RESULTS = Path(__file__).parents[2] / "results"


def test_the_ledger_is_that_of_the_generated_page(monkeypatch):
    monkeypatch.setenv("REPRO_RESULTS", str(RESULTS))  # claims read the papers' numbers there
    page = (RESULTS / "tables" / "claims.md").read_text()
    ledger = published_ledger(RESULTS)
    assert len(ledger) > 20
    assert [claim for claim in ledger["claim"] if claim not in page] == []
    assert ledger["id"].is_unique


def test_published_runs_are_of_known_cells(tmp_path):
    runs = published_runs(RESULTS)
    assert {"neural_ode/table1_mnist", "ffjord/fig2_toy2d"} <= set(runs["experiment"])
    assert published_runs(tmp_path).empty


def test_a_picture_is_a_small_png():
    figure, (axis,) = plotting.new_figure()
    axis.plot([0, 1], [0, 1])
    small = picture(figure)
    assert small.startswith(b"\x89PNG")
    assert len(small) < len(plotting.png_bytes(figure))
