"""Peak memory of a training step: slopes against what it may depend on, where methods cross, and a picture."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from repro.experiment import NOT_ATTEMPTED, Judgement, graded, rule_of
from repro.measuring.fits import Fit, slope
from repro.report.benchmarks import (
    NOT_CLEAN,
    Bracket,
    MeasuredClaim,
    bracket_of,
    entries,
    first_machine,
    sentence,
    without_empty,
)

MIB = 2**20
COLUMNS = (
    "machine",
    "step of",
    "against",
    "way",
    "peak",
    "peak per unit, 95 % interval",
    "kept by autograd",
    "kept per unit",
    BY_PHASE := "by phase, at the last",
    "meter",
    "failed",
)
PHASES = {"held": "held", "backward": "in backward", "left": "left", "reserved": "reserved"}
"""What is shown of a step's phases, and in what words; the last is a GPU's alone."""
NAMES = {phase: f"{phase}_{'peak_' if phase == 'backward' else ''}bytes" for phase in PHASES}
"""The same as entries call them."""
WAYS = ("ResNet", "backprop", "backprop, compiled", "checkpoint", "checkpoint, compiled", "adjoint", "adjoint_seminorm")
"""In the order of tables and colours."""
BATCHES = {"ODE-Net": 32, "CNF": 256}
"""Rows of a step along the axis of solver steps, by workload, as `benchmarks.tasks` has them."""
UNITS = {"solver steps": "solver step or block", "output times": "output time", "batch": "row", "width": "unit"}


def load_memory(folder: Path) -> pd.DataFrame:
    """Read results/benchmarks/: machine, workload, axis, value, way, status, peak_mib, saved_mib, phases, meter.

    Phases are NaN where they were not told apart: held_mib after the forward pass, backward_mib at the backward pass's
    peak, left_mib after the step, all over what was there before it; reserved_mib is the most that torch took of a GPU.
    """
    return pd.DataFrame([_cell(machine, benchmark["extra_info"]) for machine, benchmark in entries(folder, "memory")])


def _cell(machine: str, known: dict[str, Any]) -> dict[str, Any]:
    return {
        "machine": machine,
        "axis": known["memory"],
        **{key: known[key] for key in ("workload", "value", "way", "status")},
        "peak_mib": known.get("peak_bytes", np.nan) / MIB,
        "saved_mib": known.get("saved_bytes", np.nan) / MIB,
        **{f"{phase}_mib": known.get(name, np.nan) / MIB for phase, name in NAMES.items()},
        "meter": known.get("meter", ""),
    }


def memory(cells: pd.DataFrame) -> pd.DataFrame:
    """One line for each way along each axis.

    Peaks are those of one step in a fresh process over what was there before it. Slopes are least squares; for the
    width, on which memory does not depend linearly, there is none. By phase, a step holds so much between its passes,
    has its peak in the backward pass, and leaves its gradients; the column is there where phases were told apart.
    """
    table = pd.DataFrame([_line(*series) for series in _series(cells)], columns=pd.Index(COLUMNS))
    return without_empty(table, BY_PHASE)


Key = tuple[str, str, str, str]


def _series(cells: pd.DataFrame) -> Iterator[tuple[Key, pd.DataFrame]]:
    ordered = cells.assign(order=[WAYS.index(way) for way in cells["way"]]).sort_values("order", kind="stable")
    for key, chosen in ordered.groupby(["machine", "workload", "axis", "way"], sort=False):
        machine, workload, axis, way = map(str, key)  # pyright: ignore[reportArgumentType, reportGeneralTypeIssues]
        yield (machine, workload, axis, way), chosen


def _line(key: Key, chosen: pd.DataFrame) -> dict[str, str]:
    machine, workload, axis, way = key
    done = chosen[chosen["status"] == "ok"]
    failed = chosen[chosen["status"] != "ok"]
    values = (
        machine,
        workload,
        axis,
        way,
        _ends(done, "peak_mib"),
        _per_unit(done, axis, "peak_mib"),
        _ends(done, "saved_mib"),
        _per_unit(done, axis, "saved_mib"),
        _by_phase(done),
        str(done["meter"].iloc[0]) if len(done) else "",
        "; ".join(f"{row['value']}: {row['status']}" for _, row in failed.iterrows()),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _ends(done: pd.DataFrame, column: str) -> str:
    if done.empty:
        return "-"
    if isinstance(done["value"].iloc[0], str):
        return ", ".join(f"{row['value']} {row[column]:.3g}" for _, row in done.iterrows()) + " MiB"
    first, last = done.iloc[0], done.iloc[-1]
    return f"{first[column]:.3g} MiB at {first['value']} to {last[column]:.3g} MiB at {last['value']}"


def _per_unit(done: pd.DataFrame, axis: str, column: str) -> str:
    if axis in ("solver", "width") or len(done) < 3:
        return ""
    fit = slope(done["value"].tolist(), (1024 * done[column]).tolist())
    return f"{fit.value:.4g} [{fit.low:.4g}, {fit.high:.4g}] KiB per {UNITS[axis]}"


def _by_phase(done: pd.DataFrame) -> str:
    """The phases at the last value, which along most axes is the largest; empty where they were not told apart."""
    last = done.iloc[-1] if len(done) else {}
    known = [
        f"{last[f'{phase}_mib']:.3g} {word}" for phase, word in PHASES.items() if pd.notna(last.get(f"{phase}_mib"))
    ]
    return f"{', '.join(known)} (MiB at {last['value']})" if known else ""


def bracket(cells: pd.DataFrame) -> Bracket | None:
    """Between which widths the adjoint begins to need more memory than backprop; None if it never does."""
    return bracket_of(cells[cells["axis"] == "width"], "peak_mib", "adjoint", "backprop")


def finding(cells: pd.DataFrame) -> str:
    """What the picture shows, in a sentence, from the first machine's figures."""
    cells = first_machine(cells)
    deep = cells[(cells["axis"] == "solver steps") & (cells["status"] == "ok")]
    parts = []
    for workload in dict.fromkeys(deep["workload"]):
        steep, flat = (_fit(deep, workload, way) for way in ("backprop", "adjoint"))
        if steep is not None and flat is not None:
            parts.append(
                f"a solver step adds {steep} MiB to the peak of {_with_batch(workload)} by backprop and {flat} MiB by "
                "the adjoint (95 % intervals)"
            )
    if (between := bracket(cells)) is not None:
        parts.append(
            "on a small state (16 rows of 16, four solver steps) by the adjoint's copies of the parameters its peak "
            f"is the larger one from {between} hidden units on"
        )
    return sentence(parts)


def _with_batch(workload: str) -> str:
    return f"{workload}, batch {BATCHES[workload]}," if workload in BATCHES else workload


def claims(cells: pd.DataFrame) -> Sequence[MeasuredClaim]:
    """The peaks' part in the claim that the adjoint's memory is constant in depth, which Table 1's costs judge, too."""
    judgement = constant_peak(cells) if len(cells) else NOT_CLEAN
    statement = "By the adjoint, the peak of a training step does not grow with the number of solver steps."
    source = "Neural ODE v5, Section 1 and Table 1"
    return [MeasuredClaim("node-constant-memory", statement, source, judgement, rule_of(constant_peak))]


def constant_peak(cells: pd.DataFrame) -> Judgement:
    """Reproduced if the adjoint's slope is below 2 % of backprop's in every workload, partly if in some.

    A resident set moves by single pages and arenas, so that its slope is not exactly zero.
    """
    cells = first_machine(cells)
    deep = cells[(cells["axis"] == "solver steps") & (cells["status"] == "ok")]
    fits: dict[str, tuple[Fit, Fit]] = {}
    for workload in dict.fromkeys(deep["workload"]):
        found = [_fit(deep, workload, way) for way in ("adjoint", "backprop")]
        if None not in found:
            fits[workload] = found[0], found[1]  # pyright: ignore[reportArgumentType]
    if not fits:
        return NOT_ATTEMPTED
    text = "; ".join(f"{_with_batch(name)} adjoint {flat}, backprop {steep}" for name, (flat, steep) in fits.items())
    verdict = graded([abs(flat.value) < 0.02 * steep.value for flat, steep in fits.values()])
    return Judgement(verdict, f"MiB of the peak per RK4 step, 95 % intervals: {text}")


def _fit(deep: pd.DataFrame, workload: str, way: str) -> Fit | None:
    done = deep[(deep["workload"] == workload) & (deep["way"] == way)]
    return slope(done["value"].tolist(), done["peak_mib"].tolist()) if len(done) >= 3 else None
