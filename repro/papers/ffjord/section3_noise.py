"""FFJORD, Section 3.1: the trace estimator's noise is drawn once per solve; what happens if it is not.

The trained flow of Figure 2 on 8gaussians is solved with Hutchinson's estimator: cell `fixed` holds the noise during
the solve (Algorithm 1), cell `redrawn` draws it anew at every evaluation, so that the field is no function of time and
state, and the solver mistakes the noise for stiffness (torchdiffeq issue 120).

No deviations: the paper states the rule and prints no numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from repro import experiment
from repro.checkpoint import load_weights
from repro.data import DENSITIES
from repro.experiment import Context, Experiment
from repro.flows import CNF
from repro.flows.divergence import gaussian, hutchinson
from repro.nets.fields import FIELDS
from repro.ode import SolveError
from repro.papers.ffjord import fig2_toy2d
from repro.papers.ffjord.toy_claims import FIG2, NOISE_CLAIMS
from repro.results import Row
from repro.settings import Count
from repro.training import seeded_streams

CELL = "8gaussians"


@dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
    """Settings of the solve."""

    redraw: bool = False
    """Draw the noise at every evaluation."""
    points: Count = 1_000
    """Test points."""
    max_nfe: Count = 5_000
    """Evaluations after which the solve is ended."""


class Redrawn(nn.Module):
    """A field whose divergence is estimated with fresh noise at every evaluation: what the paper warns of."""

    def __init__(self, field: nn.Module, stream: Generator) -> None:
        super().__init__()
        self.inner, self._stream = field, stream

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        return self.inner(t, y)

    def divergence(self, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """dy/dt and an estimate that differs from call to call."""
        return hutchinson(self.inner, t, y, gaussian((1, *y.shape), self._stream).to(y))


def measure(config: Config, context: Context) -> Iterator[Row]:
    """Solve once and count."""
    if context.find_weights is None:
        raise ValueError("find_weights must be set: this section needs the weights of Figure 2's run")
    weights = context.find_weights(fig2_toy2d.EXPERIMENT, FIG2, CELL, config.seed)
    source = fig2_toy2d.CELLS[CELL]
    field = FIELDS[source.layer](2, source.width, source.depth)
    load_weights(field, {name.removeprefix("field."): value for name, value in weights.items()})
    streams = seeded_streams(config.seed, "trace noise", "points")
    used = Redrawn(field, streams["trace noise"]) if config.redraw else field
    solver = replace(source.solver, max_nfe=config.max_nfe)
    flow = CNF(used.to(context.device), 2, source.t1, "closed_form" if config.redraw else "hutchinson", solver)
    x = DENSITIES[source.data].sample(config.points, streams["points"]).to(context.device)
    try:
        with torch.no_grad():
            flow.log_prob(x, generator=None if config.redraw else streams["trace noise"])
        spent, stopped = flow.stats.nfe_forward, 0
    except SolveError as error:
        spent, stopped = error.nfe, 1
    yield Row("nfe_forward", spent, "evaluations")
    yield Row("stopped", stopped, "1 if the solve did not end by itself")


EXPERIMENT = Experiment(
    artefact="FFJORD, Section 3.1",
    cells={"fixed": Config(), "redrawn": Config(redraw=True)},
    tiers={
        "smoke": lambda config: replace(config, points=100, max_nfe=500),
        "small": lambda config: config,
    },
    measure=measure,
    claims=NOISE_CLAIMS,
)
