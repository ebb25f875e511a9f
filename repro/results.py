"""Run records: a run leaves a folder of rows.csv and run.json; tables and figures are functions of such folders."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

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
SCHEMA = 1
OK = "ok"
"""Status of a run that ended well."""


@dataclass(frozen=True)
class Row:
    """One number: a final one (`step` None) or a point of a curve."""

    metric: str
    value: float | int
    unit: str
    step: int | None = None


def results_root() -> Path:
    """The results/ folder: $REPRO_RESULTS, that of the checkout around the package, or ./results."""
    if "REPRO_RESULTS" in os.environ:
        return Path(os.environ["REPRO_RESULTS"])
    checkout = Path(__file__).resolve().parents[1] / "results"
    return checkout if (checkout / "published.csv").exists() else Path.cwd() / "results"


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows.csv; floats keep every bit (repr)."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(
            (row.metric, repr(float(row.value)), row.unit, "" if row.step is None else row.step) for row in rows
        )


def read_rows(path: Path) -> list[Row]:
    """Read rows.csv back.

    Raises:
        ValueError: if the header is another one.
    """
    with path.open(newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if tuple(header) != COLUMNS:
            raise ValueError(f"{path}: expected the header {','.join(COLUMNS)}, found {','.join(header)}")
        return [Row(m, float(v), u, int(s) if s else None) for m, v, u, s in reader]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON that reads well in a diff."""
    path.write_text(json.dumps(value, indent=2, sort_keys=False) + "\n")


def run_folders(root: Path) -> Iterator[Path]:
    """The folders of finished runs below `root`, in a fixed order; not what a killed run left half-moved (dotted)."""
    yield from sorted(p.parent for p in root.glob("*/*/*/*/run.json") if not p.parent.name.startswith("."))


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
        info = json.loads((path.parent / "run.json").read_text())
        if info["status"] == "ok":
            yield path, info


def load(*roots: Path) -> pd.DataFrame:
    """Read the rows of every finished run below the roots into one tidy table.

    Returns:
        One line per row, with the columns experiment, cell, tier, seed, machine, threads, digest, status, source (the
        root's name: runs or local), run (folder relative to its root) before metric, value, unit, step (NaN if final).
    """
    frames = [_load_run(folder, root) for root in roots for folder in run_folders(root)]
    columns = [*KEYS, "source", "run", *COLUMNS]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def _load_run(folder: Path, root: Path) -> pd.DataFrame:
    info = json.loads((folder / "run.json").read_text())
    rows = pd.DataFrame([vars(row) for row in read_rows(folder / "rows.csv")], columns=list(COLUMNS))
    if rows.empty:  # a run that failed before its first row is still a run that was made
        rows = pd.DataFrame([{"metric": "none", "value": float("nan"), "unit": "", "step": None}])
    keys = {key: info[key] for key in KEYS}
    rows["step"] = rows["step"].astype(float)
    return rows.assign(**keys, source=root.name, run=folder.relative_to(root).as_posix())


def hours_of(info: Mapping[str, Any], training_seconds: float | None) -> float:
    """How long a run took, from start to end.

    A run of several sittings lay still in between, and knows the time of its training only; nan where there was none.

    Args:
        info: What its run.json says.
        training_seconds: Its final row `wall_time`, if it has one.
    """
    if info.get("resumed") or "end" not in info:
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
