"""What the tests of papers share: a cell in miniature, its final numbers, and rows as the report reads them."""

from dataclasses import replace

import pandas as pd
import torch

from repro.experiment import Context


def run(module, cell, folder, **settings):
    """Measure a cell of the smoke tier with some settings cut further; gives config, context and rows."""
    folder.mkdir(exist_ok=True)
    config = replace(module.EXPERIMENT.config(cell, "smoke"), **settings)
    context = Context(torch.device("cpu"), folder)
    return config, context, list(module.measure(config, context))


def final(rows):
    """Final values by metric."""
    return {row.metric: row.value for row in rows if row.step is None}


def frame(*lines, seed=0, status="ok"):
    """Rows as `repro.results.load` gives them, from (experiment, cell, metric, value, step)."""
    columns = ["experiment", "cell", "metric", "value", "step"]
    rows = pd.DataFrame(lines, columns=columns).astype({"step": float, "value": float})
    run = rows["cell"] + f"/seed{seed}"
    return rows.assign(status=status, seed=seed, machine="m", source="runs", run=run, tier="small")


def finals(experiment, metric, values, **keys):
    """Rows of one final metric of many cells, from values by cell."""
    return frame(*((experiment, cell, metric, value, None) for cell, value in values.items()), **keys)
