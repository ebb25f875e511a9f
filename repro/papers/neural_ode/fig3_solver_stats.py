"""Neural ODE, Figure 3 (Section 3): statistics of a trained ODE-Net.

a numerical error against function evaluations, b forward time against them, c backward against forward evaluations,
d forward evaluations during training. The network is Table 1's ODE-Net of the same tier and seed; panel d comes from
that run's own rows.

Deviations: the paper solved with SciPy's implicit Adams code (LSODE/VODE) and measured training batches; here the same
family (`vode_adams`) stands beside dopri5, with the adjoint's default error norm and with the seminorm, on one batch of
test images. The error is against the same float32 network, converted to float64 and solved far more tightly. The
network has ReLUs, so its field is only piecewise smooth and no method reaches its order.
"""

import copy
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn
from torch.nn import functional as F

from repro import experiment, plotting
from repro.experiment import Context, Experiment
from repro.nets.odenet import OdeBlock
from repro.ode import SOLVERS, Solver, solve
from repro.papers.neural_ode import table1_mnist
from repro.papers.neural_ode.claims import FIG3_CLAIMS
from repro.results import Row, curve

SOURCE = ("neural_ode/table1_mnist", "odenet")


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of one solver's sweep over tolerances."""

    solver: Solver = SOLVERS["dopri5"]
    """Solver; its tolerances are replaced by those of the sweep."""
    gradient: str = "adjoint"
    """Gradient method of the backward solve."""
    tolerances: tuple[float, ...] = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
    """rtol = atol; the paper trains at 1e-3."""
    reference_tolerance: float = 1e-8
    """Of the float64 solution that errors are measured against."""
    batch: int = 128
    """Test images that share their steps."""
    repeats: int = 5
    """Timed forward solves per tolerance."""


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Sweep the tolerance; `step` numbers it from 0."""
    model, images, labels = _trained(config, context)
    block = model[1]
    assert isinstance(block, OdeBlock), "an ODE-Net is down-sampling, ODE block, head"
    with torch.no_grad():
        y0 = model[0](images)
        reference = _reference(config, block.field, y0)
    for index, tolerance in enumerate(config.tolerances):
        context.check()
        solver = replace(config.solver, rtol=tolerance, atol=tolerance)
        yield Row("tolerance", tolerance, "rtol = atol", index)
        yield from _forward(config, solver, block.field, y0, reference, index)
        yield from _backward(config, solver, block.field, model[2], y0, labels, index)
        context.progress(index + 1, len(config.tolerances), {"tolerance": tolerance})


def _trained(config: Config, context: Context) -> tuple[nn.Sequential, Tensor, Tensor]:
    assert context.find_weights is not None, "the runner gives every context a way to find weights"
    weights = context.find_weights(table1_mnist.EXPERIMENT, *SOURCE, config.seed)
    settings = table1_mnist.CELLS["odenet"]
    model = table1_mnist.build(settings).to(context.device)
    model.load_state_dict(dict(weights))
    images = table1_mnist.Images(replace(settings, evaluation_limit=config.batch), context.device)
    context.inputs.update(images.sha256)
    return model, table1_mnist.to_float(images.test[0]), images.test[1]


def _unit_interval(y: Tensor) -> Tensor:
    return torch.tensor([0.0, 1.0], dtype=y.dtype, device=y.device)


def _reference(config: Config, field: nn.Module, y0: Tensor) -> Tensor:
    solver = Solver("dopri5", rtol=config.reference_tolerance, atol=config.reference_tolerance)
    return solve(copy.deepcopy(field).double(), y0.double(), _unit_interval(y0.double()), solver, "backprop").y[-1]


@torch.no_grad()
def _forward(
    config: Config, solver: Solver, field: nn.Module, y0: Tensor, reference: Tensor, index: int
) -> Iterator[Row]:
    solution = solve(field, y0, _unit_interval(y0), solver, config.gradient)  # also the warm-up
    seconds = []
    for _ in range(config.repeats):
        start = time.perf_counter()
        solution = solve(field, y0, _unit_interval(y0), solver, config.gradient)
        if y0.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    error = (solution.y[-1].double() - reference).norm() / reference.norm()
    yield Row("error", float(error), "relative L2 of the final state", index)
    yield Row("nfe_forward", solution.stats.nfe_forward, "evaluations", index)
    if solution.stats.n_rejected is not None:
        yield Row("n_rejected", solution.stats.n_rejected, "steps", index)
    yield Row("forward_time", statistics.median(seconds), "s", index)


def _backward(
    config: Config, solver: Solver, field: nn.Module, head: nn.Module, y0: Tensor, labels: Tensor, index: int
) -> Iterator[Row]:
    solution = solve(field, y0.detach().requires_grad_(), _unit_interval(y0), solver, config.gradient)
    F.cross_entropy(head(solution.y[-1]), labels).backward()
    field.zero_grad(set_to_none=True)
    head.zero_grad(set_to_none=True)
    assert solution.stats.nfe_backward is not None
    yield Row("nfe_backward", solution.stats.nfe_backward, "evaluations", index)


# --- drawing ---------------------------------------------------------------------------------------------------------

STYLES: dict[str, dict[str, Any]] = {
    "dopri5": {"color": plotting.PALETTE[0], "marker": "o", "label": "dopri5"},
    "dopri5_seminorm": {"color": plotting.PALETTE[1], "marker": "x", "linestyle": "--", "label": "dopri5, seminorm"},
    "vode_adams": {"color": plotting.PALETTE[2], "marker": "^", "label": "implicit Adams (VODE), as in the paper"},
}


def draw(rows: pd.DataFrame) -> Figure:
    """The four panels; `rows` holds this experiment's runs and Table 1's of one tier."""
    figure, axes = plotting.new_figure(2, 2)
    plotting.panel_titles(
        axes, ("Error falls with evaluations", "Time follows evaluations", "Backward cost", "Training")
    )
    sweeps = {cell: curve(rows, "neural_ode/fig3_solver_stats", cell) for cell in STYLES}
    for cell, table in sweeps.items():
        if not table.empty:
            _draw_sweep(axes, cell, table)
    axes[0].set(xlabel="forward evaluations", ylabel="relative error of the final state")
    axes[1].set(xlabel="forward evaluations", ylabel="forward time / ms", xlim=(0, None), ylim=(0, None))
    axes[2].set(xlabel="forward evaluations", ylabel="backward evaluations")
    plotting.plain_log_ticks(axes[0], "x")
    plotting.plain_log_ticks(axes[2], "x", "y")
    _draw_ratios(axes[2], [table for table in sweeps.values() if not table.empty])
    axes[0].legend(fontsize=7)
    axes[2].legend(fontsize=6.5, loc="upper left")
    _draw_training(axes[3], rows)
    return figure


def _draw_sweep(axes: list[Axes], cell: str, table: pd.DataFrame) -> None:
    style: dict[str, Any] = STYLES[cell] | {"markersize": 4.0, "linewidth": 1.0}
    if cell != "dopri5_seminorm":  # forward it is dopri5 itself
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
    "dopri5_seminorm": Config(gradient="adjoint_seminorm"),
    "vode_adams": Config(solver=SOLVERS["vode_adams"]),
}

EXPERIMENT = Experiment(
    artefact="Neural ODE, Figure 3",
    cells=CELLS,
    tiers={
        "smoke": lambda config: replace(
            config, tolerances=(1e-1, 1e-2, 1e-3), reference_tolerance=1e-6, batch=16, repeats=2
        ),
        "small": lambda config: config,
    },
    measure=measure,
    draw={"fig3_solver_stats": draw},
    claims=FIG3_CLAIMS,
    needs=("neural_ode/table1_mnist",),
)
