"""FFJORD, Figure 1 (Section 1): a standard Gaussian carried to a density of three modes on the line.

Trained as the public script approx_error_1d.py does: a mixture of three Gaussians, concatsquash 64-64-64 with tanh,
t1 = 0.5, exact trace, Adam 1e-3 with weight decay 1e-5, 10,000 iterations of 100 points.

Deviations: the same as Figure 2's; the paper does not define the target, the script does. The tier `small` runs all
iterations, with gradients by `checkpoint`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from repro import experiment, plotting
from repro.arrays import ARRAYS, load_arrays, save_arrays
from repro.checkpoint import load_weights, save_tensors
from repro.convergence import drift_row, flow_reconstruction_rows
from repro.data import DENSITIES
from repro.evaluation.budgets import Budget
from repro.experiment import Context, Experiment
from repro.flows import CNF
from repro.likelihood import (
    Recipe,
    compute_tight_nll,
    draw_test_points,
    grid,
    judged,
    likelihood_rows,
    log_prob_at,
    maximum_likelihood,
    natively,
)
from repro.nets.fields import ConcatSquashField
from repro.ode import GRADIENTS, Solver
from repro.results import Row
from repro.settings import Among, Count, NonNegative, Positive, SeveralCount
from repro.training import fit

NAME = "ffjord/fig1_density1d"
DATA = DENSITIES["mixture_1d"]
PUBLIC_ITERATIONS = 10_000
"""Updates of the public script."""


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of the flow on the line; defaults are those of the public script."""

    width: Count = 64
    """Units of each hidden layer."""
    depth: Count = 3
    """Hidden layers."""
    t1: Positive = 0.5
    """End of the time interval."""
    solver: Solver = Solver("dopri5", rtol=1e-5, atol=1e-5)
    """Solver in training and evaluation."""
    gradient: Annotated[str, Among(GRADIENTS)] = "adjoint"
    """Gradient method."""
    iterations: Count = PUBLIC_ITERATIONS
    """Updates."""
    batch: Count = 100
    """Fresh points per update."""
    learning_rate: Positive = 1e-3
    """Of Adam, constant."""
    weight_decay: NonNegative = 1e-5
    """Of Adam, as a penalty in the gradient."""
    test_points: SeveralCount = 10_000
    """Test sample."""
    times: SeveralCount = 33
    """Times at which the flow is drawn."""


def build(config: Config) -> CNF:
    """The flow of a config, initialised from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        field = ConcatSquashField(1, config.width, config.depth)
    return CNF(field, 1, config.t1, "closed_form", config.solver, config.gradient)


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Train the flow and follow it from noise to data."""
    flow = build(config).to(context.device)
    exact = judged(flow)
    optimizer = torch.optim.Adam(flow.parameters(), config.learning_rate, weight_decay=config.weight_decay)
    every = max(1, config.iterations // 100)
    recipe = Recipe(iterations=config.iterations, batch=config.batch, validation_every=every, validation_points=2_000)
    yield from fit(maximum_likelihood(flow, exact, DATA.sample, optimizer, recipe, config.seed), context)
    save_tensors(context.artefacts / "model.safetensors", flow.state_dict(), {"model": "cnf"})
    save_arrays(context.artefacts / ARRAYS, pictures(config, exact))
    yield from final_rows(config, exact, context)


def final_rows(config: Config, flow: CNF, context: Context) -> Iterator[Row]:
    """Measure the test likelihood, and how far the solves are from converged."""
    rows = likelihood_rows(flow, DATA, config.test_points, context.artefacts)
    yield (nll := next(rows))
    yield from rows
    yield from flow_reconstruction_rows(flow, draw_test_points(flow, DATA, 1_000))
    yield drift_row(float(nll.value), lambda: compute_tight_nll(flow, DATA, config.test_points), "nats")


def evaluate(config: Config, tensors: Mapping[str, Tensor], context: Context) -> Iterator[Row]:
    """Recompute the final numbers from a run's weights."""
    flow = build(config).to(context.device)
    load_weights(flow, tensors)
    yield from final_rows(config, judged(flow), context)


@torch.no_grad()
def pictures(config: Config, flow: CNF) -> dict[str, np.ndarray]:
    """Densities on a line at each time, and the paths of a few points, from noise to data."""
    device = next(flow.parameters()).device
    line = grid(DATA.window, 240, 1)[0].float().to(device)
    fractions = np.linspace(0, 1, config.times)
    times = [flow.t1 * (1 - float(fraction)) for fraction in fractions]
    densities = [log_prob_at(flow, line, time).exp().cpu().numpy() for time in times]
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf(torch.linspace(0.02, 0.98, 25)).unsqueeze(1).to(device)
    paths = flow.trajectory(quantiles, times).squeeze(2).cpu().numpy()
    truth = DATA.log_density(line.double().cpu()).exp().numpy()
    arrays = {"density": np.stack(densities), "paths": paths, "truth": truth}
    return {name: array.astype(np.float16) for name, array in arrays.items()} | {"line": line.cpu().numpy()[:, 0]}


def draw(rows: pd.DataFrame) -> Figure | None:
    """A Gaussian flows into three modes: densities over time with the paths of 25 points, and what was learnt."""
    arrays = load_arrays(rows, NAME, "mixture_1d")
    if arrays is None:
        return None
    figure, (flow, target) = plotting.new_figure(1, 2)
    plotting.panel_titles((flow, target), ("From noise to data", "Learnt and true density"))
    line, half = arrays["line"], float(-arrays["line"][0])
    image = np.sqrt(arrays["density"].astype(float)).T
    flow.imshow(image, origin="lower", aspect="auto", extent=(0, 1, -half, half), cmap="Blues", interpolation="none")
    steps = np.linspace(0, 1, len(arrays["paths"]))
    flow.plot(steps, arrays["paths"].astype(float), color="0.25", linewidth=0.5)
    flow.set(xlabel="fraction of the flow, noise at 0 and data at 1", ylabel="z", ylim=(-half, half))
    flow.grid(visible=False)
    target.plot(line, arrays["truth"].astype(float), color="0.4", linestyle="--", label="true")
    target.plot(line, arrays["density"][-1].astype(float), color=plotting.PALETTE[0], label="learnt")
    target.set(xlabel="x", ylabel="density", xlim=(-half, half), ylim=(0, None))
    target.legend(fontsize=7)
    return figure


EXPERIMENT = Experiment(
    artefact="FFJORD, Figure 1",
    cells={"mixture_1d": Config()},
    tiers={
        "smoke": lambda config: replace(natively(config), iterations=30, test_points=200, times=5),
        "small": natively,
    },
    measure=measure,
    evaluate=evaluate,
    budget=Budget(
        setting="iterations",
        unit="updates",
        full=lambda config: float(PUBLIC_ITERATIONS),
        curves={"test_nll": "validation_nll"},
    ),
    draw={"ffjord_fig1": draw},
)
