"""Published models: from an experiment's name and a cell to the trained module."""

from torch import nn

from repro.checkpoint import load_tensors
from repro.checks import check_name
from repro.experiment import TIERS, Tier
from repro.papers import EXPERIMENTS
from repro.results import weights_of


class NotPublished(LookupError):
    """There is no published run with weights of this cell; the message says how to make one."""


def load_model(experiment: str, cell: str, *, tier: Tier | None = None, seed: int = 0) -> nn.Module:
    """Load a trained model as it is judged; a flow is ready for `log_prob` and `sample`.

    Args:
        experiment: name, as "ffjord/table2_tabular".
        cell: its cell.
        tier: of the run; None is the highest that has one.
        seed: of the run.

    Raises:
        ValueError: An argument is not known; the message names it and what is.
        NotPublished: No published run has weights, or the experiment publishes none that can be loaded.
    """
    check_name("experiment", experiment, EXPERIMENTS)
    found = EXPERIMENTS[experiment]
    check_name("cell", cell, found.cells)
    if found.restore is None:
        raise NotPublished(f"{experiment} says nothing of how to restore a model from its weights")
    for level in reversed(TIERS) if tier is None else (tier,):
        config = found.config(cell, level)
        for path, _ in weights_of("runs", experiment, cell, found.digest(config), seed):
            return found.restore(config, load_tensors(path)[0])
    raise NotPublished(
        f"no published run of {experiment} {cell}, seed {seed}, has weights; "
        f"`python -m repro run {experiment} {cell} --tier small --seed {seed} --publish` makes one"
    )
