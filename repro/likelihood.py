"""Train a flow by maximum likelihood on fresh samples of a known density, and measure what it has learnt."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from repro.data import Density
from repro.data.densities import midpoints
from repro.experiment import Config
from repro.flows import CNF, Stack
from repro.ode import Solver
from repro.per_point import save_log_density
from repro.results import Row
from repro.training import Training, seeded_streams

C = TypeVar("C", bound=Config)
F = TypeVar("F", bound=nn.Module)

CHUNK = 5_000
"""Points evaluated at once; a chunk shares its steps."""

WIDER = 2
"""How many times the data's window a flow's mass is looked for: what leaks out of the data's support lies beside it."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a flow is trained.

    Attributes:
        iterations: updates.
        batch: fresh points per update.
        validation_every: updates between two validations.
        validation_points: size of the validation sample, which is drawn once.
    """

    iterations: int
    batch: int
    validation_every: int
    validation_points: int


def maximum_likelihood(
    flow: nn.Module,
    exact: nn.Module,
    draw: Callable[[int, Generator], Tensor],
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    seed: int,
) -> Training:
    """The training of a flow on fresh samples; the weights with the smallest validation loss are its result.

    Args:
        flow: has `log_prob`; a CNF's trace noise comes from a stream of its own.
        exact: the same weights with an exact divergence, to validate without noise (papers.md's protocol: reported
            likelihoods use the exact trace); the flow itself where it is exact anyway.
        draw: samples the data.
        optimizer: of the flow's parameters; its learning rate stays as it is.
        recipe: sizes.
        seed: of all streams.
    """
    device = next(flow.parameters()).device
    streams = seeded_streams(seed, "data", "trace noise")
    held_out = draw(recipe.validation_points, seeded_streams(seed, "validation")["validation"]).to(device)
    rate = optimizer.param_groups[0]["lr"]

    def update(step: int) -> Mapping[str, float]:
        x = draw(recipe.batch, streams["data"]).to(device)
        optimizer.zero_grad(set_to_none=True)
        loss = -log_prob(flow, x, streams["trace noise"]).mean()
        loss.backward()
        optimizer.step()
        return {"train_nll": loss.item()} | costs(flow)

    def evaluate() -> list[Row]:
        return [Row("validation_nll", -float(evaluate_log_prob(exact, held_out).mean()), "nats")]

    units = {"train_nll": "nats", "nfe_forward": "evaluations", "nfe_backward": "evaluations"}
    every = recipe.validation_every
    return Training(
        flow, optimizer, recipe.iterations, update, lambda step: rate, evaluate, every, "validation_nll", streams, units
    )


def natively(config: C) -> C:
    """A config whose flow is trained by the compiled engine, with the exact gradient of the steps it takes."""
    return replace(config, gradient="checkpoint", solver=replace(config.solver, engine="compiled"))  # pyright: ignore


def judged(flow: F, divergence: str | None = None, solver: Solver | None = None) -> F:
    """The same weights solved by torchdiffeq, which judges every continuous flow however it was trained.

    Args:
        flow: a flow; a discrete one is returned as it is.
        divergence: another estimator of the divergence; None keeps the flow's.
        solver: other settings of the solver; None keeps the flow's.
    """
    if isinstance(flow, Stack):
        return Stack([judged(cnf, divergence, solver) for cnf in flow.cnfs])  # pyright: ignore[reportReturnType]
    if not isinstance(flow, CNF):
        return flow
    by, estimator = replace(solver or flow.solver, engine="torchdiffeq"), divergence or flow.divergence
    given = (flow.field, flow.dim, flow.t1, estimator, by, flow.gradient, flow.base)
    return CNF(*given, noise=flow.noise, n_probes=flow.n_probes)  # pyright: ignore[reportReturnType]


def log_prob(flow: Any, x: Tensor, generator: Generator | None = None) -> Float[Tensor, " batch"]:  # noqa: ANN401
    """Log-density by a flow, continuous or not; only continuous ones may need noise."""
    return flow.log_prob(x, generator=generator) if isinstance(flow, (CNF, Stack)) else flow.log_prob(x)


def costs(flow: nn.Module) -> dict[str, float]:
    """Function evaluations of a continuous flow's last step; the backward count is left out where there is none."""
    if not isinstance(flow, (CNF, Stack)):
        return {}
    stats = flow.stats
    backward = {} if stats.nfe_backward is None else {"nfe_backward": float(stats.nfe_backward)}
    return {"nfe_forward": float(stats.nfe_forward), **backward}


@torch.no_grad()
def evaluate_log_prob(flow: Any, x: Tensor) -> Float[Tensor, " n"]:  # noqa: ANN401
    """Log-densities of many points, in float64, chunk by chunk."""
    return torch.cat([log_prob(flow, chunk).double() for chunk in x.split(CHUNK)])


def draw_test_points(flow: nn.Module, density: Density, points: int) -> Float[Tensor, "n dim"]:
    """Draw test points on the device of a flow, the same for every model and seed."""
    return density.sample(points, seeded_streams(0, "test")["test"]).to(next(flow.parameters()).device)


def likelihood_rows(
    flow: Any,  # noqa: ANN401
    density: Density,
    points: int,
    artefacts: Path | None = None,
) -> Iterator[Row]:
    """Measure the likelihood of a flow on test points that are the same for every model and seed.

    The gap is the mean of log p_data − log p_model over the test points: an estimate of KL(data ‖ model), free of the
    noise that the test sample brings into both. `nll_floor` is the data's entropy, which no model can beat.

    Args:
        flow: Has `log_prob`.
        density: Of the data.
        points: Size of the test sample.
        artefacts: Folder for the log-density of each point; None saves none.
    """
    x = draw_test_points(flow, density, points)
    log_density = evaluate_log_prob(flow, x)
    if artefacts is not None:
        save_log_density(artefacts, log_density)
    gap = density.log_density(x.double().cpu()).to(x.device) - log_density
    yield Row("test_nll", -float(log_density.mean()), "nats")
    yield Row("test_nll_error", float(log_density.std()) / points**0.5, "nats")
    yield Row("nll_floor", density.entropy(), "nats")
    yield Row("test_gap", float(gap.mean()), "nats")
    yield Row("test_gap_error", float(gap.std()) / points**0.5, "nats")


def compute_tight_nll(flow: CNF, density: Density, points: int) -> float:
    """Compute the test NLL (nats) in float64 at a tenth of the tolerance, on the points of `likelihood_rows`.

    Args:
        flow: As it is judged, in float32; it comes back as it was.
        density: Of the data.
        points: Size of the test sample.

    Raises:
        SolveError: The solve fails at that tolerance.
    """
    x = draw_test_points(flow, density, points)
    tight = judged(flow, solver=flow.solver.tighten()).double()
    try:
        return -float(evaluate_log_prob(tight, x.double()).mean())
    finally:
        flow.float()  # both share their weights


def there_and_back_rows(flow: CNF, x: Float[Tensor, "n dim"]) -> Iterator[Row]:
    """How well and at what price a flow runs backwards: the same points to the base and back, both without density."""
    with torch.no_grad():
        z = flow.trajectory(x, [0.0, flow.t1])[-1]
        there = flow.stats.nfe_forward
        error = (flow.inverse(z) - x).norm(dim=1).max()
    yield Row("reversibility_error", float(error), "largest distance")
    yield Row("nfe_there", there, "evaluations, data to base, without density")
    yield Row("nfe_back", flow.stats.nfe_forward, "evaluations, base to data, without density")


def mass_rows(flow: Any, density: Density, side: int) -> Iterator[Row]:  # noqa: ANN401
    """Integral of a flow's density, and the part of it that lies where the data have none, in the window or beyond it.

    The grid covers `WIDER` times the window at the window's resolution of `side` points, hence (WIDER side)^dim points;
    what the flow puts beyond even that is missing from the integral. Empty is where the data's density is below a
    thousandth of its maximum on the grid; what little mass the data themselves have there stands beside the flow's.
    """
    points, cell = grid(WIDER * density.window, WIDER * side, density.dim)
    device = next(flow.parameters()).device
    found = evaluate_log_prob(flow, points.float().to(device)).cpu()
    found = torch.where(found.isnan(), -np.inf, found)  # far out a discrete flow may overflow: no mass, and none hidden
    truth = density.log_density(points)
    empty = truth < truth.max() - np.log(1000)
    yield Row("integral", float(found.exp().sum()) * cell, f"probability in {WIDER} times the window")
    yield Row("empty_mass", float(found[empty].exp().sum()) * cell, "probability where the data have none")
    yield Row("empty_mass_data", float(truth[empty].exp().sum()) * cell, "the data's own probability there")


def grid(window: float, side: int, dim: int = 2) -> tuple[Float[Tensor, "n dim"], float]:
    """Centres of the cells of a grid on [-window, window]^dim, the first coordinate fastest, and a cell's volume."""
    points, cell = midpoints(window, dim, side)
    return points.flip(1), cell


@torch.no_grad()
def density_image(flow: Any, window: float, side: int) -> Float[np.ndarray, "side side"]:  # noqa: ANN401
    """A flow's density on a square grid, the first row at the bottom."""
    points, _ = grid(window, side)
    device = next(flow.parameters()).device
    return _image(evaluate_log_prob(flow, points.float().to(device)), side)


def true_image(density: Density, side: int) -> Float[np.ndarray, "side side"]:
    """The data's own density on the same grid."""
    return _image(density.log_density(grid(density.window, side)[0]), side)


@torch.no_grad()
def log_prob_at(flow: CNF, points: Float[Tensor, "n dim"], time: float) -> Float[Tensor, " n"]:
    """Log-density, in nats, of what the flow has made of its base by a time between t1 (the base) and 0 (the data)."""
    if time >= flow.t1:
        return flow.base_log_prob(points)
    parts = [flow.transform(chunk, t0=time) for chunk in points.split(2 * CHUNK)]
    return torch.cat([flow.base_log_prob(z) + gain for z, gain in parts])


@torch.no_grad()
def film(
    flow: CNF, window: float, side: int, fractions: list[float], points: Tensor
) -> tuple[Float[np.ndarray, "time side side"], Float[np.ndarray, "time n dim"]]:
    """Densities and samples on the way from noise to data.

    Args:
        flow: one CNF.
        window: half of the picture's side.
        side: grid points on a side.
        fractions: of the way, increasing from 0 (base) to 1 (data).
        points: base sample.

    Returns:
        Density on the grid at each fraction, and the sample carried along.
    """
    device = next(flow.parameters()).device
    cells = grid(window, side)[0].float().to(device)
    times = [flow.t1 * (1 - fraction) for fraction in fractions]
    images = [_image(log_prob_at(flow, cells, time), side) for time in times]
    start = [] if times[0] == flow.t1 else [flow.t1]
    paths = flow.trajectory(points.to(device), [*start, *times])
    return np.stack(images), paths[len(start) :].cpu().numpy()


def _image(log_density: Tensor, side: int) -> np.ndarray:
    return log_density.exp().view(side, side).cpu().numpy()
