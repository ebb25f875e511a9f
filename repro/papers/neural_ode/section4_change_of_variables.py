"""Neural ODE, Section 4: the instantaneous change of variables holds, and its cost is linear in the width.

Cells `theorem1_*` compare the integrated trace with autograd's log-determinant of the whole flow, in float64, over a
sweep of tolerances (Theorem 1). Cells `width_*` time the log-density term and its gradients against the number of
hidden units M: the trace of a planar CNF, a sum over units (eq. 10), and the log-determinant of one wide discrete layer
z + U tanh(W z + b), taken over its units, as the paper counts it: O(M^3).

Deviations: the paper prints no numbers here, and its eq. 10 lacks the minus sign that its eq. 8 asks for. In few
dimensions the discrete layer's determinant could be taken over the coordinates instead, at O(M); the paper's count is
for the units, or for dimensions that grow with them.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from repro import experiment, plotting
from repro.experiment import Context, Experiment
from repro.flows import CNF
from repro.flows.planar_field import PlanarField
from repro.metrics import timed
from repro.nets.fields import ConcatSquashField
from repro.ode import Solver
from repro.papers.neural_ode.density_claims import SECTION4, SECTION4_CLAIMS
from repro.results import Row, curve
from repro.settings import Count, Tolerance


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of one check."""

    subject: Literal["planar", "perceptron", "planar_width", "determinant_width"] = "planar"
    """What is checked: a field's log-density, or what a width costs."""
    dim: Count = 5
    """Dimension of the state."""
    batch: Count = 20
    """Points."""
    tolerances: tuple[Tolerance, ...] = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
    """atol = rtol of the flow."""
    widths: tuple[Count, ...] = (32, 64, 128, 256, 512)
    """Hidden units M."""
    repeats: Count = 9
    """Timed repetitions; their median counts."""


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Check one subject."""
    sweep = _widths if config.subject.endswith("_width") else _tolerances
    yield from sweep(config, context)


def _tolerances(config: Config, context: Context) -> Iterator[Row]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        field: nn.Module
        field = PlanarField(config.dim) if config.subject == "planar" else ConcatSquashField(config.dim)
        x = torch.randn(config.batch, config.dim, dtype=torch.float64).to(context.device)
    field = field.double().to(context.device)
    for index, tolerance in enumerate(config.tolerances):
        context.check()
        solver = Solver("dopri5", rtol=tolerance, atol=tolerance)
        flow = CNF(field, config.dim, 1.0, "closed_form", solver, "backprop")
        gain = flow.transform(x)[1].detach()
        error = float((gain - _log_determinant(flow, x)).abs().max())
        yield Row("tolerance", tolerance, "atol = rtol", index)
        yield Row("log_density_error", error, "nats, largest over the batch", index)
        context.progress(index + 1, len(config.tolerances), {"log_density_error": error})


def _log_determinant(flow: CNF, x: Tensor) -> Tensor:
    """log|det ∂z/∂x| of the whole flow by autograd: rows do not depend on one another, so one pass a coordinate."""
    x = x.detach().requires_grad_()
    z = flow.transform(x)[0]
    rows = [torch.autograd.grad(z[:, i].sum(), x, retain_graph=True)[0] for i in range(z.shape[1])]
    return torch.linalg.slogdet(torch.stack(rows, 1)).logabsdet


def _widths(config: Config, context: Context) -> Iterator[Row]:
    make = _planar if config.subject == "planar_width" else _determinant
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        steps = [make(config, width, context.device) for width in config.widths]
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(config.repeats + 2):  # the first rounds warm up
        for index, step in enumerate(steps):
            context.check()
            seconds[index].append(timed(step, context.device))
    for index, (width, measured) in enumerate(zip(config.widths, seconds, strict=True)):
        yield Row("width", width, "units", index)
        yield Row("step_time", statistics.median(measured[2:]), "s", index)


def _planar(config: Config, width: int, device: torch.device) -> Callable[[], None]:
    field = PlanarField(config.dim, width).to(device)
    y, t = torch.randn(config.batch, config.dim, device=device), torch.tensor(0.5, device=device)

    def step() -> None:
        dy, trace = field.divergence(t, y)
        (dy.sum() + trace.sum()).backward()

    return step


def _determinant(config: Config, width: int, device: torch.device) -> Callable[[], None]:
    scale = width**-0.5
    into, out = (nn.Parameter(scale * torch.randn(width, config.dim, device=device)) for _ in range(2))
    z = torch.randn(config.batch, config.dim, device=device)

    def step() -> None:
        slopes = 1 - torch.tanh(z @ into.T).square()
        matrices = torch.eye(width, device=device) + slopes.unsqueeze(2) * (into @ out.T)
        torch.linalg.slogdet(matrices).logabsdet.sum().backward()

    return step


def draw(rows: pd.DataFrame) -> Figure:
    """Error of the log-density against the tolerance, and time against the number of hidden units."""
    figure, (error, cost) = plotting.new_figure(1, 2)
    plotting.panel_titles((error, cost), ("Theorem 1", "Cost of the log-density"))
    for cell, label in (("theorem1_planar", "planar CNF"), ("theorem1_perceptron", "perceptron field")):
        table = curve(rows, SECTION4, cell)
        if not table.empty:
            error.loglog(table["tolerance"], table["log_density_error"], marker="o", markersize=4, label=label)
    error.set(xlabel="tolerance", ylabel="largest error of log p / nats")
    for cell, label in (("width_planar_cnf", "trace, planar CNF"), ("width_determinant", "determinant")):
        table = curve(rows, SECTION4, cell)
        if not table.empty:
            (line,) = cost.loglog(table["width"], 1e3 * table["step_time"], marker="o", markersize=4)
            end = float(table["width"].iloc[-1]), 1e3 * float(table["step_time"].iloc[-1])
            place = {"xytext": (-6, 0), "textcoords": "offset points", "ha": "right", "va": "center", "fontsize": 7}
            cost.annotate(label, end, color=line.get_color(), **place)
    cost.set(xlabel="hidden units M", ylabel="time with gradients / ms")
    if cost.lines:
        plotting.plain_log_ticks(cost, "x")
    for axis in (error, cost):
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
        elif not axis.lines:
            axis.axis("off")
            axis.text(0.5, 0.5, "not run yet", transform=axis.transAxes, ha="center", color="0.4")
    return figure


CELLS = {
    "theorem1_planar": Config(),
    "theorem1_perceptron": Config(subject="perceptron"),
    "width_planar_cnf": Config(subject="planar_width", widths=tuple(2**k for k in range(8, 17)), batch=8),
    "width_determinant": Config(
        subject="determinant_width", widths=(32, 64, 96, 128, 192, 256, 384, 512, 768, 1024), batch=8
    ),
}

EXPERIMENT = Experiment(
    artefact="Neural ODE, Section 4",
    cells=CELLS,
    tiers={
        "smoke": lambda config: replace(
            config, tolerances=(1e-4, 1e-6), widths=tuple(w for w in config.widths if w <= 256), batch=5, repeats=2
        ),
        "small": lambda config: config,
    },
    measure=measure,
    draw={"node_section4": draw},
    claims=SECTION4_CLAIMS,
)
