"""FFJORD, Figure 8 (Appendix C): how far a density's integral is from 1, against the solver's tolerance.

The flow on the line of Figure 1, with the weights of its published run; ∫ p over [-15, 15] by the Riemann sum of the
public script (500,000 points), at tolerances 1e-1 to 1e-8.

Deviations: in float64, so that rounding does not hide the solver's error at tight tolerances (the public script runs
in float32); the small tier sums 50,000 points.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from repro import experiment, plotting
from repro.experiment import Context, Experiment
from repro.likelihood import evaluate_log_prob
from repro.ode import Solver
from repro.papers.ffjord import fig1_density1d
from repro.papers.ffjord.toy_claims import FIG8, FIG8_CLAIMS
from repro.results import Row, curve


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of the sweep."""

    method: str = "dopri5"
    """Solver."""
    tolerances: tuple[float, ...] = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
    """atol = rtol."""
    half_width: float = 15.0
    """The integral runs over [-half_width, half_width]."""
    points: int = 500_000
    """Of the Riemann sum."""


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Integrate the trained density at every tolerance."""
    if context.find_weights is None:
        raise ValueError("find_weights must be set: this figure needs the weights of Figure 1's run")
    weights = context.find_weights(fig1_density1d.EXPERIMENT, fig1_density1d.NAME, "mixture_1d", config.seed)
    flow = fig1_density1d.build(fig1_density1d.EXPERIMENT.cells["mixture_1d"])
    flow.load_state_dict(dict(weights))
    flow = flow.double().to(context.device)
    x = torch.linspace(-config.half_width, config.half_width, config.points, dtype=torch.float64).unsqueeze(1)
    cell = 2 * config.half_width / (config.points - 1)
    for index, tolerance in enumerate(config.tolerances):
        context.check()
        flow.solver = Solver(config.method, rtol=tolerance, atol=tolerance)
        total = float(evaluate_log_prob(flow, x.to(context.device)).exp().sum()) * cell
        yield Row("tolerance", tolerance, "atol = rtol", index)
        yield Row("integral_error", abs(1 - total), "|1 - integral|", index)
        yield Row("nfe_forward", flow.stats.nfe_forward, "evaluations of the last chunk", index)
        context.progress(index + 1, len(config.tolerances), {"integral_error": abs(1 - total)})


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
