"""The table of speeds: every benchmark that was timed in turn with another way to do the same work."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from repro.report.benchmarks import OVERHEAD, entries, overhead, without_empty

COLUMNS = (
    "machine",
    "work",
    "ours",
    "time",
    "the other way",
    "speed-up",
    "NFE forward / backward",
    "gradient error",
    "torchdiffeq's: adjoint, backprop",
    OVERHEAD,
)


def speeds(folder: Path) -> pd.DataFrame:
    """Read results/benchmarks/: one line for each benchmark with a counterpart, as its file has them in order.

    The other way of a training step is torchdiffeq's, used directly; else the work's name says what it is. Times are
    medians with half the interquartile range; the speed-up is the ratio of the two medians of one interleaved run.
    Gradient errors are relative, against float64 at a tight tolerance. Ours is bound by overhead if at twice the batch
    an evaluation takes less than 1.25 times as long; the column is there where that was measured.
    """
    lines = [_line(machine, benchmark) for machine, benchmark in entries(folder, "ratio")]
    return without_empty(pd.DataFrame(lines, columns=pd.Index(COLUMNS)), OVERHEAD)


def _line(machine: str, benchmark: Mapping[str, Any]) -> dict[str, str]:
    extra, stats, settings = benchmark["extra_info"], benchmark["stats"], benchmark["params"] or {}
    work = benchmark["group"] + (f": {settings['name']}" if "name" in settings else "")
    ways = [settings[key] for key in ("engine", "gradient") if key in settings]
    evaluations = [extra.get(f"nfe_{way}") for way in ("forward", "backward")]
    errors = [extra.get(f"gradient_error_{who}") for who in ("ours", "torchdiffeq_adjoint", "torchdiffeq_backprop")]
    values = (
        machine,
        settings["name"] if "engine" in settings else work,
        " ".join(ways),
        f"{1e3 * stats['median']:.3g} ± {1e3 * stats['iqr'] / 2:.2g} ms",
        f"{1e3 * extra['other_median']:.3g} ms",
        f"{extra['ratio']:.2f}",
        " / ".join(map(str, evaluations)) if evaluations[0] is not None else "",
        "" if errors[0] is None else f"{errors[0]:.1e}",
        "" if errors[1] is None else f"{errors[1]:.1e}, {errors[2]:.1e}",
        overhead(extra),
    )
    return dict(zip(COLUMNS, values, strict=True))
