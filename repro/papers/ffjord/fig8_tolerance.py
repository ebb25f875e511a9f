"""FFJORD, Figure 8 (Appendix C): how far a density's integral is from 1, against the solver's tolerance.

The flow on the line of Figure 1, with the weights of its published run; ∫ p over [-15, 15] by the Riemann sum of the
public script (500,000 points), at tolerances 1e-1 to 1e-8. All points are one batch and share their steps, as in the
script: half a million in float64 take about 2 GiB.

Deviations: in float64, so that rounding does not hide the solver's error at tight tolerances (the public script runs
in float32); the small tier sums 50,000 points. The sum's own error is a row beside the others, `integral_floor`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from repro import experiment, plotting
from repro.checkpoint import load_weights
from repro.experiment import Context, Experiment
from repro.flows import CNF
from repro.ode import Solver
from repro.papers.ffjord import fig1_density1d
from repro.papers.ffjord.toy_claims import FIG8, FIG8_CLAIMS
from repro.results import Row, curve
from repro.settings import ADAPTIVE_METHODS, LARGEST_INTEGER, Among, Positive, Range, Tolerance


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of the sweep."""

    method: Annotated[str, Among(ADAPTIVE_METHODS)] = "dopri5"
    """Solver."""
    tolerances: tuple[Tolerance, ...] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
    """atol = rtol."""
    half_width: Positive = 15.0
    """The integral runs over [-half_width, half_width]."""
    points: Annotated[int, Range(3, LARGEST_INTEGER)] = 500_000
    """Of the Riemann sum."""


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Integrate the trained density at every tolerance."""
    if context.find_weights is None:
        raise ValueError("find_weights must be set: this figure needs the weights of Figure 1's run")
    weights = context.find_weights(fig1_density1d.EXPERIMENT, fig1_density1d.NAME, "mixture_1d", config.seed)
    flow = fig1_density1d.build(fig1_density1d.EXPERIMENT.cells["mixture_1d"])
    load_weights(flow, weights)
    flow = flow.double().to(context.device)
    x = torch.linspace(-config.half_width, config.half_width, config.points, dtype=torch.float64).unsqueeze(1)
    x = x.to(context.device)
    for index, tolerance in enumerate(config.tolerances):
        context.check()
        flow.solver = Solver(config.method, rtol=tolerance, atol=tolerance)
        with torch.no_grad():
            density = flow.log_prob(x).exp()
        error = abs(1 - riemann_sum(density, config.half_width))
        yield Row("tolerance", tolerance, "atol = rtol", index)
        yield Row("integral_error", error, "|1 - integral|", index)
        yield Row("nfe_forward", flow.stats.nfe_forward, "evaluations", index)
        if tolerance == min(config.tolerances):
            floor = sum_error(density, config.half_width) + mass_outside(flow, config.half_width)
            yield Row("integral_floor", floor, "error of the sum itself, tails included")
        context.progress(index + 1, len(config.tolerances), {"integral_error": error})


def riemann_sum(density: Float[Tensor, " n"], half_width: float) -> float:
    """Integral of a density given at evenly spaced points from -half_width to half_width."""
    return float(density.sum()) * 2 * half_width / (len(density) - 1)


def sum_error(density: Float[Tensor, " n"], half_width: float) -> float:
    """How far the sum is from one of every other point: no less than its own error, which the spacing makes."""
    odd = density if len(density) % 2 else density[:-1]  # both sums then end at the same point
    width = half_width * (len(odd) - 1) / (len(density) - 1)
    return abs(riemann_sum(odd, width) - riemann_sum(odd[::2], width))


@torch.no_grad()
def mass_outside(flow: CNF, half_width: float) -> float:
    """Mass of a flow on the line outside [-half_width, half_width]: that of the base beyond the ends' images."""
    ends = torch.tensor([[-half_width], [half_width]], dtype=torch.float64, device=next(flow.parameters()).device)
    low, high = flow.trajectory(ends, [0.0, flow.t1])[-1]
    return float(torch.special.ndtr(low) + torch.special.ndtr(-high))


def draw(rows: pd.DataFrame) -> Figure:
    """Error of the integral against the tolerance, and the evaluations that it takes."""
    table = curve(rows, FIG8, "mixture_1d")
    figure, (error, cost) = plotting.new_figure(1, 2)
    plotting.panel_titles((error, cost), ("Error of the integral", "Cost"))
    tolerance = table["tolerance"]
    error.loglog(tolerance, table["integral_error"], marker="o", markersize=4, label="ours")
    ends = np.array([tolerance.min(), tolerance.max()])
    error.loglog(ends, ends, color="0.4", linestyle="--", linewidth=0.8, label="equal to the tolerance")
    error.set(xlabel="tolerance", ylabel="|1 - ∫p|")
    error.legend(fontsize=7)
    cost.semilogx(tolerance, table["nfe_forward"], marker="o", markersize=4)
    cost.set(xlabel="tolerance", ylabel="forward evaluations", ylim=(0, None))
    return figure


EXPERIMENT = Experiment(
    artefact="FFJORD, Figure 8",
    cells={"mixture_1d": Config()},
    tiers={
        "smoke": lambda config: replace(config, tolerances=(1e-1, 1e-2, 1e-3), points=2_000),
        "small": lambda config: replace(config, points=50_000),
    },
    measure=measure,
    draw={"ffjord_fig8": draw},
    claims=FIG8_CLAIMS,
)
