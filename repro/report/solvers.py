"""What exactness costs by solver: error against evaluations and time, problem by problem."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from repro.measuring.fits import cost_at
from repro.ode import PROBLEMS
from repro.report.benchmarks import done_by_first, entries

TARGETS = (1e-3, 1e-6)
"""Errors at which solvers are compared."""
COLUMNS = (
    "machine",
    "problem",
    "solver",
    "engine",
    "order observed (of theory)",
    *(f"{what} at error {target:.0e}".replace("e-0", "e-") for target in TARGETS for what in ("NFE", "time")),
    "smallest error",
    "log-density there",
    "failed",
)
CLOSED_FORMS = tuple(PROBLEMS)
"""Problems whose fields are plain functions; every other one is a trained flow."""


def load_solvers(folder: Path) -> pd.DataFrame:
    """Read results/benchmarks/: machine, problem, method, engine, setting, status, error, nfe_forward, ms, order, ….

    Errors are relative, in the Euclidean norm over all elements; `error_log_prob` is a mean in nats; `ms` a median.
    """
    found = [_cell(machine, benchmark) for machine, benchmark in entries(folder, "work_precision")]
    return pd.DataFrame(found)


def _cell(machine: str, benchmark: dict[str, Any]) -> dict[str, Any]:
    known = benchmark["extra_info"]
    numbers = ("error", "error_log_prob", "nfe_forward", "n_accepted", "n_rejected", "order", "nominal_order")
    return {
        "machine": machine,
        "problem": known["work_precision"],
        **{key: known[key] for key in ("method", "engine", "setting", "status")},
        "kind": known.get("kind", ""),
        **{key: math.nan if known.get(key) is None else known[key] for key in numbers},
        "ms": 1e3 * benchmark["stats"]["median"] if known["status"] == "ok" else math.nan,
    }


def solvers(cells: pd.DataFrame) -> pd.DataFrame:
    """One line for each solver on each problem.

    Orders are those with which the error falls with the steps (fixed) or the evaluations (adaptive). Evaluations and
    times at an error are interpolated between settings; "≤" where the loosest one is exacter already.
    """
    if cells.empty:
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    groups = cells.groupby(["machine", "problem", "method"], sort=False)
    return pd.DataFrame([_line(chosen) for _, chosen in groups], columns=pd.Index(COLUMNS))


def _line(chosen: pd.DataFrame) -> dict[str, str]:
    first, done = chosen.iloc[0], chosen[chosen["status"] == "ok"]
    costs = [_at(done, target, column) for target in TARGETS for column in ("nfe_forward", "ms")]
    best = done.sort_values("error").iloc[0] if len(done) else None
    failed = chosen[chosen["status"] != "ok"]
    values = (
        *(str(first[key]) for key in ("machine", "problem", "method", "engine")),
        _order(chosen),
        *costs,
        "-" if best is None else f"{best['error']:.1e}",
        "" if best is None or math.isnan(best["error_log_prob"]) else f"{best['error_log_prob']:.1e} nats",
        "; ".join(f"{_setting(row)}: {_short(row['status'])}" for _, row in failed.iterrows()),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _order(chosen: pd.DataFrame) -> str:
    observed, nominal = chosen["order"].iloc[0], chosen["nominal_order"].iloc[0]
    theory = "varies" if math.isnan(nominal) else f"{nominal:.0f}"
    return f"{'-' if math.isnan(observed) else f'{observed:.2f}'} ({theory})"


def _setting(row: pd.Series) -> str:
    return f"{row['setting']:.0e}".replace("e-0", "e-") if row["setting"] < 1 else f"{row['setting']} steps"


def _short(status: str) -> str:
    """A status without where in the solve it happened."""
    return status.partition(" in the step")[0]


def _at(done: pd.DataFrame, target: float, column: str) -> str:
    cost, how = cost_at(list(zip(done["error"], done[column], strict=True)), target)
    if cost is None:
        return how
    number = f"{cost:.0f}" if column == "nfe_forward" else f"{cost:.3g} ms"
    return f"≤ {number}" if how == "at most" else number


def finding(cells: pd.DataFrame) -> str:
    """Which solver is the cheapest at which error on the trained flow, by the first machine; adaptive ones first."""
    cells = done_by_first(cells)
    flows = [name for name in dict.fromkeys(cells["problem"]) if name not in CLOSED_FORMS]
    if not flows:
        return ""
    chosen = cells[cells["problem"] == flows[0]]
    parts = [part for target in TARGETS if (part := _cheapest(chosen, target))]
    if not parts:
        return ""
    return f"On the flow trained on {flows[0]}, by a solver that chooses its steps, {'; '.join(parts)}."


def _cheapest(chosen: pd.DataFrame, target: float) -> str:
    """The cheapest adaptive solver, and apart from it the cheapest fixed step, which no one can choose beforehand."""
    fixed = chosen["kind"] == "steps"
    adaptive, stepping = _least(chosen[~fixed], target), ranked(chosen[fixed], target, "ms")
    if not adaptive and not stepping:
        return ""
    parts = [f"soonest by {adaptive}" if adaptive else "by none of them"]
    if stepping:
        best = f"{stepping[0].method} ({stepping[0].told} ms)"
        parts.append(f"by the best fixed step, which is known only afterwards, by {best}")
    return f"a relative error of {target:g} is reached {', '.join(parts)}"


def _least(chosen: pd.DataFrame, target: float) -> str:
    """The method of the least time, of all engines and outside the compiled one, and of the fewest evaluations."""
    by_time, by_count = (ranked(chosen, target, column) for column in ("ms", "nfe_forward"))
    if not by_time:
        return ""
    fastest, fewest = by_time[0], by_count[0]
    others = ranked(chosen[chosen["engine"] != "compiled"], target, "ms")
    text = f"{fastest.method} ({fastest.told} ms)"
    if others and others[0].method != fastest.method:
        text += f", outside the compiled engine by {others[0].method} ({others[0].told} ms)"
    return f"{text}, with the fewest evaluations by {fewest.method.removesuffix('_compiled')} ({fewest.told})"


class Reached(NamedTuple):
    """What it costs a method to reach an error.

    Attributes:
        cost: In ms or evaluations.
        method: By name.
        how: "interpolated", or "at most" where the coarsest setting is exacter already.
    """

    cost: float
    method: str
    how: str

    @property
    def told(self) -> str:
        """The cost, and whether it is only a bound."""
        cost = f"{self.cost:.3g}" if self.cost < 1e3 else f"{self.cost:.0f}"
        return f"at most {cost}" if self.how == "at most" else cost


def ranked(chosen: pd.DataFrame, target: float, column: str) -> list[Reached]:
    """The methods that reach an error on one problem, the cheapest first, as far as their settings tell.

    A method whose coarsest setting is exacter could reach the error for less; of two such ones the order is that of
    their bounds.
    """
    costs = []
    for method, points in chosen.groupby("method", sort=False):
        cost, how = cost_at(list(zip(points["error"], points[column], strict=True)), target)
        if cost is not None:
            costs.append(Reached(cost, str(method), how))
    return sorted(costs)
