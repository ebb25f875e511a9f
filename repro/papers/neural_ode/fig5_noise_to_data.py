"""Neural ODE, Figure 5 (Section 4.1): two circles and two moons by maximum likelihood, planar CNF against planar NF.

The CNF has 64 hidden units, the NF 64 one-unit layers. Snapshots at 5, 20, 40, 60, 80 and 100 % of the way from noise
to data. Cell `example` is the authors' public example (torchdiffeq, examples/cnf.py): gates per coordinate, the mean
over the units, t1 = 10, base N(0, 0.1 I), 1,000 iterations of 512 points, by backpropagation.

Deviations: the paper states neither data, nor interval, nor optimiser, learning rate, batch or iterations. Ours: the
example's circles (noise 0.06) and moons of equal noise; t1 = 1; base N(0, I); Adam at 1e-3, 512 fresh points an
update; 10,000 updates of the CNF and 50,000 of the NF, which are cheaper. The NF's layers map data to base, the
direction in which their determinant has a closed form, and are inverted numerically to sample; its snapshots leave out
the layers next to the data. The example integrates with its base at 0: f_ours(t, z) = -f_example(t1 - t, z). The tier
`small` runs all iterations, by the compiled engine with gradients by `checkpoint` in place of the adjoint.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from repro import experiment
from repro.arrays import ARRAYS, save_arrays
from repro.checkpoint import load_weights, save_tensors
from repro.convergence import drift_row, flow_reconstruction_rows
from repro.data import DENSITIES, Density
from repro.evaluation.budgets import Budget
from repro.experiment import Context, Experiment
from repro.flows import CNF
from repro.flows.planar import PlanarFlow
from repro.flows.planar_field import PlanarField
from repro.likelihood import (
    Recipe,
    compute_tight_nll,
    density_image,
    draw_test_points,
    film,
    judged,
    likelihood_rows,
    maximum_likelihood,
    natively,
    there_and_back_rows,
    true_image,
)
from repro.ode import GRADIENTS, Solver
from repro.papers.neural_ode.density_claims import FIG5_CLAIMS
from repro.papers.neural_ode.density_pictures import animate_fig5, draw_fig5, fig5_table
from repro.papers.neural_ode.deviations import PLANAR
from repro.pixels import quantised
from repro.results import Row
from repro.settings import Among, Count, Positive, SeveralCount
from repro.training import fit, seeded_streams

SNAPSHOTS = (0.05, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Fractions of the way from noise to data."""


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of one flow on one density."""

    data: str = "circles_node"
    """Density, by its name in DENSITIES."""
    model: Literal["cnf", "nf"] = "cnf"
    """Continuous or discrete planar flow."""
    width: Count = 64
    """Hidden units of the CNF, layers of the NF."""
    gate: Literal["unit", "coordinate"] = "unit"
    """Gates of the CNF: one per hidden unit (paper) or per unit and coordinate (example)."""
    reduction: Literal["sum", "mean"] = "sum"
    """Sum (paper) or mean (example) over the hidden units."""
    t1: Positive = 1.0
    """End of the time interval."""
    base_variance: Positive = 1.0
    """Of the CNF's base, N(0, base_variance I)."""
    solver: Solver = Solver("dopri5", rtol=1e-5, atol=1e-5)
    """Solver of the CNF; tolerance 1e-5 as in the paper's density estimation."""
    gradient: Annotated[str, Among(GRADIENTS)] = "adjoint"
    """Gradient method of the CNF."""
    iterations: Count = 10_000
    """Updates."""
    batch: Count = 512
    """Fresh points per update."""
    learning_rate: Positive = 1e-3
    """Of Adam."""
    test_points: SeveralCount = 10_000
    """Test sample."""
    side: SeveralCount = 160
    """Grid points on a side of the pictures."""
    film_frames: SeveralCount = 25
    """Frames of the animation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data not in DENSITIES or DENSITIES[self.data].dim != 2:
            raise ValueError(f"data must be a density in the plane; got {self.data!r}")


def build(config: Config, device: torch.device) -> CNF | PlanarFlow:
    """The flow of a config, initialised from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.model == "nf":
            return PlanarFlow(2, config.width, direction="to_base").to(device)
        field = PlanarField(2, config.width, gate=config.gate, reduction=config.reduction).to(device)
    base = None
    if config.base_variance != 1:
        zero = torch.zeros(2, device=device)
        base = Independent(Normal(zero, zero + config.base_variance**0.5), 1)
    return CNF(field, 2, config.t1, "closed_form", config.solver, config.gradient, base)


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Train one flow and measure it."""
    density, flow = DENSITIES[config.data], build(config, context.device)
    yield Row("parameters", sum(p.numel() for p in flow.parameters()), "parameters")
    exact = judged(flow)
    optimizer = torch.optim.Adam(flow.parameters(), config.learning_rate)
    recipe = Recipe(
        iterations=config.iterations,
        batch=config.batch,
        validation_every=max(1, config.iterations // 100),
        validation_points=min(2_000, config.test_points),
    )
    yield from fit(maximum_likelihood(flow, exact, density.sample, optimizer, recipe, config.seed), context)
    save_tensors(context.artefacts / "model.safetensors", flow.state_dict(), {"model": config.model})
    save_arrays(context.artefacts / ARRAYS, pictures(config, exact, density))
    yield from final_rows(config, exact, density, context)


def final_rows(config: Config, flow: CNF | PlanarFlow, density: Density, context: Context) -> Iterator[Row]:
    """Measure test likelihood and evaluations, carry points forward and back, and see how far solves are converged."""
    rows = likelihood_rows(flow, density, config.test_points, context.artefacts)
    yield (nll := next(rows))
    yield from rows
    x = draw_test_points(flow, density, 1_000)
    if isinstance(flow, CNF):
        yield from flow_reconstruction_rows(flow, x)
        yield drift_row(float(nll.value), lambda: compute_tight_nll(flow, density, config.test_points), "nats")
    with torch.no_grad():
        if isinstance(flow, CNF):
            flow.log_prob(x)
            yield Row("nfe_test", flow.stats.nfe_forward, "evaluations")
            yield from there_and_back_rows(flow, x)
        else:
            error = float((flow.inverse(flow.transform(x)[0]) - x).norm(dim=1).max())
            yield Row("reversibility_error", error, "largest distance")


def pictures(config: Config, flow: CNF | PlanarFlow, density: Density) -> dict[str, np.ndarray]:
    """Densities and samples on the way from noise to data, small enough to publish."""
    arrays = {"truth": quantised(true_image(density, config.side))}
    stream = seeded_streams(config.seed, "film")["film"]
    if isinstance(flow, CNF):
        base = config.base_variance**0.5 * torch.randn(2_000, 2, generator=stream)
        densities, points = film(flow, density.window, config.side, list(SNAPSHOTS), base)
        arrays |= {"snapshots": quantised(densities), "points": points.astype(np.float16)}
        fractions = np.linspace(0, 1, config.film_frames).tolist()
        densities, points = film(flow, density.window, config.side // 2, fractions, base[:500])
        arrays |= {"film_density": quantised(densities), "film_points": points.astype(np.float16)}
    else:
        shortened = [_last_layers(flow, max(1, round(fraction * config.width))) for fraction in SNAPSHOTS]
        samples = [part.sample(2_000, stream.manual_seed(config.seed)) for part in shortened]
        arrays |= {
            "points": torch.stack(samples).cpu().numpy().astype(np.float16),
            "density": quantised(density_image(flow, density.window, config.side)),
        }
    return arrays


def _last_layers(flow: PlanarFlow, n_layers: int) -> PlanarFlow:
    """The flow without the layers next to the data: what noise has become on the way."""
    part = PlanarFlow(2, n_layers, direction="to_base").to(flow.w.device)
    part.load_state_dict({name: value[-n_layers:] for name, value in flow.state_dict().items()})
    return part


def evaluate(config: Config, tensors: Mapping[str, Tensor], context: Context) -> Iterator[Row]:
    """Recompute the final numbers from a run's weights."""
    flow = build(config, context.device)
    load_weights(flow, tensors)
    yield from final_rows(config, judged(flow), DENSITIES[config.data], context)


def _smoke(config: Config) -> Config:
    return replace(
        natively(config),
        iterations=min(config.iterations, 10_000) // 500,
        batch=100,
        test_points=200,
        side=32,
        film_frames=3,
    )


CELLS = {
    "circles_cnf": Config(),
    "moons_cnf": Config(data="moons_node"),
    "circles_nf": Config(model="nf", iterations=50_000),
    "moons_nf": Config(model="nf", iterations=50_000, data="moons_node"),
    "example": Config(
        gate="coordinate", reduction="mean", t1=10.0, base_variance=0.1, gradient="backprop", iterations=1_000
    ),
}

EXPERIMENT = Experiment(
    artefact="Neural ODE, Figure 5",
    cells=CELLS,
    tiers={
        "smoke": _smoke,
        "small": lambda config: config if config.gradient == "backprop" else natively(config),
    },
    smoke_cells=("circles_cnf", "circles_nf", "example"),
    measure=measure,
    evaluate=evaluate,
    budget=Budget(
        setting="iterations", unit="updates", full=lambda config: None, curves={"test_nll": "validation_nll"}
    ),
    draw={"node_fig5": draw_fig5},
    animate={"node_fig5": animate_fig5},
    tables={"node_fig5": fig5_table},
    claims=FIG5_CLAIMS,
    deviations=PLANAR,
)
