"""Every reproduced artefact of both papers: one file each, one line each in EXPERIMENTS."""

from typing import Any

from repro.experiment import Experiment
from repro.papers.ffjord import fig1_density1d, fig2_toy2d, fig8_tolerance, section3_noise, table2_tabular
from repro.papers.neural_ode import (
    fig3_solver_stats,
    fig4_nf_vs_cnf,
    fig5_noise_to_data,
    section4_change_of_variables,
    table1_cost,
    table1_mnist,
)

PAPERS = {"neural_ode": "Neural Ordinary Differential Equations", "ffjord": "FFJORD"}
"""Their titles, by the first part of an experiment's name."""

EXPERIMENTS: dict[str, Experiment[Any]] = {
    "neural_ode/table1_mnist": table1_mnist.EXPERIMENT,
    "neural_ode/table1_cost": table1_cost.EXPERIMENT,
    "neural_ode/fig3_solver_stats": fig3_solver_stats.EXPERIMENT,
    "neural_ode/section4_change_of_variables": section4_change_of_variables.EXPERIMENT,
    "neural_ode/fig4_nf_vs_cnf": fig4_nf_vs_cnf.EXPERIMENT,
    "neural_ode/fig5_noise_to_data": fig5_noise_to_data.EXPERIMENT,
    "ffjord/fig1_density1d": fig1_density1d.EXPERIMENT,
    "ffjord/fig2_toy2d": fig2_toy2d.EXPERIMENT,
    "ffjord/fig8_tolerance": fig8_tolerance.EXPERIMENT,
    "ffjord/section3_noise": section3_noise.EXPERIMENT,
    "ffjord/table2_tabular": table2_tabular.EXPERIMENT,
}
