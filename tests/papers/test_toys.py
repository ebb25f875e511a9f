"""FFJORD's toy artefacts in miniature: rows, pictures, weights that give the same numbers again, judged claims."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from miniature import final, finals, frame, run

from repro.arrays import ARRAYS, load_arrays, save_arrays
from repro.checkpoint import load_tensors
from repro.data import DENSITIES
from repro.experiment import Context
from repro.flows import CNF
from repro.ode import Solver
from repro.papers.ffjord import fig1_density1d, fig2_toy2d, fig8_tolerance, section3_noise, toy_claims
from repro.papers.ffjord.toy_claims import COMPARED, FIG2, FIG8, NOISE
from repro.per_point import load_log_density

TINY = {"iterations": 4, "validation_every": 2, "test_points": 60, "side": 16, "film_frames": 2}


@pytest.mark.parametrize("cell", ["moons", "8gaussians_hutchinson", "2spirals_glow_bounded", "checkerboard_planar"])
def test_a_cell_trains_is_measured_and_can_be_evaluated_again(tmp_path, cell):
    config, context, rows = run(fig2_toy2d, cell, tmp_path, **TINY)
    found, continuous = final(rows), config.model != "glow"
    assert found["nll_floor"] == DENSITIES[config.data].entropy()
    assert found["test_gap"] > 0
    assert ("nfe_test" in found) == continuous
    if continuous:
        assert all((found[metric] - 2) % 6 == 0 for metric in ("nfe_test", "nfe_there", "nfe_back"))
        assert abs(found["test_nll_tight"] - found["test_nll"]) < 1e-3
        assert {"nfe_forward", "nfe_backward"} <= {row.metric for row in rows if row.step is not None}
        assert found["value_drift"] == found["test_nll_tight"] - found["test_nll"]
        assert 0 < found["reconstruction_error_p99"] <= found["reconstruction_error"] < 1e-2
    assert ("reconstruction_error" in found) == ("value_drift" in found) == continuous
    log_density = load_log_density(context.artefacts).astype(float)
    assert log_density.shape == (60,)
    assert -log_density.mean() == pytest.approx(found["test_nll"], rel=1e-3)
    tensors, _ = load_tensors(context.artefacts / "model.safetensors")
    again = {row.metric: row.value for row in fig2_toy2d.evaluate(config, tensors, context)}
    assert {metric: found[metric] for metric in again} == again
    with np.load(context.artefacts / ARRAYS) as arrays:
        assert arrays["density"].shape == (16, 16)
        assert ("film_density" in arrays.files) == continuous


def test_estimator_cells_train_with_noise_and_are_judged_without(tmp_path):
    config = fig2_toy2d.EXPERIMENT.config("8gaussians_hutchinson", "smoke")
    flow = fig2_toy2d.build(config)
    assert flow.divergence == "hutchinson"
    judged = fig2_toy2d.exact(flow)
    assert judged.divergence == "closed_form"
    assert judged.field is flow.field
    assert sum(p.numel() for p in flow.parameters()) == 9_224


def test_the_public_rings_are_another_distribution(tmp_path):
    ours, theirs = (fig2_toy2d.EXPERIMENT.config(cell, "small") for cell in ("rings", "rings_released"))
    assert replace(theirs, released_sampling=False) == ours
    with pytest.raises(ValueError, match="released_sampling"):
        fig2_toy2d.Config(data="moons", released_sampling=True)


BAD = ({"data": "mnist"}, {"layer": "hyper"}, {"batch": 0}, {"gradient": "x"}, {"side": 1}, {"film_frames": 0})


@pytest.mark.parametrize("setting", BAD)
def test_bad_settings_are_named(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        fig2_toy2d.Config(**setting)


def test_the_flow_on_the_line_and_its_integral(tmp_path):
    _, context, rows = run(fig1_density1d, "mixture_1d", tmp_path, iterations=4, test_points=60)
    found = final(rows)
    assert found["test_gap"] > 0
    assert 0 < abs(found["value_drift"]) < 1e-3
    assert 0 < found["reconstruction_error_p99"] <= found["reconstruction_error"] < 1e-2
    assert -load_log_density(context.artefacts).astype(float).mean() == pytest.approx(found["test_nll"], rel=1e-3)
    with np.load(context.artefacts / ARRAYS) as arrays:
        assert arrays["density"].shape == (5, 240)
        cell = float(arrays["line"][1] - arrays["line"][0])
        np.testing.assert_allclose(arrays["density"].astype(float).sum(1) * cell, 1, atol=0.01)
    tensors, _ = load_tensors(context.artefacts / "model.safetensors")
    sweep = Context(torch.device("cpu"), tmp_path)
    sweep.find_weights = lambda experiment, name, cell, seed: tensors
    config = fig8_tolerance.EXPERIMENT.config("mixture_1d", "smoke")
    rows = list(fig8_tolerance.measure(config, sweep))
    errors = [row.value for row in rows if row.metric == "integral_error"]
    assert len(errors) == len(config.tolerances)
    assert errors[-1] < 1e-3
    assert final(rows)["integral_floor"] < 1e-10


def test_the_line_is_solved_as_one_batch(tmp_path, monkeypatch):
    """Chunks of neighbours would take other steps, and the last one lies in the tail."""
    flow = fig1_density1d.build(fig1_density1d.Config())
    sweep = Context(torch.device("cpu"), tmp_path)
    sweep.find_weights = lambda experiment, name, cell, seed: flow.state_dict()
    monkeypatch.setattr("repro.likelihood.CHUNK", 50)
    config = fig8_tolerance.Config(tolerances=(1e-3, 1e-6), points=101)
    rows = list(fig8_tolerance.measure(config, sweep))
    flow.double()
    x = torch.linspace(-15, 15, 101, dtype=torch.float64).unsqueeze(1)
    for step, tolerance in enumerate(config.tolerances):
        flow.solver = Solver("dopri5", rtol=tolerance, atol=tolerance)
        total = float(flow.log_prob(x).detach().exp().sum()) * 30 / 100
        found = {row.metric: row.value for row in rows if row.step == step}
        assert found["nfe_forward"] == flow.stats.nfe_forward
        assert found["integral_error"] == pytest.approx(abs(1 - total), abs=1e-12)


def test_the_sums_own_error_is_that_of_its_spacing_and_of_the_tails():
    def normal(n, width):
        return torch.distributions.Normal(0.0, 1.0).log_prob(torch.linspace(-width, width, n).double()).exp()

    for n in (2_000, 2_001):
        assert fig8_tolerance.riemann_sum(normal(n, 15), 15.0) == pytest.approx(1, abs=1e-5)
        assert fig8_tolerance.sum_error(normal(n, 15), 15.0) < 1e-5
    coarse = abs(1 - fig8_tolerance.riemann_sum(normal(13, 15), 15.0))
    assert coarse > 1e-2
    assert fig8_tolerance.sum_error(normal(13, 15), 15.0) > coarse
    flow = fig1_density1d.build(fig1_density1d.Config()).double()
    flow.solver = Solver(rtol=1e-10, atol=1e-10)
    x = torch.linspace(-2, 2, 4001).double().unsqueeze(1)
    inside = fig8_tolerance.riemann_sum(flow.log_prob(x).detach().exp(), 2.0)
    assert fig8_tolerance.mass_outside(flow, 2.0) == pytest.approx(1 - inside, abs=1e-3)


def test_redrawn_noise_costs_evaluations(tmp_path):
    weights = CNF(fig2_toy2d.build(fig2_toy2d.Config()).field, 2).state_dict()
    spent = {}
    for cell in ("fixed", "redrawn"):
        context = Context(torch.device("cpu"), tmp_path)
        context.find_weights = lambda experiment, name, cell, seed: weights
        spent[cell] = final(section3_noise.measure(section3_noise.EXPERIMENT.config(cell, "smoke"), context))
    assert spent["fixed"]["stopped"] == 0
    assert spent["redrawn"]["nfe_forward"] > 3 * spent["fixed"]["nfe_forward"]


def test_claims_without_runs_are_not_attempted():
    for claim in (*toy_claims.FIG2_CLAIMS, *toy_claims.FIG8_CLAIMS, *toy_claims.NOISE_CLAIMS):
        assert claim.check(frame()).verdict == "not attempted"
    assert load_arrays(frame(), FIG2, "moons") is None
    assert fig2_toy2d.EXPERIMENT.draw["ffjord_fig2"](frame()) is None


def test_every_density_is_drawn_with_its_likelihood_and_its_cost(tmp_path):
    metrics = {"nll_floor": 2.832, "test_nll": 2.9, "nfe_test": 80.0}
    lines = [(FIG2, "8gaussians", metric, value, None) for metric, value in metrics.items()]
    lines += [(FIG2, "8gaussians_planar", metric, value + 1, None) for metric, value in metrics.items()]
    rows = frame(*lines, (FIG2, "8gaussians_glow", "test_nll", 3.5, None))
    image = np.ones((8, 8), np.uint8)
    for name in rows["run"].unique():
        folder = tmp_path / "results" / "runs" / name
        folder.mkdir(parents=True)
        save_arrays(folder / ARRAYS, {"density": image, "truth": image, "sample": np.zeros((5, 2), np.float16)})
    figure = fig2_toy2d.EXPERIMENT.draw["ffjord_fig2"](rows)
    captions = [axis.get_xlabel() for axis in figure.axes]
    assert captions == ["entropy 2.832", "NLL 2.900\nNFE 80", "", "NLL 3.900\nNFE 81", "NLL 3.500\nno solver"]


def sets(metric, values, **keys):
    return finals(FIG2, metric, values, **keys)


@pytest.mark.parametrize(
    ("counts", "verdict"), [((80, 110), "reproduced"), ((80, 200), "partly"), ((65, 200), "not reproduced")]
)
def test_evaluations_are_judged_by_the_stated_band_with_the_estimator(counts, verdict):
    values = {f"{name}_hutchinson": counts[index % 2] for index, name in enumerate(COMPARED)}
    judgement = toy_claims.evaluations(sets("nfe_test", values | {"moons": 56.0}))
    assert judgement.verdict == verdict
    assert judgement.evidence.endswith("; trained with the exact trace: moons 56")


def test_the_exact_trace_alone_does_not_judge_evaluations():
    rows = sets("nfe_test", dict.fromkeys(toy_claims.SETS, 80.0))
    assert toy_claims.evaluations(rows).verdict == "not attempted"


def test_remarks_compare_rings_and_directions():
    rows = sets("test_gap", {"rings": 0.4, "rings_released": 0.05})
    assert "does not rule out chance" in toy_claims.compare_rings(rows)
    more = [sets("test_gap", {"rings": 0.4, "rings_released": 0.05}, seed=seed) for seed in range(3)]
    assert toy_claims.compare_rings(pd.concat(more)).endswith("no run tells this from other reasons.")
    assert toy_claims.compare_rings(rows[:1]) == ""
    both = pd.concat([sets("nfe_there", {"moons": 62.0}), sets("nfe_back", {"moons": 31.0})])
    assert toy_claims.compare_directions(both).endswith("as back: moons 2.00.")
    assert toy_claims.compare_directions(rows) == ""


def against_glow(ours, theirs, share, own=0.0):
    masses = {cell: mass for name in COMPARED for cell, mass in ((name, ours), (toy_claims.GLOWS[name], theirs))}
    shares = {toy_claims.GLOWS[name]: share for name in COMPARED}
    parts = {"empty_mass": masses, "budget_share": shares, "empty_mass_data": dict.fromkeys(COMPARED, own)}
    return pd.concat([sets(*part) for part in parts.items()], ignore_index=True)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [(0.012, 0.015, "reproduced"), (0.018, 0.021, "not reproduced"), (0.005, 0.009, "not reproduced")],
)
def test_the_datas_own_mass_is_no_ones_merit_or_fault(ours, theirs, verdict):
    assert toy_claims.separated_modes(against_glow(ours, theirs, 1, own=0.01)).verdict == verdict


@pytest.mark.parametrize(
    ("ours", "share", "verdict"),
    [(0.01, 1, "reproduced"), (0.01, 0.1, "partly"), (0.06, 1, "not reproduced"), (0.06, 0.1, "not reproduced")],
)
def test_separated_modes_are_judged_against_couplings_of_full_budget(ours, share, verdict):
    judgement = toy_claims.separated_modes(against_glow(ours, 0.1, share))
    assert judgement.verdict == verdict
    assert judgement.evidence.endswith(f"Glow had {share:.0%} of the public script's iterations; seeds in common: 1")


def test_one_short_seed_of_glow_counts_as_less_than_the_full_budget():
    rows = [against_glow(0.01, 0.1, 1), sets("budget_share", {"2spirals_glow_bounded": 0.5}, seed=1)]
    assert toy_claims.separated_modes(pd.concat(rows, ignore_index=True)).verdict == "partly"
    assert toy_claims.separated_modes(rows[0][rows[0]["metric"] == "empty_mass"]).verdict == "partly"


@pytest.mark.parametrize(("gap", "verdict"), [(0.12, "reproduced"), (0.2, "not reproduced")])
def test_the_estimator_is_judged_seed_by_seed(gap, verdict):
    """A seed that only one of the two has must not decide."""
    cells = dict.fromkeys(COMPARED, 0.1) | {f"{name}_hutchinson": gap for name in COMPARED}
    alone = sets("test_gap", {f"{name}_hutchinson": 9.0 for name in COMPARED}, seed=1)
    rows = pd.concat([sets("test_gap", cells), alone], ignore_index=True)
    assert toy_claims.hutchinson_suffices(rows).verdict == verdict


def test_missing_and_diverged_sets_cap_a_claim():
    claims = {toy_claims.evaluations: 3, toy_claims.separated_modes: 3, toy_claims.hutchinson_suffices: 3}
    values = {"empty_mass": 0.01, "test_gap": 0.1}
    good = [(FIG2, "8gaussians", metric, value, None) for metric, value in values.items()]
    good += [(FIG2, "8gaussians_glow", "empty_mass", 0.1, None), (FIG2, "8gaussians_hutchinson", "test_gap", 0.1, None)]
    good += [(FIG2, "8gaussians_hutchinson", "nfe_test", 80.0, None)]
    stopped = [(FIG2, f"2spirals{end}", "none", np.nan, None) for end in ("", "_hutchinson")]
    diverged = frame(*stopped, status="diverged")
    rows = pd.concat([frame(*good), diverged], ignore_index=True)
    for claim, expected in claims.items():
        judgement = claim(rows)
        assert judgement.verdict == "partly"
        assert re.search(rf"; 1 of {expected} cases; failed runs: [12] diverged$", judgement.evidence)


TOLERANCES = tuple(10.0**-n for n in range(1, 9))


def tolerance_sweep(errors, floor=1e-14):
    lines = [(FIG8, "mixture_1d", "integral_floor", floor, None)]
    for step, (tolerance, error) in enumerate(zip(TOLERANCES, errors, strict=True)):
        lines += [(FIG8, "mixture_1d", "tolerance", tolerance, step)]
        lines += [(FIG8, "mixture_1d", "integral_error", error, step)]
    return frame(*lines)


@pytest.mark.parametrize(
    ("power", "factor", "verdict"), [(1, 1, "reproduced"), (1, 100, "not reproduced"), (0, 1e-8, "partly")]
)
def test_the_integral_is_judged_against_the_tolerance(power, factor, verdict):
    rows = tolerance_sweep([factor * tolerance**power for tolerance in TOLERANCES])
    assert toy_claims.integral_error(rows).verdict == verdict


def test_the_integral_is_judged_down_to_the_error_of_its_sum():
    stalled = [max(tolerance, 1e-6) for tolerance in TOLERANCES]
    judgement = toy_claims.integral_error(tolerance_sweep(stalled))
    assert judgement.verdict == "not reproduced"
    assert judgement.evidence.endswith("1e-08 to 1e-01")
    judgement = toy_claims.integral_error(tolerance_sweep(stalled, floor=9e-7))
    assert judgement.verdict == "reproduced"
    assert judgement.evidence.endswith("1e-05 to 1e-01")
    assert "hides" in toy_claims.integral_error(tolerance_sweep(stalled, floor=0.5)).evidence


def solves(fixed, redrawn, stopped=(0, 0), seed=0):
    lines = []
    for cell, spent, end in zip(("fixed", "redrawn"), (fixed, redrawn), stopped, strict=True):
        lines += [(NOISE, cell, "nfe_forward", spent, None), (NOISE, cell, "stopped", end, None)]
    return frame(*lines, seed=seed)


@pytest.mark.parametrize(
    ("redrawn", "stopped", "verdict"),
    [
        (400, (0, 0), "reproduced"),
        (150, (0, 0), "partly"),
        (100, (0, 0), "not reproduced"),
        (150, (0, 1), "reproduced"),  # its steps became too small
        (400, (1, 0), "not reproduced"),
        (400, (1, 1), "not reproduced"),
    ],
)
def test_noise_is_judged_by_evaluations_and_by_who_came_to_an_end(redrawn, stopped, verdict):
    judgement = toy_claims.noise_once(solves(100, redrawn, stopped))
    assert judgement.verdict == verdict
    assert ("no end after" in judgement.evidence) == any(stopped)


def test_noise_is_judged_on_every_seed_that_both_have():
    both = [solves(100, 400), solves(100, 150, seed=1)]
    assert toy_claims.noise_once(pd.concat(both, ignore_index=True)).verdict == "partly"
    alone = both[1][both[1]["cell"] == "redrawn"]
    assert toy_claims.noise_once(pd.concat([both[0], alone], ignore_index=True)).verdict == "reproduced"
