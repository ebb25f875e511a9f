"""Neural ODE, Figure 3 (Section 3): statistics of a trained ODE-Net.

a numerical error against function evaluations, b forward time against them, c backward against forward evaluations,
d forward evaluations during training. The network is Table 1's ODE-Net of the same tier and seed; panel d comes from
that run's own rows.

How many evaluations the backward solve takes depends on the size of the loss: averaged over the batch, the adjoint
state is far below an absolute tolerance, so that only the state's own way back limits the steps and the gradient is
hardly controlled; summed (`_sum` cells), the adjoint and the parameter gradients count. The paper does not say which it
used; both are measured, with the gradient's error beside them.

Deviations: the paper solved with SciPy's implicit Adams code (LSODE/VODE), whose corrector it does not name; here
`vode_adams` iterates functionally, and dopri5 stands beside it with the default error norm and the seminorm. One batch
of test images shares its steps. Errors are against the same float32 network, converted to float64 and solved far more
tightly. The network has ReLUs, so its field is only piecewise smooth and no method reaches its order. VODE's forward
time includes the state's way to NumPy in float64 and back.
"""

import copy
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn
from torch.nn import functional as F

from repro import experiment, plotting
from repro.checkpoint import load_weights
from repro.experiment import Context, Experiment
from repro.metrics import timed
from repro.nets.odenet import OdeBlock
from repro.ode import GRADIENTS, SOLVERS, Solver, Stats, solve
from repro.papers.neural_ode import table1_mnist
from repro.papers.neural_ode.claims import BATCH, FIG3_CLAIMS
from repro.papers.neural_ode.mnist_images import Images, to_float
from repro.results import Row, curve
from repro.settings import Among, Count, Tolerance

SOURCE = ("neural_ode/table1_mnist", "odenet")


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of one solver's sweep over tolerances."""

    solver: Solver = SOLVERS["dopri5"]
    """Solver; its tolerances are replaced by those of the sweep."""
    gradient: Annotated[str, Among(GRADIENTS)] = "adjoint"
    """Gradient method of the backward solve."""
    tolerances: tuple[Tolerance, ...] = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
    """rtol = atol; the paper trains at 1e-3."""
    reference_tolerance: Tolerance = 1e-8
    """Of the float64 solution that errors are measured against."""
    loss: Literal["mean", "sum"] = "mean"
    """How the batch's cross-entropies become the loss whose gradient is solved for."""
    batch: Count = BATCH
    """Test images that share their steps."""
    repeats: Count = 15
    """Timed forward solves per tolerance, in turns over the tolerances."""


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Sweep the tolerance; `step` numbers it from 0."""
    network = _trained(config, context)
    exact = _gradient(config, network, _double(network), _solver(config, config.reference_tolerance, "dopri5"))
    for index, tolerance in enumerate(config.tolerances):
        context.check()
        yield Row("tolerance", tolerance, "rtol = atol", index)
        found = _gradient(config, network, network.field, _solver(config, tolerance))
        yield from _costs(found, exact, index)
        context.progress(index + 1, len(config.tolerances), {"tolerance": tolerance})
    yield from _times(config, network, context)


@dataclass(frozen=True)
class Network:
    """The parts of a trained ODE-Net that the sweep needs, and the state that images enter the ODE with."""

    field: nn.Module
    head: nn.Module
    y0: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Gradient:
    """One forward and backward solve: final state, loss gradient at it, gradient of the field's parameters, cost."""

    y1: Tensor
    adjoint: Tensor
    parameters: Tensor
    stats: Stats


def _trained(config: Config, context: Context) -> Network:
    assert context.find_weights is not None, "the runner gives every context a way to find weights"
    weights = context.find_weights(table1_mnist.EXPERIMENT, *SOURCE, config.seed)
    settings = table1_mnist.CELLS["odenet"]
    model = table1_mnist.build(settings).to(context.device)
    load_weights(model, weights)
    images = Images(context.device, evaluation_limit=config.batch)
    context.inputs.update(images.sha256)
    block = model[1]
    assert isinstance(block, OdeBlock), "an ODE-Net is down-sampling, ODE block, head"
    with torch.no_grad():
        y0 = model[0](to_float(images.test[0]))
    return Network(block.field, model[2], y0, images.test[1])


def _double(network: Network) -> nn.Module:
    return copy.deepcopy(network.field).double()


def _solver(config: Config, tolerance: float, method: str | None = None) -> Solver:
    if method is None:
        return replace(config.solver, rtol=tolerance, atol=tolerance)
    return Solver(method, rtol=tolerance, atol=tolerance)


def _unit_interval(y: Tensor) -> Tensor:
    return torch.tensor([0.0, 1.0], dtype=y.dtype, device=y.device)


def _gradient(config: Config, network: Network, field: nn.Module, solver: Solver) -> Gradient:
    """Solve both ways; in float64 (the reference) by exact replay, whose error is that of the forward solve alone."""
    parameters = list(field.parameters())
    exact = parameters[0].dtype == torch.float64
    y0 = network.y0.to(parameters[0].dtype)
    solution = solve(field, y0, _unit_interval(y0), solver, "checkpoint" if exact else config.gradient)
    head = copy.deepcopy(network.head).to(y0.dtype)
    loss = F.cross_entropy(head(solution.y[-1]), network.labels, reduction=config.loss)
    adjoint, *gradients = torch.autograd.grad(loss, [solution.y, *parameters])
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    return Gradient(solution.y[-1].detach(), adjoint[-1], flat, solution.stats)


def _costs(found: Gradient, exact: Gradient, index: int) -> Iterator[Row]:
    yield Row("error", _relative(found.y1, exact.y1), "relative L2 of the final state", index)
    yield Row("gradient_error", _relative(found.parameters, exact.parameters), "relative L2, field's parameters", index)
    yield Row("adjoint_rms", float(found.adjoint.square().mean().sqrt()), "RMS of dL/dy(1)", index)
    stats = found.stats
    counts = {"nfe_forward": stats.nfe_forward, "nfe_backward": stats.nfe_backward, "n_rejected": stats.n_rejected}
    units = {"n_rejected": "steps"}
    for metric, count in counts.items():
        if count is not None:
            yield Row(metric, count, units.get(metric, "evaluations"), index)


def _relative(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@torch.no_grad()
def _times(config: Config, network: Network, context: Context) -> Iterator[Row]:
    """Forward times, every round over all tolerances, so that a drift of the machine's speed hits them alike."""
    times = _unit_interval(network.y0)
    solvers = [_solver(config, tolerance) for tolerance in config.tolerances]
    seconds: list[list[float]] = [[] for _ in solvers]
    for _ in range(config.repeats + 1):  # the first round warms up
        for index, solver in enumerate(solvers):
            context.check()
            forward = partial(solve, network.field, network.y0, times, solver, config.gradient)
            seconds[index].append(timed(forward, context.device))
    for index, measured in enumerate(seconds):
        yield Row("forward_time", statistics.median(measured[1:]), "s", index)


# --- drawing ---------------------------------------------------------------------------------------------------------

STYLES: dict[str, dict[str, Any]] = {
    "dopri5": {"color": plotting.PALETTE[0], "marker": "o", "label": "dopri5"},
    "vode_adams": {"color": plotting.PALETTE[2], "marker": "^", "label": "implicit Adams (VODE)"},
    "dopri5_sum": {"color": plotting.PALETTE[0], "marker": "o", "linestyle": "--", "label": "dopri5, summed loss"},
    "dopri5_seminorm_sum": {
        "color": plotting.PALETTE[1],
        "marker": "x",
        "linestyle": "--",
        "label": "the same, seminorm",
    },
    "vode_adams_sum": {"color": plotting.PALETTE[2], "marker": "^", "linestyle": "--", "label": "VODE, summed loss"},
}


def draw(rows: pd.DataFrame) -> Figure:
    """Error, time and backward evaluations against forward evaluations, and evaluations during training."""
    figure, axes = plotting.new_figure(2, 2, panel=(plotting.COLUMN_WIDTH, 2.7))
    plotting.panel_titles(axes, ("Error", "Time", "Backward evaluations", "Training"))
    sweeps = {cell: curve(rows, "neural_ode/fig3_solver_stats", cell) for cell in STYLES}
    for cell, table in sweeps.items():
        if not table.empty:
            _draw_sweep(axes, cell, table)
    axes[0].set(xlabel="forward evaluations", ylabel="relative error of the final state")
    axes[1].set(xlabel="forward evaluations", ylabel="forward time / ms", xlim=(0, None), ylim=(0, None))
    note = "VODE: by way of NumPy, in float64"
    axes[1].text(0.03, 0.96, note, transform=axes[1].transAxes, fontsize=6.5, va="top")
    axes[2].set(xlabel="forward evaluations", ylabel="backward evaluations")
    _draw_ratios(axes[2], [table for table in sweeps.values() if not table.empty])
    plotting.plain_log_ticks(axes[0], "x")
    plotting.plain_log_ticks(axes[2], "x", "y")
    _draw_training(axes[3], rows)
    handles, labels = axes[2].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=7, columnspacing=1.2)
    return figure


def _draw_sweep(axes: list[Axes], cell: str, table: pd.DataFrame) -> None:
    style: dict[str, Any] = STYLES[cell] | {"markersize": 4.0, "linewidth": 1.0}
    if not cell.endswith("_sum"):  # the loss has no part in the forward solve
        axes[0].loglog(table["nfe_forward"], table["error"], **style)
        axes[1].plot(table["nfe_forward"], 1e3 * table["forward_time"], **style)
    axes[2].loglog(table["nfe_forward"], table["nfe_backward"], **style)


def _draw_ratios(axis: Axes, tables: list[pd.DataFrame]) -> None:
    """Guides: as many backward as forward evaluations, and the half that the paper reports."""
    ends = np.array([min(t["nfe_forward"].min() for t in tables), max(t["nfe_forward"].max() for t in tables)])
    axis.plot(ends, ends, color="0.4", linewidth=0.8, linestyle="--", label="equal")
    axis.plot(ends, ends / 2, color="0.4", linewidth=0.8, linestyle=":", label="half, as the paper reports")


def _draw_training(axis: Axes, rows: pd.DataFrame) -> None:
    table = curve(rows, *SOURCE)
    for metric, name, color in (("nfe_forward", "forward", "#0072B2"), ("nfe_backward", "backward", "#D55E00")):
        if metric in table.columns:
            epochs = np.arange(1, len(table) + 1)
            axis.plot(epochs, table[metric], color=color, marker="o", markersize=3.5, linewidth=1.0, label=name)
    axis.set(xlabel="epoch", ylabel="mean evaluations per step")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axis.lines:
        axis.legend(fontsize=7)


CELLS = {
    "dopri5": Config(),
    "vode_adams": Config(solver=SOLVERS["vode_adams"]),
    "dopri5_sum": Config(loss="sum"),
    "dopri5_seminorm_sum": Config(gradient="adjoint_seminorm", loss="sum"),
    "vode_adams_sum": Config(solver=SOLVERS["vode_adams"], loss="sum"),
}

EXPERIMENT = Experiment(
    artefact="Neural ODE, Figure 3",
    cells=CELLS,
    tiers={
        "smoke": lambda config: replace(
            config, tolerances=(1e-1, 1e-2, 1e-3), reference_tolerance=1e-5, batch=16, repeats=2
        ),
        "small": lambda config: replace(config, repeats=5),
    },
    measure=measure,
    draw={"fig3_solver_stats": draw},
    claims=FIG3_CLAIMS,
)
