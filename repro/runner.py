"""Runs one cell from its settings to a folder of results; knows files, locks and signals, and no mathematics.

A run works in a cache folder outside the repository. Killed at any moment, the same command resumes it. When it ends,
its folder is flushed to the disk and moved into results/ in one rename, so that a reader sees a whole run or none; the
cache is deleted last. What a kill leaves of that, the same command deletes.
"""

import hashlib
import json
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repro.cache import cache_root
from repro.checkpoint import CheckpointError, load_tensors
from repro.durability import (
    PARTIAL,
    delete_folder,
    flush_folder,
    flush_tree,
    name_hidden_sibling,
    put_folder,
    write_atomically,
)
from repro.errors import Failure
from repro.experiment import BudgetReached, Config, Context, Experiment, Interrupted, Tier, settings_of
from repro.guards import Busy, locked, stop_signals
from repro.integrity import hash_files
from repro.interruption import interruptible
from repro.metrics import PeakMemory
from repro.ode import BackwardDriftWarning, SolveError
from repro.ode.kernels import compile_seconds, used
from repro.provenance import command_line, machine_slug, provenance
from repro.results import SCHEMA, Row, read_record, results_root, weights_of, write_json, write_rows
from repro.training import CHECKPOINT

JOURNAL = "journal.json"
RESUMED_KEYS = ("start", "commit", "dirty", "machine", "threads", "versions", "load_average")
"""What run.json says of each sitting after the first: on another machine or thread count the bits may differ."""

REPLACES = "replaces"
"""Key of a forced run's first sitting: the SHA-256 of the run.json that it is to replace, empty where there is none."""

MAX_COMMITTED_CHECKPOINT = 16 * 2**20
"""Bytes; a larger checkpoint of an unfinished run is not copied into results/checkpoints/."""


class MissingWeights(Failure):
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
    if (outcome := _skip(request)) is not None:
        _delete_leftovers(request)
        return outcome
    request.work.parent.mkdir(parents=True, exist_ok=True)
    with locked(request.work), stop_signals() as flags:
        if (outcome := _skip(request)) is not None:  # another process finished it a moment ago
            return outcome
        _discard_earlier_state(request)
        request.work.mkdir(exist_ok=True)
        _unpark(request)
        context = _context(request, progress)
        flags.context = context
        return _run_locked(request, context)


def _skip(request: Request) -> Outcome | None:
    record = None if request.force else read_record(request.destination)
    if record is None:
        return None
    status = record["status"]
    detail = f"finished before with status {status}; --force runs it again"
    return Outcome("skipped" if status == "ok" else status, detail, request.destination)


def _delete_leftovers(request: Request) -> None:
    """Delete what a killed clean-up left of a finished run, unless another process works on that run or it fails."""
    if any(_list_leftovers(request)):
        with suppress(Busy, OSError):
            request.work.parent.mkdir(parents=True, exist_ok=True)
            with locked(request.work):
                for folder in _list_leftovers(request):
                    shutil.rmtree(folder, ignore_errors=True) if folder.name.startswith(".") else delete_folder(folder)


def _list_leftovers(request: Request) -> Iterator[Path]:
    """List what only a killed process can have left: hidden folders, state without a journal, and that of this run.

    State of another run of the cell stays: a forced or a local one that is to go on, one parked by another machine.
    """
    states = (request.work, request.parked.parent) if request.publish else (request.work,)
    places = (request.destination, *states)
    hidden = (name_hidden_sibling(place, purpose) for place in places for purpose in ("partial", "old", "deleted"))
    yield from (folder for folder in hidden if folder.exists())
    record = read_record(request.destination) or {}
    for folder in filter(Path.exists, states):
        with suppress(CheckpointError):
            first = next(iter(_read_journal(folder)), None)
            if first is None or all(first.get(key) == record.get(key) for key in ("start", "machine")):
                yield folder


def _discard_earlier_state(request: Request) -> None:
    """Delete what a run must not begin with.

    That is a checkpoint without the journal that says by which code it was made, and, of a forced run, all that is not
    this forced run itself, paused or killed before: its journal names the record that it is to replace.
    """
    shutil.rmtree(name_hidden_sibling(request.work, "deleted"), ignore_errors=True)
    if _is_this_forced_run(request, request.work) if request.force else (request.work / JOURNAL).exists():
        return
    delete_folder(request.work)
    if request.work.exists():
        raise OSError(f"can't delete {request.work}, which holds the state of an earlier run")


def _is_this_forced_run(request: Request, state: Path) -> bool:
    with suppress(CheckpointError):
        first = next(iter(_read_journal(state)), {})
        return first.get(REPLACES) == _hash_record(request)
    return False


def _hash_record(request: Request) -> str:
    if read_record(request.destination) is None:
        return ""
    return hashlib.sha256((request.destination / "run.json").read_bytes()).hexdigest()


def _context(request: Request, progress: Callable[..., None]) -> Context:
    deadline = None if request.max_minutes is None else time.monotonic() + 60 * request.max_minutes
    context = Context(request.device, request.work, deadline, progress, request.checkpoint_seconds)
    context.find_weights = partial(find_weights, context, request)
    return context


@contextmanager
def warn_of_one_drift() -> Iterator[None]:
    """Show the first warning of a backward solve's drift in a block and no later one; a training may have many."""
    shown = False
    with warnings.catch_warnings():  # restores showwarning too
        warnings.simplefilter("always", BackwardDriftWarning)
        show = warnings.showwarning

        def show_first(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:  # noqa: ANN401
            nonlocal shown
            is_drift = issubclass(category, BackwardDriftWarning)
            if not (is_drift and shown):
                show(message, category, *place, **more)
            shown = shown or is_drift

        warnings.showwarning = show_first
        yield


def _run_locked(request: Request, context: Context) -> Outcome:
    journal = _journal(request)
    memory = PeakMemory(request.device)
    status, reason, rows, artefacts = "ok", "finished", list[Row](), set[Path]()
    try:
        with interruptible(context.check_solve), warn_of_one_drift():
            for row in request.experiment.measure(request.config, context):
                rows.append(row)
                artefacts.update(_list_artefacts(context))
    except BudgetReached:
        return _pause(request, f"--max-minutes {request.max_minutes:g} reached")
    except Interrupted:
        return replace(_pause(request, "asked to stop"), status="interrupted")
    except SolveError as error:
        status, reason = error.status, str(error)
        _write_diagnosis(context, error)
    artefacts.update(_list_artefacts(context))
    rows.append(Row("peak_memory", memory.read(), memory.unit))
    ending = {"status": status, "stop_reason": reason, "journal": journal, "artefacts": artefacts}
    _finish(request, context, rows, ending)
    return Outcome("done" if status == "ok" else status, reason, request.destination)


def _list_artefacts(context: Context) -> Iterator[Path]:
    """List what is to be published; an unfinished file is a killed process's, and the next write deletes it."""
    return (path for path in context.artefacts.rglob("*") if path.suffix != PARTIAL)


def _journal(request: Request) -> list[dict[str, Any]]:
    """Note this sitting beside the checkpoint: a run that was resumed says by which code each part was made."""
    sittings = _read_journal(request.work)
    sitting = {"start": _now(), **provenance(request.device), "command": command_line()}
    if request.force and not sittings:
        sitting[REPLACES] = _hash_record(request)
    sittings.append(sitting)
    write_atomically(request.work / JOURNAL, json.dumps(sittings).encode())
    return sittings


def _read_journal(folder: Path) -> list[dict[str, Any]]:
    """Read a run's sittings; empty where there is no journal.

    Raises:
        CheckpointError: if the journal is damaged.
    """
    path = folder / JOURNAL
    try:
        sittings = json.loads(path.read_text(encoding="utf-8"))
        if all({"start", "command", "dirty"} <= sitting.keys() for sitting in sittings):
            return sittings
        problem = "a sitting without start, command or dirty"
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, AttributeError) as error:
        problem = " ".join(str(error).split())
    raise CheckpointError(f"{path} is damaged ({problem}); delete {folder} to start this run from the beginning")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")  # which no two runs of a cell share


def _pause(request: Request, reason: str) -> Outcome:
    checkpoint = request.work / CHECKPOINT
    if request.publish and checkpoint.exists() and checkpoint.stat().st_size <= MAX_COMMITTED_CHECKPOINT:
        _copy(request.work, request.parked.parent)
    return Outcome("paused", f"{reason}; the same command goes on from here")


def _unpark(request: Request) -> None:
    wanted = request.publish and request.parked.exists() and not (request.work / CHECKPOINT).exists()
    if wanted and (not request.force or _is_this_forced_run(request, request.parked.parent)):
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
    """Assemble the run's folder beside its destination, flush it, and move it there in one rename.

    Raises:
        OSError: if it is not there in the end; all that was computed is in the cache then.
    """
    destination = request.destination
    staging = name_hidden_sibling(destination, "partial")
    try:
        _check_work(request, ending["journal"], ending.pop("artefacts"))
        destination.parent.mkdir(parents=True, exist_ok=True)
        for leftover in (staging, name_hidden_sibling(destination, "old")):
            shutil.rmtree(leftover, ignore_errors=True)
        shutil.copytree(context.artefacts, staging, ignore=shutil.ignore_patterns(".*", f"*{PARTIAL}"))
        write_rows(staging / "rows.csv", rows)
        write_json(staging / "run.json", _run_json(request, context, ending) | {"files": hash_files(staging)})
        flush_tree(staging)
        put_folder(staging, destination)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        reason = error.args[0][0][-1] if isinstance(error, shutil.Error) else error  # copytree's is a list of tuples
        raise OSError(
            f"can't write {destination} ({reason}); all is kept, the same command goes on from here"
        ) from error
    _clean_up(request, staging)


def _check_work(request: Request, journal: list[dict[str, Any]], artefacts: set[Path]) -> None:
    """Make sure that nobody else wrote or deleted in the working folder, as where the lock file was deleted.

    Raises:
        OSError: if the journal is not as this sitting left it, or a file to publish is not there any more.
    """
    if _read_journal(request.work) != journal:
        raise OSError(f"another process worked in {request.work}, or deleted it")
    for path in sorted(artefacts):
        if not path.exists():
            raise OSError(f"{path} was deleted while the run went on")


def _clean_up(request: Request, replaced: Path) -> None:
    """Make sure that a published run outlives a power cut, and delete what it does not need any more: its cache last.

    No error is raised, since the run is there; what stays behind, the same command deletes.
    """
    try:
        for folder in (request.destination.parent, *request.destination.parent.parents):
            flush_folder(folder)
            if folder == results_root():
                break
    except OSError as error:
        print(
            f"warning: {request.destination} is written, but not yet safe from a power cut ({error})", file=sys.stderr
        )
        return
    shutil.rmtree(replaced, ignore_errors=True)
    if request.publish:
        delete_folder(request.parked.parent)
    delete_folder(request.work)


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
        **{key: value for key, value in first.items() if key not in ("start", "command", REPLACES)},
        "dirty": any(sitting["dirty"] for sitting in journal) if first["dirty"] is not None else None,
        "resumed": [{key: sitting[key] for key in RESUMED_KEYS if key in sitting} for sitting in journal[1:]],
    }


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
