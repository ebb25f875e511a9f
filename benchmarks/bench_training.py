"""Whole trainings by both engines: one epoch of ODE-Net, a toy CNF. Do they end the same, and what time is saved?

Both trainings of a pair start from the same weights, see the same batches, and take turns of some updates each, so that
a drift of the machine's speed hits both. What they end with is measured as the artefacts measure it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from benchmarks.recorded import CLOCK, measured, record
from benchmarks.settings import DEVICE
from repro.data import DENSITIES
from repro.likelihood import Recipe, likelihood_rows, maximum_likelihood
from repro.metrics import synchronize
from repro.ode import Solver
from repro.papers.ffjord import fig2_toy2d
from repro.papers.neural_ode import table1_mnist
from repro.papers.neural_ode.mnist_images import Images, measure_error
from repro.training import Training

WAYS = {"torchdiffeq": "adjoint", "compiled": "checkpoint"}
"""The gradient under each engine: the papers', and the engine's exact one. What is saved is by both changes."""
TURN = 10
"""Updates before the other training's turn."""
WARM = 1
"""Turns of each that are neither timed nor counted: the engine's code is built in them where it is not on disk."""
TOY_UPDATES, SEEDS = 400, 3
MINUTES = 60.0


@dataclass(frozen=True)
class Trained:
    """A training, and what measures its end: value, its standard error, and the unit."""

    training: Training
    outcome: Callable[[], tuple[float, float, str]]


def odenet(engine, seed):
    """Table 1's ODE-Net for one epoch, all but the held-out images, selected on nothing."""
    cell = table1_mnist.CELLS["odenet"]
    solver = replace(cell.solver, engine=engine)
    config = replace(cell, epochs=1, seed=seed, solver=solver, gradient=WAYS[engine])
    images, model = Images(DEVICE), table1_mnist.build(config).to(DEVICE)

    def outcome():
        table1_mnist.ode_block_of(model).solver = cell.solver  # both are judged by the reference engine
        wrong, total = measure_error(model, *images.test)[0], len(images.test[1])
        share = wrong / total
        return 100 * share, 100 * (share * (1 - share) / total) ** 0.5, "% test error"

    return Trained(table1_mnist.training(config, model, images), outcome)


def toy(engine, seed):
    """Figure 2's CNF on 8gaussians for its first updates."""
    cell = fig2_toy2d.CELLS["8gaussians"]
    solver = Solver(cell.solver.method, rtol=cell.solver.rtol, atol=cell.solver.atol, engine=engine)
    config = replace(cell, iterations=TOY_UPDATES, seed=seed, solver=solver, gradient=WAYS[engine])
    flow, density = fig2_toy2d.build(config).to(DEVICE), DENSITIES[config.data]
    optimizer = torch.optim.Adam(flow.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True)
    recipe = Recipe(
        iterations=config.iterations, batch=config.batch, validation_every=config.iterations, validation_points=2_000
    )

    def outcome():
        rows = {row.metric: row.value for row in likelihood_rows(fig2_toy2d.exact(flow), density, config.test_points)}
        return rows["test_nll"], rows["test_nll_error"], "nats, test NLL"

    exact = fig2_toy2d.exact(flow)
    return Trained(maximum_likelihood(flow, exact, density.sample, optimizer, recipe, config.seed), outcome)


WORKS = {
    "ODE-Net on MNIST, one epoch": odenet,
    f"toy CNF on 8gaussians, {TOY_UPDATES} updates": toy,
}
"""What is trained, each with `SEEDS` seeds."""


def both(name):
    """Train a work by both engines in turns, seed after seed.

    Returns:
        By engine and seed: seconds of every timed turn, updates in them, what it ended with, mean evaluations.
    """
    make = WORKS[name]
    found = {}
    for seed in range(SEEDS):
        pair = {engine: make(engine, seed) for engine in WAYS}
        turns = {engine: [] for engine in WAYS}
        spent = {engine: [] for engine in WAYS}
        for start in range(0, pair["compiled"].training.steps, TURN):
            for engine, trained in pair.items():
                turns[engine].append(_turn(trained.training, start, spent[engine]))
        for engine, trained in pair.items():
            value, error, unit = trained.outcome()
            counts = {f"nfe_{way}": _mean(spent[engine], f"nfe_{way}") for way in ("forward", "backward")}
            seconds = turns[engine][WARM:]
            updates = trained.training.steps - WARM * TURN
            ending = {"outcome": value, "outcome_error": error, "unit": unit}
            found[engine, seed] = {"turns": seconds, "updates": updates, **ending, **counts}
    return found


def _turn(training, start, spent):
    synchronize(DEVICE)
    begun = time.perf_counter()
    for step in range(start, min(start + TURN, training.steps)):
        for group in training.optimizer.param_groups:
            group["lr"] = training.learning_rate(step)
        spent.append(training.update(step))
    synchronize(DEVICE)
    return time.perf_counter() - begun


def _mean(values, key):
    return sum(value[key] for value in values) / len(values)


CELLS = [(name, engine, seed) for name in WORKS for seed in range(SEEDS) for engine in WAYS]


@pytest.mark.usefixtures("all_threads")
@pytest.mark.parametrize(("name", "engine", "seed"), CELLS)
@pytest.mark.benchmark(group=f"{TURN} updates of a training", timer=CLOCK, disable_gc=False)
def test_training(name, engine, seed, benchmark):
    """The times of an engine's turns, and what its training ended with."""
    known = {"training": name, "engine": engine, "gradient": WAYS[engine], "seed": seed, "turn": TURN}
    outcome = measured(both, name, MINUTES * 60)
    if "status" in outcome:  # the whole process failed
        record(benchmark, known | outcome)
        return
    found = dict(outcome[engine, seed])
    seconds = found.pop("turns")
    record(benchmark, known | found | {"total_seconds": sum(seconds)}, seconds)
