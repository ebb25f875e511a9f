"""Runs one cell from its settings to a folder of results; knows files, locks and signals, and no mathematics.

A run works in a cache folder outside the repository. Killed at any moment, the same command resumes it. When it ends,
its folder is moved into results/ in one rename, so that a reader sees a whole run or none.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repro.cache import cache_root
from repro.checkpoint import load_tensors, write_atomically
from repro.experiment import BudgetReached, Config, Context, Experiment, Interrupted, Tier, settings_of
from repro.guards import locked, stop_signals
from repro.metrics import PeakMemory
from repro.ode import SolveError
from repro.ode.kernels import compile_seconds, used
from repro.provenance import command_line, machine_slug, provenance
from repro.results import SCHEMA, Row, results_root, weights_of, write_json, write_rows
from repro.training import CHECKPOINT

JOURNAL = "journal.json"
RESUMED_KEYS = ("start", "commit", "dirty", "machine", "threads", "versions", "load_average")
"""What run.json says of each sitting after the first: on another machine or thread count the bits may differ."""

MAX_COMMITTED_CHECKPOINT = 4 * 2**20
"""Bytes; a larger checkpoint of an unfinished run is not copied into results/checkpoints/."""


class MissingWeights(Exception):
    """A run needs the weights of another one that has not been made; the message gives the command."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One cell to run, with all that decides where its results go."""

    name: str
    experiment: Experiment[Any]
    cell: str
    tier: Tier
    config: Config
    device: torch.device
    publish: bool = False
    force: bool = False
    max_minutes: float | None = None
    checkpoint_seconds: float = 60.0

    @property
    def digest(self) -> str:
        """Digest of the settings; see `Experiment.digest`."""
        return self.experiment.digest(self.config)

    @property
    def path(self) -> Path:
        """The run's folder relative to any root."""
        return Path(self.name, f"{self.cell}-{self.digest}", f"{machine_slug(self.device)}-seed{self.config.seed}")

    @property
    def destination(self) -> Path:
        """The folder that the finished run will have."""
        return results_root() / ("runs" if self.publish else "local") / self.path

    @property
    def work(self) -> Path:
        """The cache folder that the run works in."""
        return cache_root() / "work" / self.path

    @property
    def parked(self) -> Path:
        """Where the checkpoint of an unfinished published run is kept for another machine."""
        return results_root() / "checkpoints" / self.path.with_name(f"seed{self.config.seed}") / CHECKPOINT


@dataclass(frozen=True)
class Outcome:
    """How a request ended: `done`, `skipped`, `paused` or `interrupted` (both resumable), or a recorded failure."""

    status: str
    detail: str
    folder: Path | None = None


def run(request: Request, progress: Callable[..., None]) -> Outcome:
    """Run one cell, or say why it need not or can't be run.

    Raises:
        Busy: if another process works on it.
        OSError: if results can't be written; what was computed stays in the cache.
    """
    if request.destination.exists() and not request.force:
        return _skip(request)
    request.work.parent.mkdir(parents=True, exist_ok=True)
    with locked(request.work), stop_signals() as flags:
        if request.destination.exists() and not request.force:  # another process finished it a moment ago
            return _skip(request)
        request.work.mkdir(exist_ok=True)
        _unpark(request)
        context = _context(request, progress)
        flags.context = context
        return _run_locked(request, context)


def _skip(request: Request) -> Outcome:
    status = json.loads((request.destination / "run.json").read_text())["status"]
    detail = f"finished before with status {status}; --force runs it again"
    return Outcome("skipped" if status == "ok" else status, detail, request.destination)


def _context(request: Request, progress: Callable[..., None]) -> Context:
    deadline = None if request.max_minutes is None else time.monotonic() + 60 * request.max_minutes
    context = Context(request.device, request.work, deadline, progress, request.checkpoint_seconds)
    context.find_weights = partial(find_weights, context, request)
    return context


def _run_locked(request: Request, context: Context) -> Outcome:
    journal = _journal(request)
    memory = PeakMemory(request.device)
    status, reason, rows = "ok", "finished", list[Row]()
    try:
        for row in request.experiment.measure(request.config, context):
            rows.append(row)
    except BudgetReached:
        return _pause(request, f"--max-minutes {request.max_minutes:g} reached")
    except Interrupted:
        return replace(_pause(request, "asked to stop"), status="interrupted")
    except SolveError as error:
        status, reason = error.status, str(error)
        _write_diagnosis(context, error)
    rows.append(Row("peak_memory", memory.read(), memory.unit))
    _finish(request, context, rows, {"status": status, "stop_reason": reason, "journal": journal})
    return Outcome("done" if status == "ok" else status, reason, request.destination)


def _journal(request: Request) -> list[dict[str, Any]]:
    """Note this sitting beside the checkpoint: a run that was resumed says by which code each part was made."""
    path = request.work / JOURNAL
    sittings = json.loads(path.read_text()) if path.exists() else []
    sittings.append({"start": _now(), **provenance(request.device), "command": command_line()})
    write_atomically(path, json.dumps(sittings).encode())
    return sittings


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _pause(request: Request, reason: str) -> Outcome:
    checkpoint = request.work / CHECKPOINT
    if request.publish and checkpoint.exists() and checkpoint.stat().st_size <= MAX_COMMITTED_CHECKPOINT:
        _copy(request.work, request.parked.parent)
    return Outcome("paused", f"{reason}; the same command goes on from here")


def _unpark(request: Request) -> None:
    if request.publish and request.parked.exists() and not (request.work / CHECKPOINT).exists():
        _copy(request.parked.parent, request.work)


def _copy(source: Path, target: Path) -> None:
    """Copy a run's state: the journal first, so that no checkpoint is ever without the history of its sittings."""
    target.mkdir(parents=True, exist_ok=True)
    for name in (JOURNAL, CHECKPOINT):
        write_atomically(target / name, (source / name).read_bytes())


def _write_diagnosis(context: Context, error: SolveError) -> None:
    history = [record._asdict() for record in error.history]
    write_json(context.artefacts / "diagnosis.json", {"error": str(error), "last_steps": history[-200:]})


def _finish(request: Request, context: Context, rows: list[Row], ending: dict[str, Any]) -> None:
    """Assemble the run's folder beside its destination and move it there in one rename."""
    destination = request.destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        shutil.copytree(context.artefacts, staging)
        write_rows(staging / "rows.csv", rows)
        write_json(staging / "run.json", _run_json(request, context, ending))
        _replace_folder(staging, destination)
    except OSError as error:
        raise OSError(
            f"can't write {destination} ({error}); all is kept, the same command goes on from here"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    shutil.rmtree(request.work)
    shutil.rmtree(request.parked.parent, ignore_errors=True)


def _run_json(request: Request, context: Context, ending: dict[str, Any]) -> dict[str, Any]:
    journal = ending.pop("journal")
    first = journal[0]
    return {
        "schema": SCHEMA,
        "experiment": request.name,
        "artefact": request.experiment.artefact,
        "cell": request.cell,
        "tier": request.tier,
        "seed": request.config.seed,
        "digest": request.digest,
        "version": request.experiment.version,
        "config": settings_of(request.config),
        **ending,
        "start": first["start"],
        "end": _now(),
        "command": first["command"],
        "inputs": context.inputs,
        "kernels": used(),
        "compile_seconds": compile_seconds(),
        **{key: value for key, value in first.items() if key not in ("start", "command")},
        "dirty": any(sitting["dirty"] for sitting in journal) if first["dirty"] is not None else None,
        "resumed": [{key: sitting[key] for key in RESUMED_KEYS if key in sitting} for sitting in journal[1:]],
    }


def _replace_folder(staging: Path, destination: Path) -> None:
    old = destination.with_name(f".{destination.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if destination.exists():
        destination.rename(old)
    staging.rename(destination)
    shutil.rmtree(old, ignore_errors=True)


def find_weights(
    context: Context, request: Request, experiment: Experiment[Any], name: str, cell: str, seed: int
) -> dict[str, Tensor]:
    """The weights of a finished run of a cell as it is in the request's tier.

    The user's own come before the published ones; a run that will be published reads published ones only.
    """
    tier = request.tier
    digest = experiment.digest(experiment.config(cell, tier))
    for source in ("runs",) if request.publish else ("local", "runs"):
        for path, info in weights_of(source, name, cell, digest, seed):
            if info["tier"] == tier:
                read = path.relative_to(results_root()).as_posix()
                context.inputs[read] = hashlib.sha256(path.read_bytes()).hexdigest()
                return load_tensors(path, context.device)[0]
    raise MissingWeights(f"no finished run of {name} {cell} (tier {tier}, seed {seed}): "
                         f"first `python -m repro run {name} {cell} --tier {tier} --seed {seed}`")  # fmt: skip
