"""Load what was trained: a published model by experiment and cell, or all that a run's folder records."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repro.checkpoint import load_tensors
from repro.checks import check_name
from repro.errors import Failure
from repro.experiment import TIERS, Config, Context, Experiment, Tier
from repro.interruption import interruptible
from repro.papers import EXPERIMENTS
from repro.results import Row, read_rows, weights_of

WEIGHTS = "model.safetensors"
"""File of a run's weights in its folder."""


class NotPublished(Failure, LookupError):
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


class UnreadableRun(Failure, LookupError):
    """A run's folder without a readable record, or without weights to evaluate; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class RecordedRun:
    """A finished run as its folder records it, with the settings rebuilt.

    Attributes:
        folder: of the run.
        record: content of run.json.
        experiment: that was run.
        config: settings of the run.
        final: final rows by metric.
    """

    folder: Path
    record: Mapping[str, Any]
    experiment: Experiment[Any]
    config: Config
    final: Mapping[str, Row]

    def evaluate(self, device: torch.device, workspace: Path) -> Iterator[Row]:
        """Recompute the final numbers from the weights, lazily.

        Args:
            device: of the computation.
            workspace: an empty folder; the per-point file is written into its `artefacts`.

        Raises:
            UnreadableRun: if there are no weights, or the experiment recomputes nothing.
            CheckpointError: if the weights are damaged, or those of other settings.
            SolveError: if a solve fails, or has no end.
        """
        if self.experiment.evaluate is None or not (self.folder / WEIGHTS).exists():
            raise UnreadableRun(f"{self.folder} holds no weights to evaluate")
        tensors, _ = load_tensors(self.folder / WEIGHTS, device)
        context = Context(device=device, folder=workspace)
        rows = self.experiment.evaluate(self.config, tensors, context)
        while True:
            with interruptible(context.check_solve):
                row = next(rows, None)
            if row is None:
                return
            yield row


def read_run(folder: Path) -> RecordedRun:
    """Read the record of a run's folder.

    Raises:
        UnreadableRun: if there is no readable record, or this version has no such experiment, cell or setting.
    """
    path = folder / "run.json"
    if not path.exists():
        raise UnreadableRun(f"{folder} is no run's folder: there is no run.json in it")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        name, cell, settings = record["experiment"], record["cell"], record["config"]
        final = {row.metric: row for row in read_rows(folder / "rows.csv") if row.step is None}
    except (KeyError, TypeError, ValueError) as error:
        raise UnreadableRun(f"{path} is damaged ({type(error).__name__}: {error})") from None
    if name not in EXPERIMENTS:
        raise UnreadableRun(f"{folder} is a run of {name}, which this version does not have")
    try:
        config = _rebuild(EXPERIMENTS[name].cells[cell], settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UnreadableRun(f"{folder} was made by another version of {name}: {error}") from None
    return RecordedRun(folder=folder, record=record, experiment=EXPERIMENTS[name], config=config, final=final)


def _rebuild(example: Any, values: Any) -> Any:  # noqa: ANN401 (any experiment's setting)
    """Rebuild a recorded config; nested dataclasses after those of the experiment's cell."""
    if isinstance(example, tuple):  # JSON has none
        return tuple(values)
    if not dataclasses.is_dataclass(example):
        return values
    fields = {name: _rebuild(getattr(example, name), value) for name, value in values.items()}
    return dataclasses.replace(example, **fields)  # pyright: ignore[reportArgumentType]
