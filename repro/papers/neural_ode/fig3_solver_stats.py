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

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from repro import experiment, plotting
from repro.experiment import Context, Experiment
from repro.ode import SOLVERS, Solver, solve
from repro.papers.neural_ode import table1_mnist
from repro.papers.neural_ode.claims import FIG3_CLAIMS
from repro.results import Row

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
    with torch.no_grad():
        y0 = model[0](images)
        reference = _reference(config, model[1].field, y0)
    for index, tolerance in enumerate(config.tolerances):
        context.check()
        solver = replace(config.solver, rtol=tolerance, atol=tolerance)
        yield Row("tolerance", tolerance, "rtol = atol", index)
        yield from _forward(config, solver, model[1].field, y0, reference, index)
        yield from _backward(config, solver, model, y0, labels, index)
        context.progress(index + 1, len(config.tolerances), {"tolerance": tolerance})


def _trained(config: Config, context: Context) -> tuple[nn.Sequential, Tensor, Tensor]:
    assert context.find_weights is not None, "the runner gives every context a way to find weights"
    weights = context.find_weights(*SOURCE, config.seed)
    settings = table1_mnist.CELLS["odenet"]
    model = table1_mnist.build(settings).to(context.device)
    model.load_state_dict(dict(weights.tensors))
    images = table1_mnist.Images(replace(settings, evaluation_limit=config.batch), context.device)
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
    seconds = []
    for _ in range(config.repeats + 1):
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
    yield Row("forward_time", statistics.median(seconds[1:]), "s", index)


def _backward(
    config: Config, solver: Solver, model: nn.Sequential, y0: Tensor, labels: Tensor, index: int
) -> Iterator[Row]:
    solution = solve(model[1].field, y0.detach().requires_grad_(), _unit_interval(y0), solver, config.gradient)
    F.cross_entropy(model[2](solution.y[-1]), labels).backward()
    model.zero_grad(set_to_none=True)
    assert solution.stats.nfe_backward is not None
    yield Row("nfe_backward", solution.stats.nfe_backward, "evaluations", index)


# --- drawing ---------------------------------------------------------------------------------------------------------

NAMES = {"dopri5": "dopri5", "dopri5_seminorm": "dopri5, seminorm", "vode_adams": "implicit Adams (VODE)"}


def draw(rows: pd.DataFrame) -> Figure:
    """The four panels; `rows` holds this experiment's runs and Table 1's of one tier."""
    figure, axes = plotting.new_figure(2, 2)
    plotting.panel_titles(axes, ["error follows evaluations", "time follows evaluations", "backward against forward", "training"])
    sweeps = {cell: _sweep(rows, cell) for cell in NAMES}
    for (cell, table), color, marker in zip(sweeps.items(), plotting.PALETTE, plotting.MARKERS, strict=False):
        if table.empty:
            continue
        style = {"color": color, "marker": marker, "markersize": 3.5, "linewidth": 1.0, "label": NAMES[cell]}
        if cell != "dopri5_seminorm":  # forward it is dopri5 itself
            axes[0].loglog(table["nfe_forward"], table["error"], **style)
            axes[1].plot(table["nfe_forward"], 1e3 * table["forward_time"], **style)
        axes[2].loglog(table["nfe_forward"], table["nfe_backward"], **style)
    _finish_cost_panels(axes, sweeps)
    _draw_training(axes[3], rows)
    return figure


def _sweep(rows: pd.DataFrame, cell: str) -> pd.DataFrame:
    chosen = rows[(rows["experiment"] == "neural_ode/fig3_solver_stats") & (rows["cell"] == cell) & rows["step"].notna()]
    return chosen.pivot_table(index="step", columns="metric", values="value") if len(chosen) else pd.DataFrame()


def _finish_cost_panels(axes: list[Axes], sweeps: dict[str, pd.DataFrame]) -> None:
    axes[0].set(xlabel="forward evaluations", ylabel="relative error")
    axes[1].set(xlabel="forward evaluations", ylabel="forward time / ms")
    axes[2].set(xlabel="forward evaluations", ylabel="backward evaluations")
    seen = [table["nfe_forward"] for table in sweeps.values() if not table.empty]
    if seen:
        ends = np.array([min(map(min, seen)), max(map(max, seen))])
        axes[2].plot(ends, ends, color="0.4", linewidth=0.8, linestyle="--", label="equal")
        axes[2].plot(ends, ends / 2, color="0.4", linewidth=0.8, linestyle=":", label="half: the paper's claim")
    axes[0].legend(fontsize=7)
    axes[2].legend(fontsize=6.5)


def _draw_training(axis: Axes, rows: pd.DataFrame) -> None:
    chosen = rows[(rows["experiment"] == SOURCE[0]) & (rows["cell"] == SOURCE[1]) & rows["step"].notna()]
    curve = chosen.pivot_table(index="step", columns="metric", values="value")
    if {"nfe_forward", "nfe_backward"} <= set(curve.columns):
        epoch = np.arange(1, len(curve) + 1)
        for metric, color, name in (("nfe_forward", plotting.PALETTE[0], "forward"), ("nfe_backward", plotting.PALETTE[1], "backward")):
            axis.plot(epoch, curve[metric], color=color, marker="o", markersize=3, linewidth=1.0)
            plotting.label_line(axis, epoch[-1], curve[metric].iloc[-1], name, color, dx=-6.0, dy=7.0)
    axis.set(xlabel="epoch", ylabel="mean evaluations per step")


CELLS = {
    "dopri5": Config(),
    "dopri5_seminorm": Config(gradient="adjoint_seminorm"),
    "vode_adams": Config(solver=SOLVERS["vode_adams"]),
}

EXPERIMENT = Experiment(
    artefact="Neural ODE, Figure 3",
    cells=CELLS,
    tiers={
        "smoke": lambda config: replace(config, tolerances=(1e-1, 1e-2, 1e-3), reference_tolerance=1e-6, batch=16, repeats=2),
        "small": lambda config: config,
    },
    measure=measure,
    draw={"fig3_solver_stats": draw},
    claims=FIG3_CLAIMS,
    needs=("neural_ode/table1_mnist",),
)
