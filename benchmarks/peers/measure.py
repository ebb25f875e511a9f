"""Measure a workload by all its ways, and say what came of each."""

import math
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.peers import ours
from benchmarks.peers.protocol import Outcome, Step, Way
from benchmarks.peers.runner import Run, interleave, relative_error, start
from benchmarks.peers.shares import shares
from benchmarks.peers.ways import BASELINE, ways_of
from benchmarks.peers.workloads import PLANS, Plan, Workload, twice_the_batch
from benchmarks.settings import DEVICE
from repro.measuring.fits import cost_at
from repro.measuring.overhead import Sized, doubling

SWEEP_ROUNDS = 5
LONGEST_SWEPT = 5.0
"""Seconds of a step, beyond which a way is timed at the workload's own tolerance alone."""


def measure(name: str, only: str | None = None) -> list[dict[str, Any]]:
    """Time a workload.

    Args:
        name: One of `PLANS`.
        only: A way's key: it alone is built and tried, without timing.

    Returns:
        An entry for each way: status, seconds of the timed steps, and what else is known of it.
    """
    plan = PLANS[name]
    if DEVICE.type == "cpu":
        torch.set_num_threads(plan.threads)
    workload = plan.make()
    reference = workload.reference()
    ways = [way for way in ways_of(name) if only in (None, way.key)]
    runs = {way.key: _started(name, way, workload, reference, alone=only is not None) for way in ways}
    if only is None:
        interleave(runs, plan.rounds)
    for way in ways:
        _count(way, workload, runs[way.key])
    able = [way for way in ways if runs[way.key].seconds]
    swept = [way for way in able if runs[way.key].median <= LONGEST_SWEPT]
    points = _points(_sweep(plan, workload, reference, swept, runs), reference, runs)
    entries = [_entry(name, way, runs, reference, points) for way in ways]
    for way, entry in zip(ways, entries, strict=True):
        entry["known"]["reference_tolerance"] = workload.exact_tolerance
        entry["known"] |= _overhead(workload, way, runs[way.key]) if way.key == BASELINE else {}
        if way.peer == ours.PEER and runs[way.key].seconds and runs[way.key].step is not None:
            entry["known"]["shares"] = shares(runs[way.key].step)
    return entries


def _started(name: str, way: Way, workload: Workload, reference: Outcome, *, alone: bool) -> Run:
    if way.trial is not None and not alone and way.missing() is None:
        command = [sys.executable, "-m", "benchmarks.peers.worker", name, "--only", way.key]
        try:
            subprocess.run([*command, "--threads", str(PLANS[name].threads)], timeout=way.trial, check=False)
        except subprocess.TimeoutExpired:
            return Run(f"not possible: the first step had not ended after {way.trial:g} s", first_call=way.trial)
    return start(way, workload, workload.rtol, workload.atol, reference)


def _sweep(
    plan: Plan, workload: Workload, reference: Outcome, ways: Sequence[Way], runs: Mapping[str, Run]
) -> dict[tuple[str, float], Run]:
    """Runs of the ways at the plan's other tolerances, whatever their losses, in turn with the workload's own."""
    if not plan.sweep:
        return {}
    sweep = {(way.key, workload.rtol): replace(runs[way.key], seconds=[]) for way in ways} | {
        (way.key, tolerance): start(way, workload, tolerance, tolerance, reference, math.inf)
        for tolerance in plan.sweep
        for way in ways
    }
    interleave(sweep, SWEEP_ROUNDS)
    return sweep


def _count(way: Way, workload: Workload, run: Run) -> None:
    """Add the evaluations of a way that counts them apart."""
    if way.count is not None and run.outcome is not None:
        forward, backward = way.count(workload, workload.rtol, workload.atol)
        run.outcome = replace(run.outcome, nfe_forward=forward, nfe_backward=backward)


Point = dict[str, float]


def _points(sweep: Mapping[tuple[str, float], Run], reference: Outcome, keys: Iterable[str]) -> dict[str, list[Point]]:
    """Tolerance, gradient error and median seconds of each way, the loosest tolerance first."""
    points: dict[str, list[Point]] = {key: [] for key in keys}
    for (key, tolerance), run in sorted(sweep.items(), key=lambda item: -item[0][1]):
        if run.seconds and run.outcome is not None:
            error = relative_error(run.outcome, reference)
            points[key].append({"tolerance": tolerance, "gradient_error": error, "seconds": run.median})
    return points


def _entry(
    name: str, way: Way, runs: Mapping[str, Run], reference: Outcome, points: Mapping[str, list[Point]]
) -> dict[str, Any]:
    run, baseline, plan = runs[way.key], runs.get(BASELINE), PLANS[name]
    known: dict[str, Any] = {
        "workload": plan.title,
        "peer": way.peer,
        "way": way.name,
        "version": way.version(),
        "status": run.status,
        "threads": torch.get_num_threads(),
        "first_call": run.first_call,
    }
    if run.outcome is not None and run.seconds:
        known |= {
            "nfe_forward": _or_na(run.outcome.nfe_forward),
            "nfe_backward": _or_na(run.outcome.nfe_backward),
            "loss_error": abs(float(run.outcome.loss) - float(reference.loss)),
            "gradient_error": relative_error(run.outcome, reference),
        }
        if baseline is not None and baseline.outcome is not None:
            known["speedup"] = baseline.median / run.median
            known |= _at_equal_error(points[way.key], relative_error(baseline.outcome, reference))
    return {"known": known, "seconds": run.seconds}


def _at_equal_error(points: Sequence[Point], error: float) -> dict[str, Any]:
    if not points:
        return {"equal_error": "not swept"}
    seconds, how = cost_at([(point["gradient_error"], point["seconds"]) for point in points], error)
    return {"equal_error": how, "seconds_at_equal_error": seconds, "sweep": list(points)}


def _overhead(workload: Workload, way: Way, run: Run) -> dict[str, Any]:
    """Whether the baseline is bound by overhead; each other way would have to be compiled once more to be asked."""
    step = run.step
    if step is None or not run.seconds:
        return {}

    def sized(step: Step) -> Sized:
        left: list[Outcome] = []
        return Sized(lambda: left.append(step()), lambda: left[-1] if left else None)

    def twice() -> Sized:
        return sized(way.build(twice_the_batch(workload), workload.rtol, workload.atol))

    return doubling(sized(step), twice, DEVICE)


def _or_na(count: int | None) -> int | str:
    return "n/a" if count is None else count
