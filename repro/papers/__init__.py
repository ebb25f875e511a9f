"""Every reproduced artefact of both papers: one file each, one line each in EXPERIMENTS."""

from typing import Any

from repro.experiment import Experiment
from repro.papers.neural_ode import table1_mnist

EXPERIMENTS: dict[str, Experiment[Any]] = {
    "neural_ode/table1_mnist": table1_mnist.EXPERIMENT,
}
