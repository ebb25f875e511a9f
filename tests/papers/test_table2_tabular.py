"""FFJORD's Table 2 in miniature: architectures, schedules, both objectives, judging in bounded memory, claims."""

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from miniature import final, finals, frame, run
from torch import nn

import repro
from repro.checkpoint import load_tensors
from repro.data import DATASETS, DataError
from repro.experiment import BudgetReached, Context, Interrupted
from repro.flows import CNF, Stack
from repro.likelihood import judged
from repro.loading import NotPublished
from repro.ode import Solver
from repro.papers.ffjord import table2_tabular as table2
from repro.papers.ffjord import tabular_claims, tabular_judging, tabular_pictures, tabular_tables, tabular_training
from repro.papers.ffjord.tabular_claims import SETS, TABLE2
from repro.per_point import load_log_density
from repro.published import load_published
from repro.report.comparison import comparison
from repro.report.site.numbers import interval
from repro.results import COST_METRICS, Row
from repro.runner import MAX_COMMITTED_CHECKPOINT
from repro.training import CHECKPOINT, fit

PUBLISHED = Path(__file__).parents[2] / "results" / "published.csv"
TINY = {"batch": 50, "iterations": 4, "validation_rows": 40, "test_rows": 60, "check_rows": 30, "probe_draws": 2}
NARROW = {**TINY, "multiplier": 1}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A results folder with the published numbers."""
    root = tmp_path / "results"
    root.mkdir(exist_ok=True)
    shutil.copy(PUBLISHED, root)
    monkeypatch.setenv("REPRO_RESULTS", str(root))
    return root


# --- architectures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "concatsquash", "concat"),
    [
        ("power", 43_325, 41_465),
        ("gas", 278_565, 273_685),
        ("hepmass", 546_850, 538_030),
        ("miniboone", 820_613, 817_087),
        ("bsds300", 6_698_666, 6_683_294),
    ],
)
def test_parameters_are_the_public_models_less_its_inert_end_times(cell, concatsquash, concat):
    config = table2.CELLS[cell]
    for layer, expected in (("concatsquash", concatsquash), ("concat", concat)):
        flow = table2.build(replace(config, layer=layer))
        assert sum(p.numel() for p in flow.parameters()) == expected - config.n_flows


def test_architectures_are_those_of_table_4():
    fields = ("activation", "depth", "multiplier", "n_flows", "batch")
    assert {cell: tuple(getattr(table2.CELLS[cell], name) for name in fields) for cell in SETS} == {
        "power": ("tanh", 3, 10, 5, 10_000),
        "gas": ("tanh", 3, 20, 5, 1_000),
        "hepmass": ("softplus", 2, 10, 10, 10_000),
        "miniboone": ("softplus", 2, 20, 1, 1_000),
        "bsds300": ("softplus", 3, 20, 2, 10_000),
    }


def test_flow_matchings_one_field_has_about_the_parameters_of_five():
    one, five = (sum(p.numel() for p in table2.build(table2.CELLS[c]).parameters()) for c in ("power_fm", "power"))
    assert 0.9 < one / five < 1


BAD = (
    ({"data": "mnist"}, "data must be one of"),
    ({"layer": "hyper"}, "layer must be one of"),
    ({"activation": "relu"}, "activation must be one of"),
    ({"validation_divergence": "x"}, "validation_divergence must be one of"),
    ({"batch": 0}, "batch must be at least 1"),
    ({"batch": 1_659_918}, "batch must be at most the 1659917 training rows"),
    ({"test_rows": -1}, "test_rows must be at least 2"),
    ({"probe_draws": 1}, "probe_draws must be at least 2"),
    ({"objective": "flow_matching"}, "n_flows must be 1 for flow matching"),
    ({"gradient": "x"}, "gradient must be one of"),
    ({"penalty_weight": 0.0}, "penalty_weight must be > 0"),
    ({"end_time_spread": 1.0}, "end_time_spread must be in"),
    ({"objective": "flow_matching", "n_flows": 1, "end_time_spread": 0.1}, "belong to training by likelihood"),
    ({"penalty_weight": 0.1, "divergence": "exact"}, "'jacobian' reuses the noise"),
)


@pytest.mark.parametrize(("settings", "complaint"), BAD)
def test_settings_out_of_range_are_refused_by_name(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        table2.build(table2.Config(**settings))


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "settings"),
    [
        ("miniboone_partial", {}),
        ("miniboone_partial", {"schedule": "plateau", "validation_divergence": "hutchinson"}),
        ("power_fm", {"data": "miniboone_partial"}),
        ("power_exact", {"data": "miniboone_partial", "n_flows": 2, "depth": 1}),
        ("power_rnode", {"data": "miniboone_partial", "n_flows": 2, "depth": 1}),
        ("power_steer", {"data": "miniboone_partial", "n_flows": 2, "depth": 1}),
    ],
)
def test_a_cell_trains_is_tested_and_can_be_evaluated_again(tmp_path, cell, settings):
    config, context, rows = run(table2, cell, tmp_path, **NARROW, **settings)
    found = final(rows)
    assert found["test_rows"] == 60
    assert found["epochs"] == 4 * 50 / 1_523
    assert (found["nfe_test"] - 2 * config.n_flows) % 6 == 0
    assert abs(found["tolerance_nll"] - found["tolerance_nll_tight"]) < 1e-3
    assert found["value_drift"] == found["tolerance_nll_tight"] - found["tolerance_nll"]
    assert 0 < found["reconstruction_error_p99"] <= found["reconstruction_error"] < 1e-2
    log_density = load_log_density(context.artefacts).astype(float)
    assert log_density.shape == (60,)
    assert -log_density.mean() == pytest.approx(found["test_nll"], rel=1e-2)
    assert found["reversibility_error"] < 1e-2
    assert set(context.inputs) == {"miniboone_partial/miniboone_maf_partial.npz"}
    tensors, _ = load_tensors(context.artefacts / "model.safetensors")
    again = {row.metric: row.value for row in table2.evaluate(config, tensors, context)}
    assert {metric: found[metric] for metric in again} == again


def test_rnode_adds_its_penalties_to_the_loss_and_lowers_them(tmp_path):
    penalties = {}
    for weight in (1e-9, 10.0):
        settings = {
            "data": "miniboone_partial",
            "n_flows": 2,
            "depth": 1,
            "penalty_weight": weight,
            "learning_rate": 0.05,
        }
        _, _, rows = run(table2, "power_rnode", tmp_path / str(weight), **{**NARROW, **settings})
        penalties[weight] = [row.value for row in rows if row.metric == "penalty"]
        assert len(penalties[weight]) == len([row for row in rows if row.metric == "train_nll"])
    assert penalties[1e-9][0] > 0
    assert penalties[10.0][-1] < penalties[1e-9][-1]


def test_steer_moves_each_end_within_its_spread_and_gives_it_back():
    config = replace(table2.EXPERIMENT.config("power_steer", "smoke"), n_flows=3)
    flow, stream, ends = table2.build(config), torch.Generator().manual_seed(0), []
    for _ in range(200):
        with tabular_training.random_ends(flow, 0.5, stream):
            ends += [cnf.t1 for cnf in flow.cnfs]
        assert [cnf.t1 for cnf in flow.cnfs] == [1.0] * 3
    assert 0.5 <= min(ends) < 0.51
    assert 1.49 < max(ends) <= 1.5
    assert abs(sum(ends) / len(ends) - 1) < 4 * 0.5 / 3**0.5 / len(ends) ** 0.5
    with pytest.raises(KeyError), tabular_training.random_ends(flow, 0.5, stream):
        raise KeyError
    assert [cnf.t1 for cnf in flow.cnfs] == [1.0] * 3


def test_power_is_trained_on_its_own_rows(tmp_path):
    _, context, rows = run(table2, "power", tmp_path, **NARROW)
    assert final(rows)["gaussian_nll"] == pytest.approx(7.74, abs=0.02)
    assert set(context.inputs) == {"power/household_power_complete.npz"}


def test_a_warm_start_begins_at_the_other_cells_weights(tmp_path):
    source = replace(table2.EXPERIMENT.config("power_fm", "smoke"), data="miniboone_partial", multiplier=1)
    weights = table2.build(replace(source, seed=5)).state_dict()
    config = replace(table2.EXPERIMENT.config("power_fm_warm", "smoke"), data="miniboone_partial", **NARROW)
    context = Context(torch.device("cpu"), tmp_path)
    with pytest.raises(ValueError, match="find_weights must be set"):
        list(table2.measure(config, context))
    asked = []
    context.find_weights = lambda *words: asked.append(words[1:]) or weights
    list(table2.measure(replace(config, learning_rate=1e-30), context))
    trained, _ = load_tensors(context.artefacts / "model.safetensors")
    assert asked == [(TABLE2, "power_fm", 0)]
    assert all(torch.equal(trained[name], weights[name]) for name in weights)


def test_a_published_run_can_be_loaded_evaluated_and_sampled(published, call, tmp_path):
    assert call("run", TABLE2, "miniboone_partial", "--tier", "smoke", "--publish")[0] == 0
    flow = repro.load(TABLE2, "miniboone_partial")
    assert isinstance(flow, Stack)
    assert {(cnf.divergence, cnf.solver.engine) for cnf in flow.flows} == {("closed_form", "torchdiffeq")}
    (folder,) = (published / "runs" / TABLE2).glob("miniboone_partial-*/*")
    tensors, _ = load_tensors(folder / "model.safetensors")
    assert all(torch.equal(flow.state_dict()[name], tensor) for name, tensor in tensors.items())
    sample = flow.sample(3, torch.Generator().manual_seed(0))
    assert torch.isfinite(flow.log_prob(sample)).all()
    with pytest.raises(NotPublished, match=r"python -m repro run ffjord/table2_tabular power .*--publish"):
        repro.load(TABLE2, "power")
    with pytest.raises(ValueError, match="cell must be one of"):
        repro.load(TABLE2, "mnist")
    with pytest.raises(ValueError, match="experiment must be one of"):
        repro.load("ffjord/table9", "power")


# --- training --------------------------------------------------------------------------------------------------------


def table_of(n=64, dim=6):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(3))


def make_training(flow, table, *, schedule="plateau", iterations=12, scores=None, **settings):
    recipe = tabular_training.Recipe(
        **{
            "objective": "likelihood",
            "iterations": iterations,
            "batch": 16,
            "learning_rate": 1e-2,
            "schedule": schedule,
            "patience": 1,
            "validation_every": 2,
            **settings,
        }
    )
    scores = iter(scores or ())
    validate = (lambda: next(scores)) if scores is not None else (lambda: 0.0)
    return tabular_training.training_of(flow, table, recipe, validate, 0, torch.device("cpu"))


def test_the_plateau_drops_twice_then_ends_and_never_takes_a_drop_back():
    plateau = tabular_training.Plateau(10)
    factors, ends = [], []
    for value in [1.0, *[2.0] * 10, 2.0, 0.5, *[2.0] * 20, 2.0, 0.4, *[2.0] * 30, 2.0]:
        plateau.watch(Row("train_nll", -9.0, "nats", 1))
        plateau.watch(Row("validation_nll", value, "nats", 1))
        factors.append(plateau.factor)
        ends.append(plateau.finished())
    assert factors[10] == 1
    assert factors[11] == factors[12] == factors[32] == pytest.approx(0.1)
    assert factors[33] == factors[34] == pytest.approx(0.01)
    assert ends == [False] * (len(ends) - 1) + [True]


def worsening(folder, deadlines):
    """Train against validations that only get worse, in several sittings; gives the rows, the weights, the rate."""
    config = replace(table2.EXPERIMENT.config("power", "small"), multiplier=1, n_flows=1)
    flow, rows = table2.build(config), []
    folder.mkdir()
    context = Context(torch.device("cpu"), folder)
    for last in (*deadlines, None):
        done = [row for row in rows if row.metric == "validation_nll"]
        training = make_training(flow, table_of(), iterations=100, scores=[float(n) for n in range(len(done), 60)])
        update = training.update

        def counted(step, last=last, update=update):
            if last is not None and step + 1 == last:
                context.deadline = 0.0
            return update(step)

        training.update, context.deadline = counted, None
        try:
            rows = []
            for row in fit(training, context):
                rows.append(row)
        except BudgetReached:
            flow = table2.build(replace(config, seed=9))
    curve = [row for row in rows if row.metric not in COST_METRICS]
    return curve, flow.state_dict(), training.optimizer.param_groups[0]["lr"]


def test_counter_drops_and_early_end_survive_a_resumption_bit_for_bit(tmp_path):
    rows, weights, rate = worsening(tmp_path / "one", [])
    again, resumed, same = worsening(tmp_path / "three", [3, 6])
    assert final(rows)["steps"] == 10  # five validations: one that improves, and more than three times the patience
    assert rows == again
    assert rate == same == pytest.approx(1e-4)
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


@pytest.mark.parametrize("objective", ["likelihood", "flow_matching"])
def test_a_training_in_two_sittings_ends_with_the_same_bits(tmp_path, objective):
    config = replace(table2.EXPERIMENT.config("power", "small"), multiplier=1, n_flows=1)
    ends = []
    for name, stops in (("one", []), ("two", [5])):
        folder = tmp_path / name
        folder.mkdir()
        for last in (*stops, None):
            flow = table2.build(config)
            training = make_training(
                flow, table_of(), schedule="cosine", scores=[float(9 - n) for n in range(9)], objective=objective
            )
            context = Context(torch.device("cpu"), folder)
            update = training.update

            def stopping(step, last=last, update=update, context=context):
                context.stop = context.stop or step + 1 == last
                return update(step)

            training.update = stopping
            with suppress(Interrupted):
                list(fit(training, context))
        ends.append(flow.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_powers_checkpoint_is_small_and_holds_no_data(tmp_path):
    config = table2.EXPERIMENT.config("power", "small")
    training = make_training(
        table2.build(config), table_of(), schedule="cosine", iterations=2, validation_every=1, scores=[1.0, 0.5]
    )
    list(fit(training, Context(torch.device("cpu"), tmp_path)))
    assert (tmp_path / CHECKPOINT).stat().st_size < MAX_COMMITTED_CHECKPOINT
    tensors, _ = load_tensors(tmp_path / CHECKPOINT)
    assert {name.split(".")[0] for name in tensors} == {"model", "best", "optimizer", "stream"}
    assert {name for name in tensors if name.startswith("stream")} == {"stream.trace noise", "stream.path"}
    # weights, best weights and Adam's two moments, four bytes each, and the streams
    assert sum(tensor.nbytes for tensor in tensors.values()) < 4 * 4 * 43_320 + 20_000


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch_alone():
    table = torch.arange(23.0).unsqueeze(1)
    batch_of = tabular_training.batches(table, 5, 0)
    epochs = [torch.cat([batch_of(4 * epoch + place) for place in range(4)]).flatten().tolist() for epoch in range(3)]
    assert all(len(set(rows)) == 20 for rows in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = tabular_training.batches(table, 5, 0)
    assert torch.equal(again(9), batch_of(9))
    assert not torch.equal(tabular_training.batches(table, 5, 1)(9), batch_of(9))


# --- flow matching ---------------------------------------------------------------------------------------------------


class Shrink(nn.Module):
    """The velocity that flow matching converges to where data are N(0, s²): linear in y at every time."""

    dim = 1

    def __init__(self, s, scale=1.0):
        super().__init__()
        self.s, self.scale = s, nn.Parameter(torch.tensor(scale, dtype=torch.float64))

    def at_times(self, t, y):
        slope = (t - (1 - t) * self.s**2) / ((1 - t) ** 2 * self.s**2 + t**2)
        return self.scale * slope * y

    def forward(self, t, y):
        return self.at_times(t, y)


def test_the_minimum_of_the_matching_loss_is_a_flow_of_the_data():
    s, generator = 0.3, torch.Generator().manual_seed(0)
    x, z = torch.randn(2, 200_000, 1, generator=generator, dtype=torch.float64)
    cnf = CNF(Shrink(s), 1, solver=Solver("dopri5", rtol=1e-9, atol=1e-9))
    loss = tabular_training.matching_loss(cnf, s * x, z, torch.tensor(0.25, dtype=torch.float64))
    (slope,) = torch.autograd.grad(loss, [cnf.field.scale])
    wrong = CNF(Shrink(s, 1.5), 1)
    other = tabular_training.matching_loss(wrong, s * x, z, torch.tensor(0.25, dtype=torch.float64))
    (off,) = torch.autograd.grad(other, [wrong.field.scale])
    assert abs(slope) < 0.02 * off
    assert loss < other
    found = cnf.log_prob(s * x[:50])
    expected = torch.distributions.Normal(0, s).log_prob((s * x[:50]).squeeze(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("layer", ["concatsquash", "concat", "ignore"])
def test_a_field_at_equal_times_is_the_field(make_field, layer):
    field, y = make_field(3, layer=layer), torch.randn(5, 3, dtype=torch.float64)
    for time in (0.0, 0.4):
        t = torch.full((5, 1), time, dtype=torch.float64)
        torch.testing.assert_close(field.at_times(t, y), field(t[0, 0], y))
    times = torch.linspace(0, 1, 5, dtype=torch.float64)
    rows = torch.stack([field(time, row[None])[0] for time, row in zip(times, y, strict=True)])
    torch.testing.assert_close(field.at_times(times[:, None], y), rows)


# --- judging ---------------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """f(t, y) = A y."""

    dim = 3

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[0.3, 0.5, 0.0], [-0.2, 0.1, 0.4], [0.7, 0.0, -0.6]]))

    def forward(self, t, y):
        return y @ self.matrix.T


def test_the_probes_variance_is_hutchinsons_formula():
    flow = Stack([CNF(Linear(), 3, 1.0, "hutchinson", Solver("dopri5"))])
    rows = list(tabular_judging.probe_rows(flow, torch.randn(400, 3), 40, 7_000, 0))
    matrix = flow.flows[0].field.matrix.detach()
    expected = 2 * float(((matrix + matrix.T) / 2).square().sum())  # Gaussian probes, constant Jacobian, unit time
    assert rows[0].value ** 2 == pytest.approx(expected, rel=0.05)
    assert rows[1].value == pytest.approx(rows[0].value ** 2 / 7_000)


def test_chunks_bound_the_memory_and_change_nothing_beyond_the_tolerance(monkeypatch):
    wide = table2.exact(table2.build(table2.CELLS["bsds300"]), table2.CELLS["bsds300"])
    assert 4 * 63 * 1260 * tabular_judging.rows_at_once(wide) <= tabular_judging.CHUNK_BYTES
    config = replace(table2.CELLS["power"], multiplier=1, n_flows=2)
    flow, x = table2.exact(table2.build(config), config), table_of(30)
    whole, spent = tabular_judging.log_probs(flow, x)
    monkeypatch.setattr(tabular_judging, "CHUNK", 7)
    calls = []
    parts, costs = tabular_judging.log_probs(flow, x, between=lambda: calls.append(1))
    assert (len(spent), len(costs), len(calls)) == (1, 5, 5)
    assert whole.dtype == torch.float64
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-4)


def test_validation_draws_the_same_probes_every_time():
    config = replace(table2.CELLS["power"], multiplier=1, n_flows=1)
    flow = judged(table2.build(config), "hutchinson", config.solver)
    assert tabular_judging.nll(flow, table_of(), 0) == tabular_judging.nll(flow, table_of(), 0)
    assert tabular_judging.nll(flow, table_of(), 0) != tabular_judging.nll(flow, table_of(), 1)


def test_a_gaussians_own_nll_is_its_entropy():
    mixing = torch.tensor([[1.0, 0.0], [0.8, 0.5]])
    x = torch.randn(40_000, 2, generator=torch.Generator().manual_seed(0)) @ mixing.T
    entropy = float(torch.distributions.MultivariateNormal(torch.zeros(2), mixing @ mixing.T).entropy())
    assert tabular_judging.gaussian_nll(x[:20_000], x[20_000:]) == pytest.approx(entropy, abs=0.03)


@pytest.mark.parametrize("name", SETS)
def test_a_gaussian_has_the_likelihood_that_maf_prints(name):
    try:
        splits = DATASETS[name].load()
    except DataError as error:
        pytest.skip(f"{name} is not here: {error}")
    printed = {n.cell: n for n in load_published(PUBLISHED) if (n.metric, n.method) == ("test_nll", "Gaussian")}
    found = tabular_judging.gaussian_nll(splits.train, splits.test)
    assert found == pytest.approx(printed[name].value, abs=0.006)


# --- claims, figure, table -------------------------------------------------------------------------------------------

REACHED = {"power": -0.46, "gas": -8.6, "hepmass": 14.9, "miniboone": 10.4, "bsds300": -157.5}


def in_full(values):
    """Rows of trainings in the tier `paper`."""
    return finals(TABLE2, "test_nll", values).assign(tier="paper")


def test_the_papers_own_numbers_satisfy_its_claims(published):
    rows = in_full(REACHED)
    for check in (tabular_claims.reaches_the_table, tabular_claims.beats_maf, tabular_claims.beats_tan):
        assert check(rows).verdict == "reproduced"
    assert "power -0.46, MAF -0.24" in tabular_claims.beats_maf(rows).evidence


@pytest.mark.parametrize(
    ("change", "reaches", "maf", "tan"),
    [
        ({"power": -0.2}, "partly", "partly", "reproduced"),
        ({"gas": -11.0}, "reproduced", "partly", "reproduced"),
        ({"miniboone": 11.5}, "partly", "reproduced", "not reproduced"),
        (dict.fromkeys(SETS, 99.0), "not reproduced", "partly", "not reproduced"),
    ],
)
def test_other_numbers_do_not(published, change, reaches, maf, tan):
    rows = in_full(REACHED | change)
    assert tabular_claims.reaches_the_table(rows).verdict == reaches
    assert tabular_claims.beats_maf(rows).verdict == maf
    assert tabular_claims.beats_tan(rows).verdict == tan


def test_gas_cut_short_above_maf_says_nothing_and_below_it_contradicts(published):
    for gas, verdict in ((99.0, "inconclusive"), (-11.0, "not reproduced")):
        assert tabular_claims.beats_maf(finals(TABLE2, "test_nll", {"gas": gas})).verdict == verdict


def test_the_training_with_more_updates_speaks_for_power_unless_it_was_trained_in_full(published):
    cut = finals(TABLE2, "test_nll", {"power": 0.1, "power_long": -0.3})
    assert "power -0.30, MAF -0.24" in tabular_claims.beats_maf(cut).evidence
    assert tabular_claims.beats_maf(cut).verdict == "partly"
    full = pd.concat([in_full({"power": 0.1}), finals(TABLE2, "test_nll", {"power_long": -0.3}).assign(tier="paper")])
    assert "power 0.10" in tabular_claims.reaches_the_table(full).evidence


def test_a_training_cut_short_counts_only_where_it_holds(published):
    cut = finals(TABLE2, "test_nll", {"power": 0.1, "miniboone": 10.4})
    reached = tabular_claims.reaches_the_table(cut)
    assert reached.verdict == "partly"
    assert "power 0.10 against -0.46" in reached.evidence
    assert "1 of 5 cases" in reached.evidence
    missed = tabular_claims.reaches_the_table(cut[cut["cell"] == "power"])
    assert missed.verdict == "inconclusive"
    assert missed.evidence.endswith("the training was cut short")


def test_one_set_alone_is_at_most_partly_and_none_is_not_attempted(published):
    one = in_full({"power": -0.46})
    assert tabular_claims.reaches_the_table(one).verdict == "partly"
    assert "1 of 5 cases" in tabular_claims.beats_maf(one).evidence
    assert tabular_claims.beats_tan(one).verdict == "not attempted"
    for claim in table2.EXPERIMENT.claims:
        assert claim.check(one[:0]).verdict == "not attempted"


def test_the_probes_variance_on_tables_is_a_remark_and_judges_no_claim():
    rows = finals(TABLE2, "probe_variance", {"power": 2e-4, "gas": 1e-7})
    assert tabular_claims.probes_add_little(rows).verdict == "not attempted"
    assert tabular_claims.measure_probes(rows).endswith("a variance, in nats², of power 2.0e-04, gas 1.0e-07.")
    assert tabular_claims.measure_probes(rows[:0]) == ""


def test_a_flow_that_loses_to_one_gaussian_is_named():
    nlls, gaussians = {"power": -0.3, "bsds300_patches": -67.0}, {"power": 7.7, "bsds300_patches": -96.5}
    updates = finals(TABLE2, "steps", {"bsds300_patches": 3_000})
    rows = pd.concat([finals(TABLE2, "test_nll", nlls), finals(TABLE2, "gaussian_nll", gaussians), updates])
    assert tabular_claims.compare_with_gaussian(rows) == (
        "Trained flows that are worse than one Gaussian with a full covariance: bsds300_patches 29.5 nats (test NLL "
        "-67.00 against -96.50, after 3,000 updates)."
    )
    assert tabular_claims.compare_with_gaussian(rows[rows["cell"] == "power"]) == ""


@pytest.mark.parametrize(("estimated", "verdict"), [(-0.30, "reproduced"), (-0.20, "not reproduced")])
def test_the_estimator_is_judged_beside_the_exact_trace(estimated, verdict):
    rows = finals(TABLE2, "test_nll", {"power": estimated, "power_exact": -0.32})
    assert tabular_claims.estimator_suffices(rows).verdict == verdict
    updates = finals(TABLE2, "steps", {"power": 5_000, "power_exact": 1_666})
    assert tabular_claims.estimator_suffices(pd.concat([rows, updates])).verdict == "inconclusive"


def test_time_is_spread_by_evaluations():
    index = pd.Index([100, 200, 300, 400])
    spent = pd.DataFrame({"validation_nll": 1.0, "nfe_forward": [10, 20, 30, 20], "nfe_backward": 0.0}, index)
    np.testing.assert_allclose(tabular_pictures.shares_of_time(spent), [0.125, 0.375, 0.75, 1.0])
    np.testing.assert_allclose(tabular_pictures.shares_of_time(spent[["validation_nll"]]), [0.25, 0.5, 0.75, 1.0])


def test_figure_and_table_show_what_was_run(published):
    curve = [("power", 200 * n, 1.0 - 0.1 * n) for n in range(1, 6)]
    rows = frame(*((TABLE2, cell, "validation_nll", value, step) for cell, step, value in curve))
    rows = pd.concat([rows, *(finals(TABLE2, m, {"power": v}) for m, v in (("wall_time", 3600), ("test_nll", -0.3)))])
    figure = tabular_pictures.draw_power(rows)
    assert figure.axes[0].get_xlabel().startswith("updates")
    lines = {line.get_label(): line.get_ydata()[0] for line in figure.axes[0].lines[1:]}
    assert lines["FFJORD, paper"] == tabular_claims.value_of("power", "FFJORD")
    assert lines["MAF, paper"] == tabular_claims.value_of("power", "MAF")
    np.testing.assert_allclose(figure.axes[1].lines[0].get_xdata(), [0.2, 0.4, 0.6, 0.8, 1.0])
    (line,) = tabular_tables.tabular_table(rows).to_dict("records")
    assert line["data and model"] == "power, FFJORD"
    assert (line["test NLL"], line["FFJORD, paper"], line["training / min, beside other work"]) == (
        "-0.300",
        "-0.46",
        "60",
    )
    assert not figure.axes[3].lines
    assert tabular_pictures.draw_power(rows[:0]) is None


def test_a_run_with_a_clock_is_drawn_by_it(published):
    points = [(200 * n, 1.0 - 0.1 * n, 36.0 * n**2, 0.1 * n) for n in range(1, 6)]
    rows = frame(
        *(
            (TABLE2, "power_rnode", metric, value, step)
            for step, nll, elapsed, update in points
            for metric, value in (("validation_nll", nll), ("elapsed", elapsed), ("update_time", update))
        )
    )
    figure = tabular_pictures.draw_power(rows)
    np.testing.assert_allclose(figure.axes[1].lines[0].get_xdata(), [0.01, 0.04, 0.09, 0.16, 0.25])
    np.testing.assert_allclose(figure.axes[3].lines[0].get_ydata(), [0.1, 0.2, 0.3, 0.4, 0.5])


def test_table_2_has_our_line_above_the_printed_ones(published):
    values = {"power": 0.1, "power_long": -0.34, "power_fm_warm": -0.2, "power_fm_long_warm": -0.37}
    table = tabular_tables.methods_table(finals(TABLE2, "test_nll", values)).set_index("method")
    assert list(table.columns) == list(SETS)
    assert table.index[0] == "FFJORD, ours (small)"
    assert table.iloc[0].tolist() == ["-0.34", "-", "-", "-", "-"]
    assert table.iloc[1].tolist() == ["-0.37", "-", "-", "-", "-"]
    assert table.loc["FFJORD", "power"] == "-0.46 ± 0.01"
    assert table.loc["TAN", "gas"] == "-11.19 ± 0.02"


def test_the_partial_set_has_no_published_number(published):
    assert tabular_claims.published_nlls("miniboone_partial") == {}
    with pytest.raises(ValueError, match=r"published.csv has no test_nll of MAF on miniboone_partial"):
        tabular_claims.value_of("miniboone_partial", "MAF")


def test_the_interval_beside_our_number_is_that_of_the_run_it_comes_from(published):
    values = {"test_nll": {"power": 0.1, "power_long": -0.34}, "test_nll_error": {"power": 0.5, "power_long": 0.01}}
    rows = pd.concat([finals(TABLE2, metric, found) for metric, found in values.items()]).assign(unit="nats")
    numbers = {n.method: n for n in tabular_claims.published_nlls("power").values()}
    line = comparison([numbers["FFJORD"]], rows, None).iloc[0]
    assert line["ours"].startswith("-0.34")
    assert "ours by power_long" in line["note"]
    assert interval(numbers["FFJORD"], rows, ("small",)) == "[-0.360,\u00a0-0.320]"
    assert interval(numbers["Gaussian"], rows, ("small",)) == ""
