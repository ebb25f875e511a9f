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


def frame(*lines):
    """Rows as `repro.results.load` gives them, from (experiment, cell, metric, value, step)."""
    columns = ["experiment", "cell", "metric", "value", "step"]
    rows = pd.DataFrame(lines, columns=columns).astype({"step": float, "value": float})
    return rows.assign(status="ok", seed=0, machine="m", source="runs", run=rows["cell"], tier="small")
