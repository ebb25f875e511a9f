"""What a cell costs before it is run: from the records of runs, or from its first steps on this machine."""

import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from repro.cache import cache_root
from repro.data import DataError
from repro.durability import write_atomically
from repro.errors import Failure
from repro.experiment import BudgetReached, Context, Experiment, Interrupted, Tier
from repro.metrics import PeakMemory
from repro.ode import SolveError
from repro.papers import EXPERIMENTS
from repro.provenance import machine_slug
from repro.results import hours_of, read_runs, results_root, rows_of
from repro.runner import MissingWeights, Request, find_weights

WARM_STEPS = 2
"""First steps that are not timed where there is time for more: they compile and allocate."""
FEW = 8
"""Steps that are timed where they are quick; slow ones are timed until `SLOW` times the seconds asked for are over."""
SLOW = 4
PATIENCE = 300.0
"""Seconds after which a probe is given up, beyond `SLOW` times those asked for: data, compiler, very slow steps."""


@dataclass(frozen=True)
class Estimate:
    """What one seed of a cell costs in a tier.

    Attributes:
        hours: Of one run, final evaluation included where it was recorded; nan if unknown.
        memory: Peak in bytes over what Python and torch take themselves; nan if unknown.
        origin: Where this comes from, in words.
        here: Whether that is this kind of machine.
    """

    hours: float
    memory: float
    origin: str
    here: bool = True


@dataclass(frozen=True)
class Probe:
    """The first steps of a cell on this machine.

    Attributes:
        steps: That were timed.
        total: Steps of the whole run.
        seconds: The median step's, or the whole run's where it ended within the probe (`total` is then 0).
        memory: Peak in bytes so far.
    """

    steps: int
    total: int
    seconds: float
    memory: int

    def estimate(self) -> Estimate:
        """The whole run's cost, if every step costs what the first ones do."""
        if not self.total:
            return Estimate(self.seconds / 3600, float(self.memory), "run here to its end")
        return Estimate(
            self.seconds * self.total / 3600, float(self.memory), f"{self.steps} of {self.total:,} steps, timed here"
        )


class ProbeFailed(Failure):
    """The first steps of a cell could not be timed; the message says why."""


# --- records ---------------------------------------------------------------------------------------------------------

Records = Mapping[tuple[str, str], list[tuple[str, float, float]]]
"""By experiment and digest: machine, hours and bytes of every run that ended well."""


def records() -> Records:
    """Read what every run cost that is in results/runs/ and results/local/."""
    found: dict[tuple[str, str], list[tuple[str, float, float]]] = {}
    for source in ("runs", "local"):
        for folder, info in read_runs(results_root() / source):
            rows = rows_of(folder) if info["status"] == "ok" else None
            if rows is not None:
                known = {row.metric: float(row.value) for row in rows if row.step is None}
                cost = (info["machine"], hours_of(info, known.get("wall_time")), known.get("peak_memory", float("nan")))
                found.setdefault((info["experiment"], info["digest"]), []).append(cost)
    return found


def recorded(known: Records, name: str, digest: str, device: torch.device) -> Estimate | None:
    """What a cell's runs cost on this kind of machine; else on the first other one; None where there is no run."""
    costs = known.get((name, digest), [])
    machine = machine_slug(device)
    if not costs:
        return None
    chosen = machine if any(cost[0] == machine for cost in costs) else min(cost[0] for cost in costs)
    own = [cost for cost in costs if cost[0] == chosen]
    runs = "1 run" if len(own) == 1 else f"{len(own)} runs"
    where = "this kind of machine" if chosen == machine else chosen
    hours, memory = _finite(cost[1] for cost in own), _finite(cost[2] for cost in own)
    mean = fmean(hours) if hours else math.nan
    return Estimate(mean, max(memory, default=math.nan), f"{runs} on {where}", chosen == machine)


def estimate_cost(costs: Records, name: str, cell: str, digest: str, device: torch.device) -> Estimate | None:
    """Estimate a cell's cost from records of this kind of machine, else from first steps here, else from any record.

    Args:
        costs: as `records` gives them.
        name: of the experiment.
        cell: its cell.
        digest: of the cell's settings in its tier.
        device: where it would run.
    """
    estimate = recorded(costs, name, digest, device)
    if estimate is None or not estimate.here:
        steps = kept(name, cell, digest, device)
        estimate = steps.estimate() if steps else estimate
    return estimate


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


# --- probes ----------------------------------------------------------------------------------------------------------


def probe(name: str, cell: str, tier: Tier, device: str, seconds: float) -> Probe:
    """Time the first steps of a cell in a process of its own, which is stopped when they take too long.

    Args:
        name: of the experiment in `EXPERIMENTS`.
        cell: its cell.
        tier: as which it would run.
        device: "cpu" or "cuda".
        seconds: to spend on steps, about.

    Raises:
        ProbeFailed: with the reason.
    """
    spawning = multiprocessing.get_context("spawn")  # a forked process would inherit a CUDA context, and memory
    ours, theirs = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_child, args=(theirs, name, cell, tier, device, seconds), daemon=True)
    process.start()
    theirs.close()
    patience = PATIENCE + SLOW * seconds
    try:
        answer = ours.recv() if ours.poll(patience) else f"no two steps were reported within {patience:.0f} s"
    except EOFError:
        process.join()
        answer = f"its process ended with code {process.exitcode}; out of memory?"
    finally:
        process.kill()
        process.join()
    if isinstance(answer, Probe):
        return answer
    raise ProbeFailed(answer)


def _child(pipe: Connection, name: str, cell: str, tier: Tier, device: str, seconds: float) -> None:
    try:
        pipe.send(first_steps(name, EXPERIMENTS[name], cell, tier, torch.device(device), seconds))
    except (MissingWeights, SolveError, DataError, OSError) as error:
        pipe.send(str(error))


def first_steps(
    name: str, experiment: Experiment[Any], cell: str, tier: Tier, device: torch.device, seconds: float
) -> Probe:
    """Time the first steps of a cell in this process; a cell that reports none is run to its end.

    Raises:
        MissingWeights: if the cell needs those of another one that was not run.
        SolveError: if it diverges at once.
    """
    if tier == "smoke":  # as `run` has it
        torch.set_num_threads(1)
    times: list[float] = []
    totals: list[int] = []

    def watch(done: int, total: int, values: Mapping[str, float]) -> None:
        times.append(time.perf_counter())
        totals.append(total)
        wanted = seconds if len(times) >= WARM_STEPS + FEW else SLOW * seconds
        context.stop = len(times) > 1 and times[-1] - times[0] > wanted

    with tempfile.TemporaryDirectory() as folder:
        context = Context(device, Path(folder), None, watch, checkpoint_seconds=float("inf"))
        config = experiment.config(cell, tier)
        request = Request(name=name, experiment=experiment, cell=cell, tier=tier, config=config, device=device)
        context.find_weights = partial(find_weights, context, request)
        memory, start = PeakMemory(device), time.perf_counter()
        try:
            for _ in experiment.measure(config, context):
                pass
        except (Interrupted, BudgetReached):
            steps = [b - a for a, b in pairwise(times[WARM_STEPS - 1 :] if len(times) > WARM_STEPS else times)]
            return Probe(len(steps), totals[-1], median(steps), memory.read())
        return Probe(len(times), 0, time.perf_counter() - start, memory.read())


# --- what probes found is kept ---------------------------------------------------------------------------------------


def _kept(name: str, cell: str, digest: str, device: torch.device) -> Path:
    return cache_root() / "plan" / name / f"{cell}-{digest}" / f"{machine_slug(device)}.json"


def keep(found: Probe, name: str, cell: str, digest: str, device: torch.device) -> None:
    """Keep a probe in the cache, for the next plan."""
    path = _kept(name, cell, digest, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(found)).encode())


def kept(name: str, cell: str, digest: str, device: torch.device) -> Probe | None:
    """Read a probe that was made before on this kind of machine; None where there is none, or a damaged one."""
    try:
        return Probe(**json.loads(_kept(name, cell, digest, device).read_text(encoding="utf-8")))
    except (FileNotFoundError, TypeError, ValueError):
        return None
