"""Exponents of traces and where one takes longer are found, the claim is judged by them, noise is compared."""

import json

import pytest

from repro.report.divergence import COLUMNS, bracket, claims, divergence, finding, load_divergence
from repro.report.divergence_figure import draw_divergence

BOTH = "forward + backward"


def cost(way, dim, seconds, flops, status="ok", part=BOTH):
    known = {"divergence": "dimension", "value": dim, "way": way, "pass": part, "status": status}
    if status == "ok":
        known |= {"flops": flops, "saved_bytes": flops, "peak_bytes": 2**20}
    return {"extra_info": known, "stats": {"median": seconds, "q1": seconds, "q3": seconds}}


def noise(way, products, deviation, kind="gaussian"):
    known = {"divergence": "products", "value": products, "way": way, "noise": kind, "status": "ok"}
    known |= {"deviation": deviation, "frobenius": 2.0}
    return {"extra_info": known, "stats": {"median": 0.0, "q1": 0.0, "q3": 0.0}}


def costs(power=2.0, dims=(16, 64, 128, 256, 512)):
    exact = [cost("exact", dim, 1e-6 * dim**2, dim**power) for dim in dims]
    return [*exact, *(cost("Hutchinson", dim, 32e-6 * dim, dim) for dim in dims)]


@pytest.fixture
def write(tmp_path):
    def written(*found):
        (tmp_path / "machine").mkdir(exist_ok=True)
        (tmp_path / "machine" / "divergence.json").write_text(json.dumps({"benchmarks": list(found)}))
        return load_divergence(tmp_path)

    return written


def test_exponents_come_with_intervals(write):
    table = divergence(write(*costs()))
    assert tuple(table.columns) == COLUMNS
    exact = table.iloc[0]
    assert (exact["way"], exact["exponent of time"]) == ("exact", "2.00 [2.00, 2.00]")
    assert exact["time at the largest D"] == "262 ms at 512"
    assert table.iloc[1]["exponent of operations"] == "1.00 [1.00, 1.00]"


def test_a_trace_takes_longer_where_quartiles_do_not_overlap(write):
    assert str(bracket(write(*costs()), "exact", "Hutchinson")) == "between 16 and 64"
    assert str(bracket(write(*costs(dims=(64, 128))), "exact", "Hutchinson")) == "64"
    assert bracket(write(*costs(dims=(8, 16))), "exact", "Hutchinson") is None
    assert bracket(write(*costs()), "exact", "XTrace") is None
    found = costs(dims=(64, 128))
    found[0]["stats"]["q1"] = 1e-3  # below the estimator's 2.048 ms: the quartiles overlap at D = 64
    assert str(bracket(write(*found), "exact", "Hutchinson")) == "between 64 and 128"


def test_the_closed_form_stands_beside_the_estimator(write):
    said = finding(write(*costs(), cost("closed form", 512, 0.02, 512)))
    assert "at D = 512 the closed form, which this field has, takes 20 ms and the estimator 16.4 ms" in said
    assert "closed form" not in finding(write(*costs()))


@pytest.mark.parametrize(("power", "verdict"), [(2.0, "reproduced"), (1.5, "partly")])
def test_the_claim_needs_quadratic_and_linear(write, power, verdict):
    (claim,) = claims(write(*costs(power)))
    assert claim.judgement.verdict == verdict
    assert f"operations ~ D^{power:.2f}" in claim.judgement.evidence


def test_few_points_judge_nothing(write):
    assert claims(write(*costs(dims=(128, 256))))[0].judgement.verdict == "not attempted"
    assert "operations" not in finding(write(*costs(dims=(128, 256))))
    assert claims(write())[0].judgement.evidence == "not measured from a clean commit"


def test_the_finding_compares_noise(write):
    said = finding(write(*costs(), noise("Hutchinson", 24, 0.4), noise("XTrace", 24, 0.1), noise("XTrace", 6, 9.0)))
    assert (
        "takes longer than the estimator from D = 64 on; up to D = 16 their quartiles overlap or it is quicker" in said
    )
    assert "their times like D^2.00 [2.00, 2.00] and D^1.00 [1.00, 1.00] (95 % intervals)" in said
    assert "XTrace is less noisy than Hutchinson from " in said
    assert said.endswith("on, 4 times less for 24; FFJORD takes one product.")


def test_what_failed_is_told(write):
    table = divergence(write(*costs(), cost("exact", 2048, 0.0, 0, "out of memory")))
    assert table["failed"].iloc[0] == "2048: out of memory"


def bars(axis):
    """Lower and upper ends of the whiskers, whisker by whisker."""
    return [sorted(end[1] for end in segment) for line in axis.collections for segment in line.get_segments()]


def test_the_figure_shows_quartiles_of_times(write):
    spread = cost("exact", 4, 4e-3, 4)
    spread["stats"] |= {"q1": 3e-3, "q3": 6e-3}
    figure = draw_divergence(write(spread))
    assert bars(figure.axes[1]) == [pytest.approx([3.0, 6.0])]
    assert not bars(figure.axes[2])  # what autograd keeps is counted: it has no spread


def test_the_figure_shows_how_sure_noise_is_where_the_draws_are_known(write):
    known, unknown = noise("XTrace", 6, 1.0), noise("Hutchinson", 6, 1.0)
    known["extra_info"]["draws"] = 400
    figure = draw_divergence(write(*costs(), known, unknown))
    (ends,) = bars(figure.axes[3])
    assert ends == pytest.approx([0.5 * 0.935, 0.5 * 1.074], rel=2e-3)  # s (1 ± 1.96 / √(2 · 399)), nearly


def test_the_figure_has_costs_and_noise(write):
    forward = [cost("exact", dim, 1e-3, dim, part="forward") for dim in (2, 4, 8)]
    figure = draw_divergence(write(*costs(), *forward, noise("XTrace", 6, 1.0), noise("XTrace", 6, 1.0, "rademacher")))
    assert len(figure.axes) == 4
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["exact", "Hutchinson"]
    assert draw_divergence(write()) is None
