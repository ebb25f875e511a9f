"""Neural ODE, Figure 4 (Section 4.1): planar NF with K layers against planar CNF with M units, by density matching.

Both minimise KL(q ‖ p) = E_q[log q + U] + ln Z for target energies U; K, M in {2, 8, 32}. The paper does not say which
three densities it used; ours are the four of Rezende and Mohamed (2015), three of which do not normalise on the plane:
they get a soft wall (`repro.data.energies`), and ln Z by quadrature, so that the KL is a finite number.

Deviations: learning rates and batch sizes are not stated; ours are Adam at 1e-3 (CNF) and RMSprop at 1e-3 with a cosine
to zero (NF), 512 and 100 draws per update. The NF's layers map base to data, the direction in which sampling is closed;
its density on a grid needs numerical inversion. Paper tier: 10,000 iterations of the CNF, 500,000 of the NF; the tier
`small` runs a tenth of both, trained by the compiled engine with gradients by `checkpoint`. `_x10` cells have ten times
their tier's iterations: in the tier `small` all of the paper's.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from repro import experiment
from repro.arrays import ARRAYS, save_arrays
from repro.checkpoint import load_weights, save_tensors
from repro.convergence import carry_to_base, carry_to_data, drift_row, reconstruction_rows
from repro.data import ENERGIES, Energy
from repro.evaluation.budgets import Budget
from repro.experiment import Context, Experiment
from repro.flows import CNF, base
from repro.flows.planar import PlanarFlow
from repro.flows.planar_field import PlanarField
from repro.likelihood import costs, density_image, grid, judged, natively
from repro.metrics import standard_error
from repro.ode import GRADIENTS, Solver
from repro.papers.neural_ode.density_claims import ENERGIES as NAMES
from repro.papers.neural_ode.density_claims import FIG4_CLAIMS, SIZES
from repro.papers.neural_ode.density_pictures import draw_fig4, fig4_table
from repro.papers.neural_ode.deviations import MATCHING
from repro.per_point import save_log_ratio
from repro.pixels import quantised
from repro.results import Row
from repro.settings import Among, Count, Positive, SeveralCount
from repro.training import Training, fit, seeded_streams


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of one flow on one energy."""

    energy: Annotated[str, Among(ENERGIES)] = "u1"
    """Target, by its name in ENERGIES."""
    model: Literal["cnf", "nf"] = "cnf"
    """Continuous or discrete planar flow."""
    size: Count = 32
    """Hidden units M of the CNF, layers K of the NF."""
    t1: Positive = 1.0
    """End of the CNF's time interval."""
    solver: Solver = Solver("dopri5", rtol=1e-5, atol=1e-5)
    """Solver of the CNF; tolerance 1e-5 as in the paper's density estimation."""
    gradient: Annotated[str, Among(GRADIENTS)] = "adjoint"
    """Gradient method of the CNF."""
    iterations: Count = 10_000
    """Updates; the paper states 10,000 for the CNF and 500,000 for the NF."""
    paper_iterations: Count = 10_000
    """Updates that the paper makes; the share of them goes into the table."""
    batch: Count = 512
    """Draws per update."""
    learning_rate: Positive = 1e-3
    """Of Adam (CNF) or at the start of RMSprop (NF)."""
    test_points: SeveralCount = 20_000
    """Draws for the final KL."""
    side: Count = 160
    """Grid points on a side of the pictures."""


def build(config: Config) -> CNF | PlanarFlow:
    """The flow of a config, initialised from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.model == "nf":
            return PlanarFlow(2, config.size, direction="from_base")
        field = PlanarField(2, config.size)
    return CNF(field, 2, config.t1, "closed_form", config.solver, config.gradient)


def divergence_from(energy: Energy, flow: CNF | PlanarFlow, n: int, generator: Generator) -> Float[Tensor, " n"]:
    """Log q − log p at n draws from the flow, ln Z included; the mean is KL(q ‖ p)."""
    if isinstance(flow, CNF):
        x, log_q = flow.sample_with_log_prob(n, generator=generator)
    else:
        x, log_q = flow.sample_with_log_prob(n, generator)
    return _log_ratio(energy, x, log_q)


def _log_ratio(energy: Energy, x: Tensor, log_q: Tensor) -> Tensor:
    return log_q - energy.log_unnormalised(x) + energy.log_normaliser()


def training(config: Config, flow: CNF | PlanarFlow) -> Training:
    """Minimise KL(q ‖ p) on fresh draws."""
    energy, streams = ENERGIES[config.energy], seeded_streams(config.seed, "draws")
    make = torch.optim.Adam if config.model == "cnf" else torch.optim.RMSprop
    optimizer = make(flow.parameters(), lr=config.learning_rate)

    def update(step: int) -> Mapping[str, float]:
        optimizer.zero_grad(set_to_none=True)
        loss = divergence_from(energy, flow, config.batch, streams["draws"]).mean()
        loss.backward()
        optimizer.step()
        return {"train_kl": loss.item()} | costs(flow)

    def learning_rate(step: int) -> float:
        if config.model == "cnf":
            return config.learning_rate
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.iterations))

    every = max(1, config.iterations // 50)
    units = {"train_kl": "nats", "nfe_forward": "evaluations", "nfe_backward": "evaluations"}
    return Training(
        flow, optimizer, config.iterations, update, learning_rate, list[Row], every, streams=streams, units=units
    )


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Fit one flow to one energy and measure how far it ends from it."""
    flow = build(config).to(context.device)
    yield Row("parameters", sum(p.numel() for p in flow.parameters()), "parameters")
    yield Row("budget_share", config.iterations / config.paper_iterations, "of the paper's iterations")
    yield from fit(training(config, flow), context)
    save_tensors(context.artefacts / "model.safetensors", flow.state_dict(), {"model": config.model})
    flow = judged(flow)
    window = ENERGIES[config.energy].window
    images = {"density": density_image(flow, window, config.side), "truth": target(config)}
    save_arrays(context.artefacts / ARRAYS, {name: quantised(image) for name, image in images.items()})
    yield from final_rows(config, flow, context)


def target(config: Config) -> np.ndarray:
    """The normalised target on the grid of the pictures."""
    energy = ENERGIES[config.energy]
    values = energy.log_unnormalised(grid(energy.window, config.side)[0]) - energy.log_normaliser()
    return values.exp().view(config.side, config.side).numpy()


def final_rows(config: Config, flow: CNF | PlanarFlow, context: Context) -> Iterator[Row]:
    """Measure KL(q ‖ p) on base draws that are the same for every model and seed, with its standard error."""
    stream = seeded_streams(0, "test")["test"]
    with torch.no_grad():
        values = torch.cat(
            [divergence_from(ENERGIES[config.energy], flow, n, stream).double() for n in _chunks(config)]
        )
    save_log_ratio(context.artefacts, values)
    kl = float(values.mean())
    yield Row("kl", kl, "nats")
    yield Row("kl_error", standard_error(values), "nats")
    yield Row("log_normaliser", ENERGIES[config.energy].log_normaliser(), "nats")
    if isinstance(flow, CNF):
        yield Row("nfe_test", flow.stats.nfe_forward, "evaluations")
        z = base.sample(None, 1_000, 2, seeded_streams(0, "test")["test"], next(flow.parameters()))
        yield from reconstruction_rows(lambda start: carry_to_data(flow, start), lambda x: carry_to_base(flow, x), z)
        yield drift_row(kl, lambda: compute_tight_kl(config, flow), "nats")


def _chunks(config: Config) -> list[int]:
    return [min(5_000, config.test_points - done) for done in range(0, config.test_points, 5_000)]


@torch.no_grad()
def compute_tight_kl(config: Config, flow: CNF) -> float:
    """Compute KL(q ‖ p) in nats in float64 at a tenth of the tolerance, on the same base draws as `final_rows`.

    Args:
        config: Settings of the run.
        flow: As it is judged, in float32; it comes back as it was.

    Raises:
        SolveError: The solve fails at that tolerance.
    """
    energy, stream, like = ENERGIES[config.energy], seeded_streams(0, "test")["test"], next(flow.parameters())
    draws = [base.sample(None, n, 2, stream, like).double() for n in _chunks(config)]  # a float64 stream draws others
    tight = judged(flow, solver=flow.solver.tighten()).double()
    try:
        return float(torch.cat([_log_ratio(energy, *tight.inverse_with_log_prob(z)) for z in draws]).mean())
    finally:
        flow.float()  # both share their weights


def evaluate(config: Config, tensors: Mapping[str, Tensor], context: Context) -> Iterator[Row]:
    """Recompute the final numbers from a run's weights."""
    flow = build(config).to(context.device)
    load_weights(flow, tensors)
    yield from final_rows(config, judged(flow), context)


def _cells() -> dict[str, Config]:
    nf = Config(model="nf", iterations=500_000, paper_iterations=500_000, batch=100)
    cells = {}
    for energy in NAMES:
        for size in SIZES:
            cells[f"{energy}_cnf_{size}"] = Config(energy=energy, size=size)
            cells[f"{energy}_nf_{size}"] = replace(nf, energy=energy, size=size)
    longer = {f"{name}_x10": replace(config, iterations=10 * config.iterations) for name, config in cells.items()}
    return cells | longer


def _smoke_iterations(config: Config) -> int:
    return config.iterations // (2_500 if config.model == "nf" else 1_000)


def _smoke(config: Config) -> Config:
    return replace(
        natively(config),
        iterations=_smoke_iterations(config),
        batch=64,
        test_points=500,
        side=32,
    )


CELLS = _cells()

EXPERIMENT = Experiment(
    artefact="Neural ODE, Figure 4",
    cells=CELLS,
    tiers={
        "smoke": _smoke,
        "small": lambda config: replace(natively(config), iterations=config.iterations // 10),
    },
    main_cells=tuple(cell for cell in CELLS if not cell.endswith("_x10")),
    smoke_cells=("u1_cnf_32", "u1_nf_32"),
    measure=measure,
    evaluate=evaluate,
    budget=Budget(
        setting="iterations",
        unit="updates",
        full=lambda config: float(config.paper_iterations),
        multiples={cell: {10: f"{cell}_x10"} for cell in CELLS if not cell.endswith("_x10")},
    ),
    draw={"node_fig4": draw_fig4},
    tables={"node_fig4": fig4_table},
    claims=FIG4_CLAIMS,
    deviations=MATCHING,
)
