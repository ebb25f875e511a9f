"""Neural ODE's Section 4, Figures 4 and 5 in miniature: both flows, both directions, judged claims."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from miniature import final, finals, frame, run

from repro.arrays import ARRAYS
from repro.checkpoint import load_tensors
from repro.data import ENERGIES
from repro.flows.planar import PlanarFlow
from repro.papers.neural_ode import density_claims as claims
from repro.papers.neural_ode import fig4_nf_vs_cnf, fig5_noise_to_data, section4_change_of_variables
from repro.papers.neural_ode.density_claims import FIG4, FIG5, SECTION4
from repro.per_point import load_log_density, load_log_ratio


@pytest.mark.parametrize("cell", ["u1_cnf_2", "u2_nf_8", "u4_cnf_8"])
def test_matching_is_measured_and_can_be_evaluated_again(tmp_path, cell):
    config, context, rows = run(fig4_nf_vs_cnf, cell, tmp_path, iterations=4, test_points=100, side=16)
    found = final(rows)
    assert found["kl"] > 0, "a divergence"
    assert found["log_normaliser"] == ENERGIES[config.energy].log_normaliser()
    continuous = config.model == "cnf"
    assert ("reconstruction_error" in found) == ("value_drift" in found) == continuous
    if continuous:
        assert abs(found["value_drift"]) < 1e-3 < found["kl_error"], "the same base draws"
        assert 0 < found["reconstruction_error_p99"] <= found["reconstruction_error"] < 1e-2
    assert load_log_ratio(context.artefacts).astype(float).mean() == pytest.approx(found["kl"], rel=1e-3)
    tensors, _ = load_tensors(context.artefacts / "model.safetensors")
    again = {row.metric: row.value for row in fig4_nf_vs_cnf.evaluate(config, tensors, context)}
    assert {metric: found[metric] for metric in again} == again
    with np.load(context.artefacts / ARRAYS) as arrays:
        assert arrays["density"].shape == arrays["truth"].shape == (16, 16)
    cell_area = (2 * ENERGIES[config.energy].window / 16) ** 2
    assert fig4_nf_vs_cnf.target(config).sum() * cell_area == pytest.approx(1, abs=0.1)


def test_the_divergence_of_a_gaussian_from_itself_is_zero():
    """With the standard normal as target and as flow, log q − log p is 0 at every draw."""
    target = replace(
        ENERGIES["u1"], log_unnormalised=lambda z: -0.5 * z.square().sum(1) - math.log(2 * math.pi) - 1.87750
    )
    flow = PlanarFlow(2, 1, direction="from_base")
    with torch.no_grad():  # û = 0: the identity
        flow.u.copy_(math.log(math.e - 1) * flow.w / flow.w.square().sum(1, keepdim=True))
    values = fig4_nf_vs_cnf.divergence_from(target, flow, 50, torch.Generator().manual_seed(0))
    torch.testing.assert_close(values, torch.full((50,), target.log_normaliser() + 1.87750), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["cnf", "nf"])
def test_matching_brings_the_flow_nearer(kind):
    config = replace(fig4_nf_vs_cnf.CELLS[f"u1_{kind}_8"], gradient="checkpoint", iterations=40, learning_rate=0.02)
    flow = fig4_nf_vs_cnf.build(config)
    run = fig4_nf_vs_cnf.training(config, flow)
    losses = [run.update(step)["train_kl"] for step in range(40)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2
    assert ("nfe_forward" in run.update(0)) == (kind == "cnf")


@pytest.mark.parametrize("cell", ["moons_cnf", "circles_nf", "example"])
def test_likelihood_cells_are_measured_and_can_be_evaluated_again(tmp_path, cell):
    config, context, rows = run(fig5_noise_to_data, cell, tmp_path, iterations=3, test_points=60, side=16)
    found = final(rows)
    assert found["test_gap"] > 0
    assert found["reversibility_error"] < 0.05
    assert ({"nfe_there", "nfe_back"} <= found.keys()) == (config.model == "cnf")
    assert ({"reconstruction_error", "value_drift"} <= found.keys()) == (config.model == "cnf")
    assert abs(found.get("value_drift", 0.0)) < 1e-3
    assert found.get("reconstruction_error", 0.0) < 0.05
    assert -load_log_density(context.artefacts).astype(float).mean() == pytest.approx(found["test_nll"], rel=1e-3)
    tensors, _ = load_tensors(context.artefacts / "model.safetensors")
    again = {row.metric: row.value for row in fig5_noise_to_data.evaluate(config, tensors, context)}
    assert {metric: found[metric] for metric in again} == again
    with np.load(context.artefacts / ARRAYS) as arrays:
        assert arrays["points"].shape == (6, 2_000, 2)


def test_the_example_has_the_public_examples_size_and_base():
    config = fig5_noise_to_data.CELLS["example"]
    flow = fig5_noise_to_data.build(config, torch.device("cpu"))
    assert sum(p.numel() for p in flow.parameters()) == 15_904
    torch.testing.assert_close(flow.base.variance, torch.full((2,), 0.1))
    assert (flow.t1, config.iterations, config.batch, config.gradient) == (10.0, 1_000, 512, "backprop")


def test_a_shortened_flow_ends_nearer_to_noise():
    torch.manual_seed(0)
    flow = PlanarFlow(2, 8, direction="to_base")
    with torch.no_grad():
        flow.u.add_(torch.randn(8, 2))
    whole, part = fig5_noise_to_data._last_layers(flow, 8), fig5_noise_to_data._last_layers(flow, 2)
    z = torch.randn(20, 2)
    torch.testing.assert_close(whole.inverse(z), flow.inverse(z))
    torch.testing.assert_close(part.w, flow.w[-2:])


@pytest.mark.parametrize("cell", ["theorem1_planar", "theorem1_perceptron"])
def test_theorem_1_holds_within_the_tolerance(tmp_path, cell):
    settings = {"tolerances": (1e-4, 1e-8), "dim": 3, "batch": 4}
    rows = run(section4_change_of_variables, cell, tmp_path, **settings)[2]
    errors = [row.value for row in rows if row.metric == "log_density_error"]
    assert errors[1] < 1e-6
    assert errors[1] < errors[0]


@pytest.mark.parametrize("cell", ["width_planar_cnf", "width_determinant"])
def test_widths_are_timed(tmp_path, cell):
    rows = run(section4_change_of_variables, cell, tmp_path, widths=(4, 8), repeats=1)[2]
    assert [row.value for row in rows if row.metric == "width"] == [4, 8]
    assert all(row.value > 0 for row in rows if row.metric == "step_time")


def test_claims_without_runs_are_not_attempted():
    for claim in (*claims.SECTION4_CLAIMS, *claims.FIG4_CLAIMS, *claims.FIG5_CLAIMS):
        assert claim.check(frame()).verdict == "not attempted"
    for experiment in (fig4_nf_vs_cnf.EXPERIMENT, fig5_noise_to_data.EXPERIMENT):
        assert all(draw(frame()) is None for draw in experiment.draw.values())
        assert all(animate(frame()) is None for animate in experiment.animate.values())


@pytest.mark.parametrize(("last", "verdict"), [(1e-10, "reproduced"), (1e-5, "not reproduced")])
def test_theorem_1_is_judged_at_the_tightest_tolerance(last, verdict):
    cells = ("theorem1_planar", "theorem1_perceptron")
    lines = [(SECTION4, cell, "log_density_error", e, s) for cell in cells for s, e in enumerate((1e-3, last))]
    assert claims.theorem1(frame(*lines)).verdict == verdict
    assert claims.theorem1(frame(*lines[:2])).verdict == ("partly" if verdict == "reproduced" else verdict)


@pytest.mark.parametrize(
    ("powers", "noise", "verdict"),
    [
        ((1, 3), 1.01, "reproduced"),
        ((1, 3), 4.0, "partly"),
        ((2, 3), 1.01, "partly"),
        ((3, 1), 1.01, "not reproduced"),
    ],
)
def test_widths_are_judged_by_their_exponents_and_how_well_they_are_known(powers, noise, verdict):
    lines = []
    for cell, power in zip(("width_planar_cnf", "width_determinant"), powers, strict=True):
        for step, width in enumerate((32, 64, 128, 256, 512, 1024)):
            seconds = 1e-6 * width**power * noise ** (step % 2)
            lines += [(SECTION4, cell, "width", width, step), (SECTION4, cell, "step_time", seconds, step)]
    assert claims.linear_in_width(frame(*lines[:8])).verdict == "not attempted"
    assert claims.linear_in_width(frame(*lines)).verdict == verdict


def pairs(cnf, nf):
    """Values of all cells of Figure 4."""
    values = {"cnf": cnf, "nf": nf}
    return {f"{energy}_{kind}_{n}": values[kind] for energy in claims.ENERGIES for n in claims.SIZES for kind in values}


def matched(cnf, nf, share=1.0, spread=0.01, seeds=3):
    """Figure 4's cells over some seeds, which spread the CNF's losses alone."""
    rows = []
    for seed in range(seeds):
        rows.append(finals(FIG4, "kl", pairs(cnf + spread * (seed - 1), nf), seed=seed))
        rows.append(finals(FIG4, "budget_share", pairs(share, share), seed=seed))
    return pd.concat(rows, ignore_index=True)


@pytest.mark.parametrize(
    ("cnf", "spread", "verdict"),
    [(0.1, 0.01, "reproduced"), (0.5, 0.01, "not reproduced"), (0.1, 0.1, "inconclusive")],
)
def test_matching_is_judged_by_pairs_that_seeds_tell_apart(cnf, spread, verdict):
    assert claims.at_least_as_good(matched(cnf, 0.2, spread=spread)).verdict == verdict


def test_a_lower_loss_in_some_pairs_reproduces_figure_4_partly():
    rows = matched(0.1, 0.2)
    higher = rows["cell"].str.fullmatch(r"u[23]_cnf_\d+|u4_cnf_2") & (rows["metric"] == "kl")
    assert claims.at_least_as_good(rows.assign(value=rows["value"] + 0.3 * higher)).verdict == "not reproduced"
    higher &= rows["cell"] != "u4_cnf_2"
    judgement = claims.at_least_as_good(rows.assign(value=rows["value"] + 0.3 * higher))
    assert judgement.verdict == "partly"
    assert judgement.evidence.startswith("CNF lower in 6 of 12 pairs, NF in 6, the others not told apart")


def test_trainings_cut_short_decide_nothing_of_figure_4():
    judgement = claims.at_least_as_good(matched(0.1, 0.2, share=0.1))
    assert judgement.verdict == "inconclusive"
    assert "trained with 10% of the paper's iterations" in judgement.evidence


def test_one_pair_of_twelve_does_not_reproduce_figure_4():
    rows = matched(0.1, 0.2)
    one = rows[rows["cell"].isin(["u1_cnf_8", "u1_nf_8"])]
    failed = finals(FIG4, "kl", {"u2_cnf_8": 0.1}, status="budget")
    judgement = claims.at_least_as_good(pd.concat([one, failed], ignore_index=True))
    assert judgement.verdict == "partly"
    assert judgement.evidence.endswith("; 1 of 12 cases; failed runs: 1 budget")


@pytest.mark.parametrize(
    ("cnf", "nf", "verdict"),
    [(0.09, 0.2, "reproduced"), (0.5, 0.9, "partly"), (0.09, 0.1, "not reproduced"), (0.5, 0.5, "not reproduced")],
)
def test_likelihoods_are_judged_against_the_discrete_flow_and_the_entropy(cnf, nf, verdict):
    rows = finals(FIG5, "test_gap", {"moons_cnf": cnf, "circles_cnf": cnf, "moons_nf": nf, "circles_nf": nf})
    assert claims.better_likelihood(rows).verdict == verdict
    assert claims.better_likelihood(rows).evidence.startswith("in our set-up, ")
    moons = rows[rows["cell"].str.startswith("moons")]
    assert claims.better_likelihood(moons).verdict == ("partly" if verdict == "reproduced" else verdict)


def test_the_circles_alone_say_nothing_of_where_the_discrete_flow_has_difficulty():
    equal = finals(FIG5, "test_gap", {"moons_cnf": 0.05, "circles_cnf": 0.05, "moons_nf": 0.2, "circles_nf": 0.05})
    assert claims.better_likelihood(equal).verdict == "reproduced"
    circles = equal[equal["cell"].str.startswith("circles")]
    assert claims.better_likelihood(circles).verdict == "inconclusive"


@pytest.mark.parametrize(
    ("error", "there", "back", "verdict"),
    [
        (1e-5, 60, 80, "reproduced"),
        (1e-5, 80, 60, "reproduced"),
        (1e-5, 60, 100, "not reproduced"),
        (1e-5, 100, 60, "not reproduced"),
        (1e-2, 60, 60, "reproduced"),
    ],
)
def test_reversal_is_judged_by_its_cost_alone(error, there, back, verdict):
    found = {"reversibility_error": error, "nfe_there": there, "nfe_back": back}
    lines = [(FIG5, f"{name}_cnf", metric, value, None) for name in claims.DATA for metric, value in found.items()]
    assert claims.reversible(frame(*lines)).verdict == verdict
