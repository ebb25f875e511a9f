"""FFJORD, Table 2 (Section 4.2, Appendix B; Tables 4 and 6): densities of five tabular data sets.

Cells without suffix have Table 4's architecture and the paper's solver. POWER ships and is trained for real; GAS,
HEPMASS, MINIBOONE and BSDS300 need `python -m repro data fetch`; `miniboone_partial` is MINIBOONE's model on the part
of its training rows that ships, for smoke and timing, never to be compared; `bsds300_patches` a field cut down to one
CNF of two hidden layers, on patches of our own drawing from BSDS300's photographs, to be compared loosely. Our
additions on POWER: `power_concat`, time as the text has it; `power_exact`, the exact trace in training; `power_long`,
more updates in the tier `small`; `power_fm`, one CNF with as many parameters trained by flow matching, without any
solve; `power_fm_warm`, the same trained on by maximum likelihood; `power_fm_long` and `power_fm_long_warm`, both with
more updates; `power_rnode` and `power_steer`, with the penalties of Finlay et al. 2020 (arXiv 2002.02798) and with the
random end times of Ghosh et al. 2020 (arXiv 2006.10711).

Deviations: the paper states neither optimiser nor learning rate nor when to stop; Adam, 1e-3 and the schedule are the
public script's (train_tabular.py). Its weight decay of 1e-6 has no effect there and is left out; its end time "train_T"
never gets a gradient and is left out too. Validation draws the same probes every time. POWER's time column gets
uniform noise at load (`repro.data.tabular_power`). The tier `small` trains on batches of 1,000 at tolerance 1e-5 by the
compiled engine with gradients by `checkpoint`, its learning rate falling to 0 over a fixed number of updates, and
validates by the exact trace on 2,000 rows; its test is the paper's: exact trace, tolerances 1e-6 and 1e-8, all rows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from repro.checkpoint import load_weights, save_tensors
from repro.data import DATASETS, Splits, Table
from repro.data.tabular import SIZES
from repro.evaluation.budgets import Budget
from repro.evaluation.verdicts import Comparability
from repro.experiment import Context, Experiment
from repro.flows import CNF, Stack
from repro.likelihood import judged, natively
from repro.nets.fields import FIELDS
from repro.papers.ffjord.tabular_claims import MULTIPLES, TABLE2, TABLE2_CLAIMS, TABLE2_REMARKS
from repro.papers.ffjord.tabular_config import Config
from repro.papers.ffjord.tabular_deviations import TABLES
from repro.papers.ffjord.tabular_judging import (
    gaussian_nll,
    nll,
    probe_rows,
    test_rows,
    tight_rows,
    tolerance_rows,
)
from repro.papers.ffjord.tabular_pictures import draw_power
from repro.papers.ffjord.tabular_tables import methods_table, tabular_table
from repro.papers.ffjord.tabular_training import Recipe, training_of
from repro.results import Row
from repro.training import fit

RNODE = ("kinetic", "jacobian")
"""Its penalties, by their names in PENALTIES."""


def build(config: Config) -> Stack:
    """The flow of a config, initialised from its seed."""
    dim = SIZES[config.data][0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Stack([_cnf(config, dim) for _ in range(config.n_flows)])


def _cnf(config: Config, dim: int) -> CNF:
    field = FIELDS[config.layer](dim, config.multiplier * dim, config.depth, config.activation)
    penalties = RNODE if config.penalty_weight else ()
    given = (field, dim, config.t1, config.divergence, config.solver, config.gradient)
    return CNF(*given, noise=config.noise, penalties=penalties)


def exact(flow: Stack, config: Config) -> Stack:
    """The same weights as the test has them: exact trace, the test's solver."""
    return judged(flow, "closed_form", config.test_solver)


def load(config: Config, context: Context) -> Splits[Table]:
    """The data of a config; their SHA-256 goes into the run's record."""
    splits = DATASETS[config.data].load()
    context.inputs.update(splits.sha256)
    return splits


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Train one flow on one table and test it."""
    splits = load(config, context)
    flow = build(config).to(context.device)
    if config.warm_start is not None:
        load_weights(flow, _found(config.warm_start, config, context))
    yield Row("parameters", sum(p.numel() for p in flow.parameters()), "parameters")
    yield Row("gaussian_nll", gaussian_nll(splits.train, splits.test), "nats")
    held_out = splits.validation[: config.validation_rows]
    validated = judged(flow, config.validation_divergence, config.solver)

    def validate() -> float:
        return nll(validated, held_out, config.seed)

    training = training_of(flow, splits.train, recipe_of(config), validate, config.seed, context.device)
    for row in fit(training, context):
        yield row
        if row.metric == "steps":
            yield Row("epochs", row.value * config.batch / len(splits.train), "passes over the training rows")
    save_tensors(context.artefacts / "model.safetensors", flow.state_dict(), {"data": config.data})
    yield from final_rows(config, flow, splits, context)


def _found(cell: str, config: Config, context: Context) -> Mapping[str, Tensor]:
    if context.find_weights is None:
        raise ValueError(f"find_weights must be set: warm_start needs the weights of {cell}")
    return context.find_weights(EXPERIMENT, TABLE2, cell, config.seed)


def recipe_of(config: Config) -> Recipe:
    """How a config's flow is trained."""
    return Recipe(
        objective=config.objective,
        iterations=config.iterations,
        batch=config.batch,
        learning_rate=config.learning_rate,
        schedule=config.schedule,
        patience=config.patience,
        validation_every=config.validation_every,
        penalty_weight=config.penalty_weight or 0.0,
        end_time_spread=config.end_time_spread or 0.0,
    )


def final_rows(config: Config, flow: Stack, splits: Splits[Table], context: Context) -> Iterator[Row]:
    """Measure the test likelihood, and what tolerance and probes do to it.

    What is computed on few rows comes first, what is recomputed least often last.
    """
    test, validation = splits.test[: config.test_rows], splits.validation[: config.check_rows]
    precise = exact(flow, config)
    checked = test[: config.check_rows]
    rows = tolerance_rows(precise, checked)
    yield (nll := next(rows))
    yield from rows
    yield from test_rows(precise, test, context)
    yield from tight_rows(precise, checked, float(nll.value))
    yield Row("reversibility_error", precise.reversibility_error(validation.to(context.device)), "largest distance")
    probed = judged(flow, "hutchinson", config.test_solver)
    yield from probe_rows(probed, validation, config.probe_draws, len(splits.validation), config.seed)


def restore(config: Config, tensors: Mapping[str, Tensor]) -> Stack:
    """The flow that is judged, from a run's weights."""
    flow = build(config)
    load_weights(flow, tensors)
    return exact(flow, config)


def evaluate(config: Config, tensors: Mapping[str, Tensor], context: Context) -> Iterator[Row]:
    """Recompute the final numbers from a run's weights."""
    flow = build(config).to(context.device)
    load_weights(flow, tensors)
    yield from final_rows(config, flow, load(config, context), context)


def _cells() -> dict[str, Config]:
    power = Config()
    miniboone = Config(data="miniboone", n_flows=1, depth=2, multiplier=20, activation="softplus", batch=1_000)
    # one field with about the parameters of POWER's five together
    one = replace(power, n_flows=1, multiplier=23, schedule="cosine")
    return {
        "power": power,
        "gas": Config(data="gas", multiplier=20, batch=1_000),
        "hepmass": Config(data="hepmass", n_flows=10, depth=2, activation="softplus"),
        "miniboone": miniboone,
        "bsds300": Config(data="bsds300", n_flows=2, multiplier=20, activation="softplus"),
        "miniboone_partial": replace(miniboone, data="miniboone_partial"),
        "bsds300_patches": Config(data="bsds300_patches", n_flows=1, depth=2, multiplier=4, activation="softplus"),
        "power_concat": replace(power, layer="concat"),
        "power_exact": replace(power, divergence="closed_form"),
        "power_long": replace(power, schedule="cosine", iterations=40_000),
        "power_rnode": replace(power, penalty_weight=0.01),
        "power_steer": replace(power, end_time_spread=0.5),
        "power_fm": replace(one, objective="flow_matching", iterations=100_000, validation_every=2_500),
        "power_fm_warm": replace(one, learning_rate=1e-4, iterations=2_000, warm_start="power_fm"),
        "power_fm_long": replace(one, objective="flow_matching", iterations=300_000, validation_every=10_000),
        "power_fm_long_warm": replace(one, learning_rate=3e-4, iterations=6_000, warm_start="power_fm_long"),
    }


CELLS = _cells()

OFFLINE = ("power", "power_concat", "power_exact", "power_fm", "power_fm_warm", "miniboone_partial")
"""Main cells: their data ship; further ways to train POWER, and trainings of many hours, are run by their names."""

SMALL_UPDATES = {
    "power": 5_000,
    "gas": 2_000,
    "hepmass": 1_000,
    "miniboone": 1_000,
    "miniboone_partial": 300,
    "bsds300": 100,
    "bsds300_patches": 3_000,
}
"""Updates of the tier `small` for cells without a budget of their own: about an hour of one CPU thread on POWER."""


def _own_budget(config: Config) -> bool:
    return config.iterations != Config.iterations


def _small(config: Config) -> Config:
    dear = 1 if config.divergence == "hutchinson" else 3  # an update with the exact trace takes longer
    fast = natively(config)
    return replace(
        fast,
        solver=replace(fast.solver, rtol=1e-5, atol=1e-5),
        batch=2_000 if config.objective == "flow_matching" else 1_000,
        iterations=config.iterations if _own_budget(config) else SMALL_UPDATES[config.data] // dear,
        schedule="cosine",
        validation_rows=2_000,
        validation_divergence="closed_form",
    )


def _smoke_updates(config: Config) -> int:
    """Few, and others for trainings that differ in their budget alone: no two cells have the same settings."""
    if not _own_budget(config):
        return 4
    return 8 if config.iterations > 100_000 else 6


def _smoke(config: Config) -> Config:
    return replace(
        _small(config),
        batch=100,
        iterations=_smoke_updates(config),
        validation_every=2,
        validation_rows=100,
        test_rows=200,
        check_rows=50,
    )


def compare_settings(cell: str, config: Config) -> Comparability:
    """Relate a cell to Table 2: Table 4's architecture, the paper's test, and POWER's noise drawn anew."""
    if config.data in ("miniboone_partial", "bsds300_patches"):
        return Comparability(data=False, reason=f"{config.data} holds other rows than the paper's data")
    full = (5, 3, 10) if config.data == "power" else None
    if full is not None and (config.n_flows, config.depth, config.multiplier) != full:
        return Comparability(model=False, reason="one CNF in place of Table 4's five")
    batch = f"batch of {config.batch:,} rows"
    opened = ("optimiser", "learning rate and its schedule", "end of the training", "training tolerance", batch)
    return Comparability(same_test_set=config.data != "power", open=opened)


EXPERIMENT = Experiment(
    artefact="FFJORD, Table 2",
    cells=CELLS,
    tiers={"smoke": _smoke, "small": _small},
    main_cells=OFFLINE,
    smoke_cells=("miniboone_partial", "power", "power_fm", "power_fm_warm"),
    measure=measure,
    evaluate=evaluate,
    restore=restore,
    draw={"ffjord_table2": draw_power},
    tables={"ffjord_table2": methods_table, "ffjord_table2_runs": tabular_table},
    claims=TABLE2_CLAIMS,
    remarks=TABLE2_REMARKS,
    deviations=TABLES,
    method="FFJORD",
    baselines={"Gaussian": "gaussian_nll"},
    budget=Budget(
        setting="iterations",
        unit="updates",
        full=lambda config: None,
        stopped=lambda config, final: config.schedule == "plateau" and final["steps"] < config.iterations,
        multiples=MULTIPLES,
    ),
    comparability=compare_settings,
)
