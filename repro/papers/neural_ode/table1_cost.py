"""Neural ODE, Table 1, columns memory and time: what one training step of each network costs.

The paper prints orders only: O(L) for a ResNet of L layers, O(L~) for backpropagation through a solver that evaluates
the field L~ times, O(1) memory and O(L~) time for the adjoint. Cells named after a network measure one training step of
it as Table 1 trains it (batch 128, tolerance 1e-3), at initialisation and on random images: evaluations, and with them
time, differ from those of a trained network, whose counts stand in Table 1. `depth_` cells measure how memory grows
with depth: solver steps of a fixed-step RK4 for the ODE-Net under each gradient method, residual blocks for the ResNet.

Two meters stand side by side: the bytes that autograd keeps for backward (exact, the same on every machine), and the
peak of the process or GPU over its baseline, of a single step on one thread in a process of its own
(`repro.measuring.memory`).

Deviations: none that a number could show, since the paper prints no numbers here; batch, depths and RK4 are our choice.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from torch import nn

from repro import experiment, plotting
from repro.experiment import Context, Experiment
from repro.measuring.fresh import fresh
from repro.measuring.memory import peak
from repro.measuring.meters import counted
from repro.measuring.step import Step, classifier_step
from repro.metrics import timed
from repro.nets.odenet import ConvField, Downsampling, OdeBlock, residual_net
from repro.ode import GRADIENTS, Solver
from repro.papers.neural_ode import table1_mnist
from repro.papers.neural_ode.claims import BATCH, COST_CLAIMS
from repro.papers.neural_ode.tables import table1_cost
from repro.results import Row, curve
from repro.settings import Among, Count, SeveralCount


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of one measurement of cost."""

    network: table1_mnist.Config | None = None
    """Table 1's network whose training step is measured; None for a `depth_` cell."""
    gradient: Annotated[str, Among(GRADIENTS)] | None = None
    """Gradient method of a `depth_` cell; None is the ResNet."""
    depths: tuple[Count, ...] = (2, 4, 8, 16, 32)
    """Solver steps or residual blocks of a `depth_` cell, ascending."""
    downsampling: Downsampling = "conv"
    """Of a `depth_` cell."""
    batch: Count = BATCH
    """Images in the step."""
    repeats: SeveralCount = 30
    """Timed steps; two more before them warm up."""


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Cost of a training step, or its growth with depth."""
    if config.network is not None:
        step = partial(_network_step, config, config.network, context.device)
        yield from _costs(step, context)
        yield from _times(step(), config.repeats, context)
        return
    for depth in config.depths:
        for row in _costs(partial(_depth_step, config, depth, context.device), context):
            yield replace(row, step=depth)


def _network_step(config: Config, network: table1_mnist.Config, device: torch.device) -> Step:
    return _step(table1_mnist.build(replace(network, seed=config.seed)), config, device)


def _depth_step(config: Config, depth: int, device: torch.device) -> Step:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _step(_of_depth(config, depth), config, device)


def _step(model: nn.Module, config: Config, device: torch.device) -> Step:
    stream = torch.Generator().manual_seed(config.seed)
    images = torch.rand(config.batch, 1, 28, 28, generator=stream).to(device)
    labels = torch.randint(0, 10, (config.batch,), generator=stream).to(device)
    return classifier_step(model.to(device), images, labels)


def _costs(make: Callable[[], Step], context: Context) -> Iterator[Row]:
    """Memory by both meters, and the evaluations."""
    context.check()
    found = fresh(partial(peak, make, context.device), threads=1)  # each thread more would add its own scratch memory
    if found["status"] != "ok":
        raise RuntimeError(f"the peak of a step could not be measured: {found['status']}")
    figures = counted(make())
    yield Row("saved_bytes", figures["saved_bytes"], "bytes (kept by autograd)")
    yield Row("peak_step_memory", found["peak_bytes"], found["meter"])
    for name in ("nfe_forward", "nfe_backward"):
        if figures.get(name) is not None:
            yield Row(name, figures[name], "evaluations")


def _times(step: Step, repeats: int, context: Context) -> Iterator[Row]:
    optimizer = torch.optim.SGD(step.leaves, lr=0.0, momentum=0.9)  # weights stay, so every step is the same

    def update() -> None:
        step.take()
        optimizer.step()

    seconds = []
    for _ in range(repeats + 2):  # the first two warm up
        context.check()
        seconds.append(timed(update, context.device))
    low, median, high = statistics.quantiles(seconds[2:], n=4)
    yield Row("step_time", median, "s")
    yield Row("step_time_low", low, "s")
    yield Row("step_time_high", high, "s")


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


def draw(rows: pd.DataFrame) -> Figure | None:
    """Memory against depth: what autograd keeps, and the peak of process or GPU."""
    tables = {cell: curve(rows, "neural_ode/table1_cost", cell) for cell in NAMES}
    if all(table.empty for table in tables.values()):
        return None
    figure, axes = plotting.new_figure(1, 2)
    plotting.panel_titles(axes, ("Kept by autograd for backward", "Peak of the process over its baseline"))
    for (cell, name), color, marker in zip(NAMES.items(), plotting.PALETTE, plotting.MARKERS, strict=False):
        for axis, metric in zip(axes, ("saved_bytes", "peak_step_memory"), strict=True):
            if not (table := tables[cell]).empty:
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
    version=2,
)
