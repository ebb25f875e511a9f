"""Neural ODE, Table 1, columns memory and time: what one training step of each network costs.

The paper prints orders only: O(L) for a ResNet of L layers, O(L~) for backpropagation through a solver that evaluates
the field L~ times, O(1) memory and O(L~) time for the adjoint. Cells named after a network measure one training step of
it as Table 1 trains it (batch 128, tolerance 1e-3), at initialisation and on random images: evaluations, and with them
time, differ from those of a trained network, whose counts stand in Table 1. `depth_` cells measure how memory grows
with depth: solver steps of a fixed-step RK4 for the ODE-Net under each gradient method, residual blocks for the ResNet.

Two meters stand side by side: the bytes that autograd keeps for backward (exact, the same on every machine), and the
process's or GPU's peak over its baseline. Peaks are read in ascending order of depth, because a process's peak resident
set never falls.

Deviations: none that a number could show, since the paper prints no numbers here; batch, depths and RK4 are our choice.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import Tensor, nn
from torch.nn import functional as F

from repro import experiment, plotting
from repro.experiment import Context, Experiment
from repro.metrics import PeakMemory, saved_bytes, timed
from repro.nets.odenet import ConvField, Downsampling, OdeBlock, ode_block_of, residual_net
from repro.ode import Solver
from repro.papers.neural_ode import table1_mnist
from repro.papers.neural_ode.claims import COST_CLAIMS
from repro.papers.neural_ode.tables import table1_cost
from repro.results import Row, curve


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of one measurement of cost."""

    network: table1_mnist.Config | None = None
    """Table 1's network whose training step is measured; None for a `depth_` cell."""
    gradient: str | None = None
    """Gradient method of a `depth_` cell; None is the ResNet."""
    depths: tuple[int, ...] = (2, 4, 8, 16, 32)
    """Solver steps or residual blocks of a `depth_` cell, ascending."""
    downsampling: Downsampling = "conv"
    """Of a `depth_` cell."""
    batch: int = 128
    """Images in the step."""
    repeats: int = 30
    """Timed steps; two more before them warm up."""


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Cost of a training step, or its growth with depth."""
    stream = torch.Generator().manual_seed(config.seed)  # no data set: its freed memory would spoil the baseline
    images = torch.rand(config.batch, 1, 28, 28, generator=stream).to(context.device)
    labels = torch.randint(0, 10, (config.batch,), generator=stream).to(context.device)
    if config.network is None:
        yield from _by_depth(config, images, labels, context)
    else:
        yield from _one_step(config, config.network, images, labels, context)


def _one_step(
    config: Config, network: table1_mnist.Config, images: Tensor, labels: Tensor, context: Context
) -> Iterator[Row]:
    memory = PeakMemory(context.device)
    model = table1_mnist.build(replace(network, seed=config.seed)).to(context.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)  # weights stay, so every step is the same

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    yield Row("saved_bytes", _saved(model, images, labels), "bytes (kept by autograd)")
    yield from _times(step, config.repeats, context)
    yield Row("peak_step_memory", memory.read(), memory.unit)
    block = ode_block_of(model)
    for name, value in (block.costs() if block else {}).items():
        yield Row(name, value, "evaluations")


def _saved(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    with saved_bytes(exclude=model.parameters()) as meter:  # the forward pass only: what waits for backward
        loss = F.cross_entropy(model(images), labels)
    loss.backward()
    return meter.total


def _times(step: Callable[[], None], repeats: int, context: Context) -> Iterator[Row]:
    seconds = []
    for _ in range(repeats + 2):  # the first two warm up
        context.check()
        seconds.append(timed(step, context.device))
    low, median, high = statistics.quantiles(seconds[2:], n=4)
    yield Row("step_time", median, "s")
    yield Row("step_time_low", low, "s")
    yield Row("step_time_high", high, "s")


def _by_depth(config: Config, images: Tensor, labels: Tensor, context: Context) -> Iterator[Row]:
    memory = PeakMemory(context.device)  # once: freed memory stays resident and would spoil a later baseline
    for depth in config.depths:
        context.check()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = _of_depth(config, depth).to(context.device)
        yield Row("saved_bytes", _saved(model, images, labels), "bytes (kept by autograd)", depth)
        yield Row("peak_step_memory", memory.read(), memory.unit, depth)
        block = ode_block_of(model)
        for name, value in (block.costs() if block else {}).items():
            yield Row(name, value, "evaluations", depth)


def _of_depth(config: Config, depth: int) -> nn.Module:
    """Only the part that Table 1's networks differ in, between the same down-sampling and head."""
    layers = residual_net(config.downsampling, 0 if config.gradient else depth)
    if config.gradient is None:
        return layers
    solver = Solver("rk4", step_size=1.0 / depth)
    return nn.Sequential(layers[0], OdeBlock(ConvField(), solver, config.gradient), layers[-1])


NAMES = {
    "depth_resnet": "ResNet (blocks)",
    "depth_backprop": "backprop",
    "depth_checkpoint": "checkpoint",
    "depth_adjoint": "adjoint",
}


def draw(rows: pd.DataFrame) -> Figure:
    """Memory against depth: what autograd keeps, and the peak of process or GPU."""
    figure, axes = plotting.new_figure(1, 2)
    plotting.panel_titles(axes, ("Kept by autograd for backward", "Peak of the process over its baseline"))
    for (cell, name), color, marker in zip(NAMES.items(), plotting.PALETTE, plotting.MARKERS, strict=False):
        table = curve(rows, "neural_ode/table1_cost", cell)
        for axis, metric in zip(axes, ("saved_bytes", "peak_step_memory"), strict=True):
            if not table.empty:
                axis.loglog(table.index, table[metric] / 2**20, color=color, marker=marker, markersize=3.5, label=name)
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        plotting.plain_log_ticks(axis, "y")
        axis.set(xlabel="solver steps (RK4) or residual blocks", ylabel="MiB")
    axes[0].legend(fontsize=7)
    return figure


def _cells() -> dict[str, Config]:
    table = table1_mnist.CELLS
    networks = {
        name: Config(network=table[name]) for name in ("mlp", "resnet", "rknet", "odenet", "one_block", "no_block")
    }
    methods: tuple[Literal["adjoint_seminorm", "checkpoint"], ...] = ("adjoint_seminorm", "checkpoint")
    for method in methods:
        networks[f"odenet_{method}"] = Config(network=replace(table["odenet"], gradient=method))
    depth = {
        f"depth_{name}": Config(gradient=name) for name in ("backprop", "adjoint", "adjoint_seminorm", "checkpoint")
    }
    return networks | depth | {"depth_resnet": Config()}


CELLS = _cells()

EXPERIMENT = Experiment(
    artefact="Neural ODE, Table 1 (memory and time)",
    cells=CELLS,
    tiers={
        "smoke": lambda config: replace(config, batch=32, depths=(2, 4, 8), repeats=3),
        "small": lambda config: replace(config, repeats=15),
    },
    measure=measure,
    draw={"table1_memory": draw},
    tables={"table1_cost": table1_cost},
    claims=COST_CLAIMS,
)
