"""Run records: a run leaves a folder of rows.csv and run.json; tables and figures are functions of such folders."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any

import pandas as pd

from repro.cache import read_folder

COLUMNS = ("metric", "value", "unit", "step")
COST_METRICS = frozenset(
    {
        "wall_time",
        "elapsed",
        "update_time",
        "peak_memory",
        "peak_step_memory",
        "step_time",
        "step_time_low",
        "step_time_high",
        "forward_time",
    }
)
"""Metrics that depend on the machine's mood; all others are a function of the config, seed and thread count."""
KEYS = ("experiment", "cell", "tier", "seed", "machine", "threads", "digest", "status")
"""What of run.json stands beside every row that `load` reads."""
OK = "ok"
"""Status of a run that ended well."""
KEY_TYPES: Mapping[str, type] = MappingProxyType({key: int if key in ("seed", "threads") else str for key in KEYS})
"""What run.json must hold to be a record at all."""
SCHEMA = 2
"""Of run.json; 2 lists the SHA-256 of every other file of the run."""
SCHEMAS = (1, SCHEMA)
"""That this version reads."""


@dataclass(frozen=True)
class Row:
    """One number: a final one (`step` None) or a point of a curve."""

    metric: str
    value: float | int
    unit: str
    step: int | None = None


def results_root() -> Path:
    """The results/ folder: $REPRO_RESULTS, that of the checkout around the package, or ./results."""
    if (folder := read_folder("REPRO_RESULTS")) is not None:
        return folder
    checkout = Path(__file__).resolve().parents[1] / "results"
    return checkout if (checkout / "published.csv").exists() else Path.cwd() / "results"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows.csv; floats keep every bit (repr)."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(
            (row.metric, repr(float(row.value)), row.unit, "" if row.step is None else row.step) for row in rows
        )


def read_rows(path: Path) -> list[Row]:
    """Read rows.csv back.

    Raises:
        ValueError: if the header is another one or the content no table of numbers; the message names the file.
    """
    with path.open(newline="", encoding="utf-8") as file:
        try:
            reader = csv.reader(file)
            header = next(reader, [])
            if tuple(header) == COLUMNS:
                return [Row(m, float(v), u, int(s) if s else None) for m, v, u, s in reader]
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path} is damaged ({error})") from None
    raise ValueError(f"{path}: expected the header {','.join(COLUMNS)}, found {','.join(header)}")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON that reads well in a diff."""
    path.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n", encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read a run's run.json.

    Args:
        folder: the run's folder.

    Returns:
        Its content; None where there is none, or none that can be read: such a run counts as not made. Of a file that
        cannot be read one line on stderr gives the name, once in a process.
    """
    path = folder / "run.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        _warn_unreadable(path, " ".join(str(error).split()))
        return None
    if problem := _describe_gap(content):
        _warn_unreadable(path, problem)
        return None
    return content


def _describe_gap(content: object) -> str:
    """Name what a run.json lacks; empty where it lacks nothing."""
    if not isinstance(content, dict):
        return "no JSON object"
    wrong = [key for key, kind in KEY_TYPES.items() if not isinstance(content.get(key), kind)]
    return f"without {', '.join(wrong)}" if wrong else ""


@cache
def _warn_unreadable(path: Path, problem: str) -> None:
    print(f"warning: {path} cannot be read ({problem}); the run counts as not made", file=sys.stderr)


def read_runs(root: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Read the record of every finished run below a root.

    Args:
        root: results/runs, results/local, or a folder like them.

    Yields:
        Folder and content of run.json, in the folders' order; never what a killed run left half-moved (dotted), nor a
        run whose record cannot be read.
    """
    for folder in sorted(path.parent for path in root.glob("*/*/*/*/run.json")):
        if not folder.name.startswith(".") and (record := read_record(folder)) is not None:
            yield folder, record


def run_folders(root: Path) -> Iterator[Path]:
    """List the folders of finished runs below a root, as `read_runs` gives them."""
    return (folder for folder, _ in read_runs(root))


def weights_of(
    source: str, experiment: str, cell: str, digest: str, seed: int
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Find the weights of a cell's runs that ended well, with what their run.json says.

    Args:
        source: `runs`, the published ones, or `local`.
        experiment: its name.
        cell: its cell.
        digest: of the cell's config.
        seed: of the runs.
    """
    for path in sorted((results_root() / source).glob(f"{experiment}/{cell}-{digest}/*-seed{seed}/model.safetensors")):
        info = read_record(path.parent)
        if info is not None and info["status"] == "ok":
            yield path, info


def load(*roots: Path) -> pd.DataFrame:
    """Read the rows of every finished run below the roots into one tidy table.

    Returns:
        One line per row, with the columns experiment, cell, tier, seed, machine, threads, digest, status, source (the
        root's name: runs or local), run (folder relative to its root) before metric, value, unit, step (NaN if final).
    """
    loaded = [_load_run(folder, info, root) for root in roots for folder, info in read_runs(root)]
    frames = [frame for frame in loaded if frame is not None]
    columns = [*KEYS, "source", "run", *COLUMNS]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def _load_run(folder: Path, info: Mapping[str, Any], root: Path) -> pd.DataFrame | None:
    recorded = rows_of(folder)
    if recorded is None:
        return None
    rows = pd.DataFrame([vars(row) for row in recorded], columns=list(COLUMNS))
    if rows.empty:  # a run that failed before its first row is still a run that was made
        rows = pd.DataFrame([{"metric": "none", "value": float("nan"), "unit": "", "step": None}])
    keys = {key: info[key] for key in KEYS}
    rows["step"] = rows["step"].astype(float)
    return rows.assign(**keys, source=root.name, run=folder.relative_to(root).as_posix())


def rows_of(folder: Path) -> list[Row] | None:
    """Read the rows of a finished run.

    Args:
        folder: the run's folder.

    Returns:
        Its rows; None, with one line on stderr, where rows.csv is missing or damaged: such a run counts as not made.
    """
    path = folder / "rows.csv"
    try:
        return read_rows(path)
    except (OSError, ValueError) as error:
        _warn_unreadable(path, " ".join(str(error).split()))
        return None


def hours_of(info: Mapping[str, Any], training_seconds: float | None) -> float:
    """How long a run took, from start to end.

    A run of several sittings lay still in between, and knows the time of its training only; nan where there was none.

    Args:
        info: What its run.json says.
        training_seconds: Its final row `wall_time`, if it has one.
    """
    if info.get("resumed") or not {"start", "end"} <= info.keys():
        return float("nan") if training_seconds is None else training_seconds / 3600
    start, end = (datetime.fromisoformat(info[key]) for key in ("start", "end"))
    return (end - start).total_seconds() / 3600


def seed_values(rows: pd.DataFrame, experiment: str, cell: str, metric: str) -> dict[int, float]:
    """A metric's final value for each seed of a cell, of successful runs only, in the seeds' order.

    A seed that ran on several machines counts once, on the first by name.
    """
    chosen = rows[_of_cell(rows, experiment, cell) & (rows["metric"] == metric) & rows["step"].isna()]
    first = chosen.sort_values(["seed", "machine"]).drop_duplicates("seed")
    return dict(zip(first["seed"].tolist(), first["value"].tolist(), strict=True))


def final_values(rows: pd.DataFrame, experiment: str, cell: str, metric: str) -> list[float]:
    """The values of `seed_values` alone."""
    return list(seed_values(rows, experiment, cell, metric).values())


def seed_pairs(rows: pd.DataFrame, experiment: str, a: str, b: str, metric: str) -> list[tuple[float, float]]:
    """A metric's final values in two cells, for each seed that both have."""
    first, second = (seed_values(rows, experiment, cell, metric) for cell in (a, b))
    return [(first[seed], second[seed]) for seed in first if seed in second]


def mean_pair(rows: pd.DataFrame, experiment: str, a: str, b: str, metric: str) -> tuple[float, float] | None:
    """A metric's means in two cells over the seeds that both have, or None if there is no such seed."""
    pairs = seed_pairs(rows, experiment, a, b, metric)
    return (fmean(first for first, _ in pairs), fmean(second for _, second in pairs)) if pairs else None


def mean_text(rows: pd.DataFrame, experiment: str, cell: str, metric: str, digits: int) -> str:
    """A metric over the seeds of a cell as a table prints it: mean, and standard deviation where seeds differ."""
    values = final_values(rows, experiment, cell, metric)
    if not values:
        return "-"
    spread = f" ± {stdev(values):.{digits}f}" if len(set(values)) > 1 else ""
    return f"{fmean(values):,.{digits}f}{spread}"


def largest_text(rows: pd.DataFrame, experiment: str, cell: str, metric: str) -> str:
    """The largest of a metric's values over the seeds of a cell as a table prints it."""
    values = final_values(rows, experiment, cell, metric)
    return f"{max(values):.1e}" if values else "-"


def curve(rows: pd.DataFrame, experiment: str, cell: str) -> pd.DataFrame:
    """A cell's curves, averaged over its successful runs on one machine: a line per step, a column per metric."""
    chosen = rows[_of_cell(rows, experiment, cell) & rows["step"].notna()]
    if chosen.empty:
        return pd.DataFrame()
    here = chosen[chosen["machine"] == chosen["machine"].min()]
    return here.pivot_table(index="step", columns="metric", values="value")


def outcomes(rows: pd.DataFrame, noun: str = "") -> str:
    """How the runs behind some rows ended, as "2 of 3 seeds; 1 diverged"; empty where there is none.

    A failed run is counted, never averaged, never hidden.
    """
    runs = rows.drop_duplicates("run")
    good = f"{(runs['status'] == 'ok').sum()} of {len(runs)} {noun}".rstrip()
    return "; ".join(filter(None, [good, failures(rows)])) if len(runs) else ""


def failures(rows: pd.DataFrame) -> str:
    """How the runs that failed ended, as "2 diverged; 1 budget"; empty where none did."""
    counts = rows.drop_duplicates("run")["status"].value_counts()
    return "; ".join(f"{count} {status}" for status, count in counts.items() if status != "ok")


def _of_cell(rows: pd.DataFrame, experiment: str, cell: str) -> pd.Series:
    return (rows["experiment"] == experiment) & (rows["cell"] == cell) & (rows["status"] == "ok")
