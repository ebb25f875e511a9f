"""FFJORD, Figure 2 (Section 4.1): densities in the plane by FFJORD, by a Glow of depth 100, and by planar CNFs.

Eight toy sets as the public code defines them. Cells without suffix train FFJORD as the public script does, with the
exact trace; `_hutchinson` cells as the paper says, with Hutchinson's estimator and Gaussian noise. `_glow` is the
figure's discrete baseline; `_planar` is our addition: Neural ODE's planar CNF on the same data.

Deviations: batches are drawn from the continuous densities; the public code's `rings` has fixed angles, 25 points a
ring in a batch of 100, which is another distribution (cell `rings_released`). The weights are selected on 2,000 fixed
points instead of one fresh batch of 1,000 per validation. The exact trace is evaluated in closed form. The public
code's end time "train_T" never gets a gradient and is left out. Glow: zuko's couplings by Adam, in place of the
public script's own (whose depth is 10, and which ran 100,001 iterations with Adamax at 1e-4). The tier `small` runs
10,000 iterations of every model: all of the continuous flows', trained by the compiled engine with gradients by
`checkpoint` in place of the adjoint, and a tenth of Glow's. The smoke tier's Glow has 8 layers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn

from repro import experiment
from repro.arrays import ARRAYS, save_arrays
from repro.checkpoint import load_weights, save_tensors
from repro.convergence import drift_row, flow_reconstruction_rows
from repro.data import DENSITIES, Density
from repro.evaluation.budgets import Budget
from repro.experiment import Context, Experiment
from repro.flows import CNF, DIVERGENCES, NOISES
from repro.flows.augmented import check_estimator
from repro.flows.planar_field import PlanarField
from repro.likelihood import (
    Recipe,
    compute_tight_nll,
    density_image,
    draw_test_points,
    film,
    judged,
    likelihood_rows,
    mass_rows,
    maximum_likelihood,
    natively,
    there_and_back_rows,
    true_image,
)
from repro.nets.couplings import LARGEST_SCALE, glow
from repro.nets.fields import FIELDS
from repro.ode import GRADIENTS, Solver
from repro.papers.ffjord.toy_claims import COMPARED, FIG2_CLAIMS, FIG2_REMARKS, SETS
from repro.papers.ffjord.toy_deviations import TOYS
from repro.papers.ffjord.toy_pictures import animate_toys, draw_toys, toy_table
from repro.pixels import quantised
from repro.results import Row
from repro.settings import LARGEST_FLOAT32, Among, Count, NonNegative, Positive, Range, SeveralCount
from repro.training import fit, seeded_streams
from repro.types import VectorField


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of one model on one density; defaults are those of the public script (train_toy.py)."""

    data: str = "8gaussians"
    """Density, by its name in DENSITIES."""
    released_sampling: bool = False
    """Draw batches as the public code does, where that is another distribution (rings)."""
    model: Literal["ffjord", "glow", "planar"] = "ffjord"
    """FFJORD's field in a CNF, the discrete couplings, or Neural ODE's planar field in a CNF."""
    layer: Annotated[str, Among(FIELDS)] = "concatsquash"
    """Layer of FFJORD's field, by its name in FIELDS."""
    width: Count = 64
    """Units of each hidden layer, of the field as of the couplings' nets; units of the planar field."""
    depth: Count = 3
    """Hidden layers of FFJORD's field; couplings of the discrete flow."""
    largest_scale: Annotated[float, Range(1, LARGEST_FLOAT32, above=True)] | None = None
    """Bound on what a coupling of the discrete flow scales by, and on its inverse; None is zuko's, 1000."""
    t1: Positive = 0.5
    """End of the time interval."""
    divergence: Annotated[str, Among(DIVERGENCES)] = "closed_form"
    """Estimator of the divergence in training; evaluation is exact."""
    noise: Annotated[str, Among(NOISES)] = "gaussian"
    """Noise of Hutchinson's estimator."""
    solver: Solver = Solver("dopri5", rtol=1e-5, atol=1e-5)
    """Solver of the CNF, in training and evaluation."""
    gradient: Annotated[str, Among(GRADIENTS)] = "adjoint"
    """Gradient method of the CNF."""
    iterations: Count = 10_000
    """Updates."""
    public_iterations: Count = 10_000
    """Updates that the public script makes; the share of them goes into the table."""
    batch: Count = 100
    """Fresh points per update."""
    learning_rate: Positive = 1e-3
    """Of Adam, constant."""
    weight_decay: NonNegative = 1e-5
    """Of Adam, as a penalty in the gradient."""
    validation_every: Count = 100
    """Updates between two validations."""
    test_points: SeveralCount = 10_000
    """Test sample."""
    side: SeveralCount = 200
    """Grid points on a side of the picture; the integral's cells are of the same size."""
    film_frames: SeveralCount = 25
    """Frames of the animation, from noise to data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data not in DENSITIES or DENSITIES[self.data].dim != 2:
            raise ValueError(f"data must be a density in the plane; got {self.data!r}")
        check_estimator(self.divergence, self.noise, 1, (), 2)
        if self.released_sampling and DENSITIES[self.data].released is None:
            raise ValueError(f"released_sampling: the public code samples {self.data} as we do")


def build(config: Config) -> nn.Module:
    """The flow of a config, initialised from its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.model == "glow":
            return glow(2, config.depth, config.width, largest_scale=config.largest_scale or LARGEST_SCALE)
        if config.model == "planar":
            return _cnf(PlanarField(2, config.width), config, config.divergence)
        return _cnf(FIELDS[config.layer](2, config.width, config.depth), config, config.divergence)


def _cnf(field: VectorField, config: Config, divergence: str) -> CNF:
    return CNF(field, 2, config.t1, divergence, config.solver, config.gradient, noise=config.noise)


def exact(flow: nn.Module) -> nn.Module:
    """The same weights with an exact divergence, as the reference engine solves them."""
    return judged(flow, "closed_form")


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Train one flow on one density and measure it."""
    density = DENSITIES[config.data]
    draw = density.released if config.released_sampling and density.released else density.sample
    flow = build(config).to(context.device)
    yield Row("parameters", sum(p.numel() for p in flow.parameters()), "parameters")
    yield Row("budget_share", config.iterations / config.public_iterations, "of the public budget")
    optimizer = torch.optim.Adam(flow.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True)
    recipe = Recipe(
        iterations=config.iterations,
        batch=config.batch,
        validation_every=config.validation_every,
        validation_points=min(2_000, config.test_points),
    )
    yield from fit(maximum_likelihood(flow, exact(flow), draw, optimizer, recipe, config.seed), context)
    save_tensors(context.artefacts / "model.safetensors", flow.state_dict(), {"model": config.model})
    save_arrays(context.artefacts / ARRAYS, pictures(config, exact(flow), density))
    yield from final_rows(config, flow, density, context)


def final_rows(config: Config, flow: nn.Module, density: Density, context: Context) -> Iterator[Row]:
    """Measure the test likelihood, where the mass lies, what a solve costs, and how far it is from converged."""
    precise = exact(flow)
    rows = likelihood_rows(precise, density, config.test_points, context.artefacts)
    yield (nll := next(rows))
    yield from rows
    if isinstance(precise, CNF):
        yield from solver_rows(config, precise, density, float(nll.value))
    yield from mass_rows(precise, density, config.side)


def solver_rows(config: Config, flow: CNF, density: Density, nll: float) -> Iterator[Row]:
    """Measure what a solve costs, and how far it is from converged.

    Args:
        config: Settings of the run.
        flow: As it is judged.
        density: Of the data.
        nll: Test NLL of the flow, in nats.
    """
    x = draw_test_points(flow, density, 1_000)
    yield from flow_reconstruction_rows(flow, x)
    with torch.no_grad():
        flow.log_prob(x)
    yield Row("nfe_test", flow.stats.nfe_forward, "evaluations")
    yield from there_and_back_rows(flow, x)
    tight = compute_tight_nll(flow, density, config.test_points)
    yield Row("test_nll_tight", tight, "nats, float64, a tenth of the tolerance")
    yield drift_row(nll, lambda: tight, "nats")


def pictures(config: Config, flow: nn.Module, density: Density) -> dict[str, np.ndarray]:
    """Density and sample of the flow, and for a CNF the way from noise to data, small enough to publish."""
    arrays = {
        "density": quantised(density_image(flow, density.window, config.side)),
        "truth": quantised(true_image(density, config.side)),
    }
    streams = seeded_streams(config.seed, "sample", "film")
    with torch.no_grad():
        arrays["sample"] = flow.sample(2_000, streams["sample"]).cpu().numpy().astype(np.float16)  # pyright: ignore[reportCallIssue]
    if isinstance(flow, CNF) and config.seed == 0:
        base = torch.randn(500, 2, generator=streams["film"])
        fractions = np.linspace(0, 1, config.film_frames).tolist()
        images, points = film(flow, density.window, config.side // 2, fractions, base)
        arrays |= {"film_density": quantised(images), "film_points": points.astype(np.float16)}
    return arrays


def restore(config: Config, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The flow that is judged, from a run's weights."""
    flow = build(config)
    load_weights(flow, tensors)
    return exact(flow)


def evaluate(config: Config, tensors: Mapping[str, Tensor], context: Context) -> Iterator[Row]:
    """Recompute the final numbers from a run's weights."""
    flow = build(config).to(context.device)
    load_weights(flow, tensors)
    yield from final_rows(config, flow, DENSITIES[config.data], context)


def _cells() -> dict[str, Config]:
    cells = {name: Config(data=name) for name in SETS}
    cells |= {f"{name}_hutchinson": Config(data=name, divergence="hutchinson") for name in COMPARED}
    couplings = Config(model="glow", depth=100, weight_decay=0.0, public_iterations=100_001)
    cells |= {f"{name}_glow": replace(couplings, data=name, iterations=100_001) for name in COMPARED}
    cells["2spirals_glow_bounded"] = replace(cells["2spirals_glow"], largest_scale=2.0)
    cells |= {f"{name}_planar": Config(data=name, model="planar") for name in COMPARED}
    cells["8gaussians_concat"] = Config(layer="concat")
    cells["rings_released"] = Config(data="rings", released_sampling=True)
    return cells


def _smoke(config: Config) -> Config:
    shallow = min(config.depth, 8)
    return replace(
        natively(config),
        depth=shallow,
        iterations=20,
        validation_every=10,
        test_points=200,
        side=40,
        film_frames=3,
    )


def _small(config: Config) -> Config:
    # Glow has no solver, and was being trained when the engine came: its settings, and so its digest, stay
    fast = replace(config, gradient="checkpoint") if config.model == "glow" else natively(config)
    return replace(fast, iterations=min(config.iterations, 10_000))


CELLS = _cells()

EXPERIMENT = Experiment(
    artefact="FFJORD, Figure 2",
    cells=CELLS,
    tiers={
        "smoke": _smoke,
        "small": _small,
    },
    main_cells=tuple(name for name in CELLS if name not in ("8gaussians_concat", "rings_released")),
    smoke_cells=tuple(f"8gaussians{suffix}" for suffix in ("", "_hutchinson", "_glow", "_planar")),
    measure=measure,
    evaluate=evaluate,
    budget=Budget(
        setting="iterations",
        unit="updates",
        full=lambda config: float(config.public_iterations),
        curves={"test_nll": "validation_nll"},
    ),
    restore=restore,
    draw={"ffjord_fig2": draw_toys},
    animate={"ffjord_toys": animate_toys},
    tables={"ffjord_toys": toy_table},
    claims=FIG2_CLAIMS,
    remarks=FIG2_REMARKS,
    deviations=TOYS,
)
