"""Add the rows and files of schema 2 to runs that were made before it: `python -m repro.migration`.

A run with weights gets the final rows and the per-point file that it lacks, computed from its weights; what its
evaluation computes on the way is compared with the record. Every run gets the hashes of its files. The recorded lines
of rows.csv stay as they are. run.json is written last: a migration that was killed repeats the run it was at.
"""

import argparse
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from repro.checkpoint import CheckpointError
from repro.convergence import drift_row
from repro.data import DataError
from repro.durability import write_atomically
from repro.errors import Failure
from repro.evaluate_command import compare_rows, map_runs
from repro.integrity import RECORD, hash_files
from repro.loading import WEIGHTS, RecordedRun, UnreadableRun, read_run
from repro.ode import SolveError
from repro.per_point import MAX_POINTS, PER_POINT
from repro.provenance import git_state, machine_slug
from repro.results import Row, results_root, run_folders, write_rows

SCHEMA = 2
"""Of the records that a migration writes."""
NEW_METRICS = ("reconstruction_error", "reconstruction_error_p99", "value_drift")
DRIFTS = {"test_error_tight": "test_error", "test_nll_tight": "test_nll", "tolerance_nll_tight": "tolerance_nll"}
"""Metrics at a tenth of the tolerance -> the metric itself; a run that recorded both needs no solve for its drift."""
LAST_METRICS = {
    "neural_ode/table1_mnist": "reconstruction_error_p99",
    "ffjord/fig2_toy2d": "reconstruction_error_p99",
    "ffjord/table2_tabular": "nfe_test",
}
"""Rows of an evaluation after which all that is new is there, where the rest takes minutes."""
WHOLE_TEST_SET_METRICS = frozenset({"test_rows", "test_nll", "test_nll_error", "nfe_test"})
"""Metrics of a table that are not compared, since only its first test rows are evaluated."""
CPU = torch.device("cpu")


class MigrationError(Failure):
    """A run that does not agree with its record, or a checkout that cannot be named; the message is one line."""


@dataclass(frozen=True)
class MigrationOutcome:
    """Outcome for one run.

    Attributes:
        metrics: that were added; None where the run has schema 2 already.
        seconds: of the processor.
        error: in place of the rest.
    """

    metrics: tuple[str, ...] | None
    seconds: float
    error: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Migrate all runs of a source; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m repro.migration", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes, each of one thread (default: 1)")
    parser.add_argument("--source", choices=("runs", "local"), default="runs", help="published runs or local ones")
    parser.add_argument("--allow-dirty", action="store_true", help="also from a checkout with changes (for tests)")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1; got {options.jobs}")
    try:
        state = check_checkout(allow_dirty=options.allow_dirty)
    except MigrationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    root = results_root() / options.source
    seconds, counts = defaultdict[str, float](float), Counter[str]()
    for folder, outcome in map_runs(partial(migrate, state=state), list(run_folders(root)), options.jobs):
        run = folder.relative_to(root).as_posix()
        counts["failed" if outcome.error else "skipped" if outcome.metrics is None else "migrated"] += 1
        if outcome.error or outcome.metrics is not None:
            seconds["/".join(run.split("/")[:2])] += outcome.seconds
            text = outcome.error or ", ".join(outcome.metrics or ()) or "hashes"
            print(f"{run}: {text} ({outcome.seconds:.1f} s)", flush=True)
    for experiment, total in seconds.items():
        print(f"{experiment}: {total:.0f} s")
    summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("migrated", "skipped", "failed"))
    print(f"{summary}; {sum(seconds.values()) / 60:.1f} core-minutes")
    return 1 if counts["failed"] else 0


def check_checkout(*, allow_dirty: bool) -> dict[str, Any]:
    """Give commit and state of the checkout that computes the new rows.

    Raises:
        MigrationError: if there is no commit to name, or the checkout has changes and they are not allowed.
    """
    state = git_state()
    if not allow_dirty and (state["commit"] is None or state["dirty"]):
        reason = "is no git checkout" if state["commit"] is None else "has changes"
        raise MigrationError(f"the code {reason}: a migrated run names the commit that computed its rows")
    return state


def migrate(folder: Path, *, state: Mapping[str, Any]) -> MigrationOutcome:
    """Migrate one run; an error changes nothing and is part of the outcome.

    Args:
        folder: of the run.
        state: commit and `dirty` of the checkout.
    """
    start = time.process_time()
    try:
        if _read_record(folder).get("schema", 1) >= SCHEMA:
            return MigrationOutcome(None, 0.0)
        with TemporaryDirectory(prefix="repro-migration-") as workspace:
            rows = _supplement(folder, Path(workspace)) if (folder / WEIGHTS).exists() else []
            _write(folder, rows, Path(workspace), state)
    except (CheckpointError, DataError, MigrationError, OSError, SolveError, UnreadableRun) as error:
        return MigrationOutcome((), time.process_time() - start, f"error: {error}")
    return MigrationOutcome(tuple(row.metric for row in rows), time.process_time() - start)


def _supplement(folder: Path, workspace: Path) -> list[Row]:
    """Compute the new rows of a run, and its per-point file into the workspace's `artefacts`.

    Raises:
        MigrationError: if a recomputed number does not agree with the record.
    """
    run = read_run(folder)
    if hasattr(run.config, "test_rows"):
        limit = min(getattr(run.config, "test_rows", None) or MAX_POINTS, MAX_POINTS)
        run = replace(run, config=replace(run.config, test_rows=limit))  # pyright: ignore[reportCallIssue]
    recorded = {name: row for name, row in run.final.items() if name not in NEW_METRICS}
    recomputed = {row.metric: row for row in _evaluate(run, workspace)}
    excluded = WHOLE_TEST_SET_METRICS if "test_rows" in recorded else frozenset()
    compared = [row for name, row in recomputed.items() if name not in excluded]
    differ = [each for each in compare_rows(folder.name, recorded, compared) if not each.ok]
    if differ:
        numbers = (f"{each.metric} is {each.recomputed:.10g}, recorded {each.published:.10g}" for each in differ)
        raise MigrationError(f"the weights do not give the recorded numbers: {'; '.join(numbers)}")
    for tight, metric in DRIFTS.items():
        if tight in recorded:
            value, unit = recorded[metric].value, recorded[metric].unit.split(",")[0]
            recomputed["value_drift"] = drift_row(float(value), lambda: float(recorded[tight].value), unit)  # noqa: B023
    return [recomputed[name] for name in NEW_METRICS if name in recomputed]


def _evaluate(run: RecordedRun, workspace: Path) -> Iterator[Row]:
    last = LAST_METRICS.get(run.record["experiment"])
    for row in run.evaluate(CPU, workspace):
        yield row
        if row.metric == last:
            break


def _write(folder: Path, rows: Sequence[Row], workspace: Path, state: Mapping[str, Any]) -> None:
    per_point = workspace / "artefacts" / PER_POINT
    if per_point.exists():
        write_atomically(folder / PER_POINT, per_point.read_bytes())
    if rows:
        write_atomically(folder / "rows.csv", _recorded_lines(folder) + _encode(rows, workspace))
    migrated = {
        **state,
        "machine": machine_slug(CPU),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "threads": torch.get_num_threads(),
        "rows": [row.metric for row in rows],
    }
    record = {**_read_record(folder), "schema": SCHEMA, "files": hash_files(folder), "migrated": migrated}
    write_atomically(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())


def _recorded_lines(folder: Path) -> bytes:
    """Read rows.csv without the lines that a killed migration appended."""
    lines = (folder / "rows.csv").read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if line.split(b",")[0].decode() not in NEW_METRICS)


def _encode(rows: Sequence[Row], workspace: Path) -> bytes:
    write_rows(workspace / "rows.csv", rows)
    return (workspace / "rows.csv").read_bytes().partition(b"\n")[2]  # without the header


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except ValueError as error:
        raise MigrationError(f"{RECORD} cannot be read ({error})") from None
    if not isinstance(record, dict):
        raise MigrationError(f"{RECORD} holds no record")
    return record


if __name__ == "__main__":
    sys.exit(main())
