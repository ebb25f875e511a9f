"""How often training steps evaluate their field: counts beside each other, and the identity of dopri5."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from repro.report.benchmarks import entries, first_machine, sentence

WAYS = ("adjoint", "adjoint_seminorm", "checkpoint", "backprop")
COLUMNS = (
    "machine",
    "step of",
    "state",
    "against",
    "value",
    "forward",
    *(f"backward, {way}" for way in WAYS),
    "2 + 6k",
    "why n/a",
)
COUNTS = ("nfe_forward", "nfe_backward", "n_accepted", "n_rejected", "n_accepted_backward", "n_rejected_backward")
AXES = ("tolerance", "output times", "solver", "dimension")
STATES = ("at initialisation", "trained")
NA = "n/a"


def load_nfe(folder: Path) -> pd.DataFrame:
    """Read results/benchmarks/: machine, axis, workload, value, way, state, tolerance, status, counts, identities.

    A count that does not apply is None.
    """
    return pd.DataFrame([_cell(machine, benchmark["extra_info"]) for machine, benchmark in entries(folder, "nfe")])


def _cell(machine: str, known: dict[str, Any]) -> dict[str, Any]:
    named = ("workload", "value", "way", "state", "tolerance", "status", "identity", "identity_backward")
    counts = {key: known.get(key) for key in COUNTS}
    return {"machine": machine, "axis": known["nfe"], **{key: known[key] for key in named}, **counts}


def nfe(cells: pd.DataFrame) -> pd.DataFrame:
    """One line for each value along each axis: evaluations, in brackets the steps kept + rejected.

    The forward solve is the same for all gradient methods; where it is not, all its counts are given.
    """
    return pd.DataFrame([_line(*group) for group in _groups(cells)], columns=pd.Index(COLUMNS))


Cells = list[dict[str, Any]]


def _groups(cells: pd.DataFrame) -> list[tuple[tuple[str, ...], Cells]]:
    """The cells of all gradient methods by machine, workload, state, axis and value, axis by axis."""
    groups: dict[tuple[str, ...], Cells] = {}
    for row in cells.astype(object).where(cells.notna(), None).to_dict("records"):
        cell = {str(key): value for key, value in row.items()}
        key = tuple(str(cell[name]) for name in ("machine", "workload", "state", "axis"))
        groups.setdefault((*key, shown(cell["value"])), []).append(cell)
    return sorted(groups.items(), key=lambda group: (group[0][0], AXES.index(group[0][3]), STATES.index(group[0][2])))


def _line(key: tuple[str, ...], group: Cells) -> dict[str, str]:
    by_way = {cell["way"]: cell for cell in group}
    forward = dict.fromkeys(_counts(cell, "") for cell in group if cell["status"] == "ok")
    backward = [_counts(by_way[way], "_backward") if way in by_way else "" for way in WAYS]
    reasons = [f"{way}: {cell['status']}" for way, cell in by_way.items() if cell["status"] != "ok"]
    return dict(zip(COLUMNS, (*key, " or ".join(forward), *backward, held(group), "; ".join(reasons)), strict=True))


def _counts(cell: dict[str, Any], part: str) -> str:
    """Evaluations with the steps kept + rejected; "n/a" where there is no such count."""
    evaluations = cell["nfe_backward" if part else "nfe_forward"]
    if evaluations is None:
        return NA
    steps = [cell[f"n_{kind}{part}"] for kind in ("accepted", "rejected")]
    return f"{evaluations:.0f} ({' + '.join(NA if count is None else f'{count:.0f}' for count in steps)})"


def held(group: Sequence[dict[str, Any]]) -> str:
    """Whether the identity holds in all solves of these cells to which it applies: "holds", "fails" or "n/a"."""
    laws = [cell[name] for cell in group for name in ("identity", "identity_backward") if cell[name] != NA]
    return NA if not laws else "holds" if all(laws) else "fails"


def shown(value: float | int | str) -> str:
    """A value of an axis in words; powers of ten as such."""
    if isinstance(value, str):
        return value
    return f"{value:.0e}".replace("e-0", "e-") if value < 1 else f"{value:g}"


def finding(cells: pd.DataFrame) -> str:
    """What the picture shows, in a sentence, from the first machine's counts."""
    cells = first_machine(cells)
    parts = (_of_training(cells), _of_backward(cells), _of_times(cells), _of_dimension(cells), _of_identity(cells))
    return sentence(parts)


def _of_training(cells: pd.DataFrame) -> str:
    parts = []
    for tolerance in (1e-3, 1e-7):
        found = [_number(cells, "tolerance", tolerance, "adjoint", state) for state in STATES]
        if all(found):
            before, after = (int(numbers["nfe_forward"]) for numbers in found)
            parts.append(f"from {before} to {after} at tolerance {shown(tolerance)}")
    return f"training raises dopri5's forward evaluations {' and '.join(parts)}" if parts else ""


def _of_backward(cells: pd.DataFrame) -> str:
    """The adjoint's backward over forward evaluations on the trained field, over the tolerances."""
    chosen = cells[(cells["axis"] == "tolerance") & (cells["way"] == "adjoint") & (cells["state"] == STATES[1])]
    chosen = chosen[(chosen["status"] == "ok") & chosen["nfe_backward"].notna()]
    if chosen.empty:
        return ""
    ratios = chosen["nfe_backward"].astype(float) / chosen["nfe_forward"].astype(float)
    low, high = (f"{ratio:.2f}" for ratio in (ratios.min(), ratios.max()))
    span = low if low == high else f"{low} to {high}"
    return f"the adjoint's backward solve on the trained field takes {span} times the forward evaluations"


def _of_times(cells: pd.DataFrame) -> str:
    chosen = cells[(cells["axis"] == "output times") & (cells["way"] == "adjoint") & (cells["state"] == STATES[1])]
    if len(chosen) < 2:
        return ""
    ends = [chosen["value"].min(), chosen["value"].max()]
    adjoint, checkpoint = (
        [_number(cells, "output times", value, way, STATES[1]).get("nfe_backward") for value in ends]
        for way in ("adjoint", "checkpoint")
    )
    text = (
        f"the adjoint starts anew at every output time, so that {ends[1]:g} of them instead of {ends[0]:g} take it "
        f"from {adjoint[0]:.0f} to {adjoint[1]:.0f} backward evaluations on the trained field"
    )
    return text if None in checkpoint else f"{text}, checkpoint from {checkpoint[0]:.0f} to {checkpoint[1]:.0f}"


def _of_dimension(cells: pd.DataFrame) -> str:
    chosen = cells[(cells["axis"] == "dimension") & (cells["status"] == "ok")]
    if len(found := chosen.drop_duplicates("value")) < 2:
        return ""
    low, high = int(found["nfe_forward"].min()), int(found["nfe_forward"].max())
    ends = f"from {found['value'].min():g} to {found['value'].max():g} dimensions"
    return (
        f"{ends} an untrained flow of one width takes {low if low == high else f'{low} to {high}'} forward "
        "evaluations, which says nothing of FFJORD's Figure 5, whose flows are trained"
    )


def _of_identity(cells: pd.DataFrame) -> str:
    laws = [law for name in ("identity", "identity_backward") for law in cells[name] if law != NA]
    if not laws:
        return ""
    return f"dopri5's identity 2 + 6 k holds in {sum(map(bool, laws))} of {len(laws)} passes to which it applies"


def _number(cells: pd.DataFrame, axis: str, value: float | int, way: str, state: str) -> dict[str, Any]:
    chosen = cells[(cells["axis"] == axis) & (cells["way"] == way) & (cells["state"] == state)]
    found = chosen[(chosen["value"] == value) & (chosen["status"] == "ok")]
    return {str(key): cell for key, cell in found.iloc[0].items()} if len(found) else {}
