"""The state of a cell's run, read from records, checkpoints and locks: done, failed, paused, running or to do."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from repro.checkpoint import CheckpointError, load_tensors
from repro.experiment import Tier
from repro.guards import lock_is_held
from repro.papers import EXPERIMENTS
from repro.results import hours_of, read_record, results_root, rows_of
from repro.runner import Request
from repro.training import CHECKPOINT

State = Literal["done", "running", "paused", "failed", "todo"]
PLACES = ("runs", "local")
"""Where finished runs are, below results/: the published ones and this machine's."""


def make_request(name: str, cell: str, tier: Tier, seed: int, device: torch.device) -> Request:
    """Make the request that `run` makes for a cell without settings of the user's."""
    experiment = EXPERIMENTS[name]
    config = replace(experiment.config(cell, tier), seed=seed)
    return Request(name=name, experiment=experiment, cell=cell, tier=tier, config=config, device=device)


def find_state(request: Request, places: Collection[str] = PLACES) -> State:
    """Look up the state of a run; a run on any kind of machine counts.

    Args:
        request: the cell with its settings and seed.
        places: `runs`, `local` or both.
    """
    statuses = {str(record["status"]) for _, record in _records(request, places)}
    if "ok" in statuses:
        return "done"
    if lock_is_held(request.work):
        return "running"
    if any(_checkpoints(request)):
        return "paused"
    return "failed" if statuses else "todo"


def count_states(states: Sequence[State]) -> str:
    """Put the states of several runs in words, as "3 of 5 done, 1 paused"."""
    counts = Counter(states)
    others = [f"{counts[state]} {state}" for state in ("running", "paused", "failed") if counts[state]]
    return ", ".join([f"{counts['done']} of {len(states)} done", *others])


def sum_hours(request: Request, places: Collection[str] = PLACES) -> float:
    """Sum the hours that a run has taken: of its records, or of training up to its checkpoint."""
    finished = [_hours(folder, record) for folder, record in _records(request, places)]
    return sum(finished) if finished else max(map(_trained_hours, _checkpoints(request)), default=0.0)


def _records(request: Request, places: Collection[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Read the records of a run on any kind of machine; one that cannot be read is no run."""
    pattern = request.path.with_name(f"*-seed{request.config.seed}") / "run.json"
    for place in places:
        for path in sorted((results_root() / place).glob(str(pattern))):
            if not path.parent.name.startswith(".") and (record := read_record(path.parent)) is not None:
                yield path.parent, record


def _hours(folder: Path, record: dict[str, Any]) -> float:
    final = {row.metric: float(row.value) for row in rows_of(folder) or () if row.step is None}
    try:
        hours = hours_of(record, final.get("wall_time"))
    except (ValueError, KeyError):  # a record without a start, or with one that is no time
        return 0.0
    return max(hours, 0.0)  # nan, and clocks that were set back, count as nothing


def _checkpoints(request: Request) -> Iterator[Path]:
    yield from (path for path in (request.work / CHECKPOINT, request.parked) if path.exists())


def _trained_hours(path: Path) -> float:
    try:
        return load_tensors(path)[1]["seconds"] / 3600
    except (CheckpointError, KeyError, OSError):
        return 0.0
