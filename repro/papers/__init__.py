"""Every reproduced artefact of both papers: one file each, one line each in EXPERIMENTS."""

from typing import Any

from repro.experiment import Experiment
from repro.papers.neural_ode import fig3_solver_stats, table1_cost, table1_mnist

EXPERIMENTS: dict[str, Experiment[Any]] = {
    "neural_ode/table1_mnist": table1_mnist.EXPERIMENT,
    "neural_ode/table1_cost": table1_cost.EXPERIMENT,
    "neural_ode/fig3_solver_stats": fig3_solver_stats.EXPERIMENT,
}
