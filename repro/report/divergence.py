"""What a trace costs and how noisy it is: exponents in the dimension, crossovers, spread by products."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from repro.experiment import NOT_ATTEMPTED, Judgement, rule_of
from repro.measuring.fits import Fit, deviation_interval, exponent
from repro.report.benchmarks import NOT_CLEAN, Bracket, MeasuredClaim, bracket_of, entries, first_machine, sentence

MIB = 2**20
COLUMNS = (
    "machine",
    "way",
    "pass",
    "time at the least D",
    "time at the largest D",
    "exponent of time",
    "exponent of operations",
    "exponent of kept bytes",
    "peak at the largest D",
    "failed",
)
WAYS = ("brute force", "exact", "closed form", "Hutchinson", "bottleneck", "Hutch++", "XTrace")
BOTH = "forward + backward"
NOISY_DIMENSION = 128
"""At which the estimators' noise is measured."""
LARGE = 128
"""Dimension from which on exponents are fitted: below, calls cost what a call costs, whatever its size."""


def load_divergence(folder: Path) -> pd.DataFrame:
    """Read results/benchmarks/: one line an entry, of costs (axis "dimension") and of noise (axis "products")."""
    return pd.DataFrame([_cell(machine, found) for machine, found in entries(folder, "divergence")])


def _cell(machine: str, benchmark: dict[str, Any]) -> dict[str, Any]:
    known, stats = benchmark["extra_info"], benchmark["stats"]
    names = ("value", "way", "pass", "status", "noise", "saved_bytes", "peak_bytes", "flops")
    cell = {"machine": machine, "axis": known["divergence"], **{name: known.get(name) for name in names}}
    spread = known["deviation"] / known["frobenius"] if "deviation" in known else np.nan
    low, high = _ends(spread, known.get("draws"))
    times = {"seconds": stats["median"], "q1": stats["q1"], "q3": stats["q3"]}
    return cell | times | {"spread": spread, "spread_low": low, "spread_high": high}


def _ends(spread: float, draws: int | None) -> tuple[float, float]:
    """The 95 % interval of a spread, as of normal draws; NaN where it is not known how many there were."""
    return deviation_interval(spread, draws) if draws else (np.nan, np.nan)


def divergence(cells: pd.DataFrame) -> pd.DataFrame:
    """One line for each way and pass: cost against the dimension D.

    The field has two hidden layers of fixed width, so that an evaluation costs O(D). Exponents are least squares of
    the logarithms from D = 128 on, with 95 % intervals; operations are counted, not timed.
    """
    lines = [_line(*series) for series in _series(cells[cells["axis"] == "dimension"])]
    return pd.DataFrame(lines, columns=pd.Index(COLUMNS))


Key = tuple[str, str, str]


def _series(cells: pd.DataFrame) -> Iterator[tuple[Key, pd.DataFrame]]:
    for machine in dict.fromkeys(cells["machine"]):
        for way in WAYS:
            for part in ("forward", BOTH):
                chosen = cells[(cells["machine"] == machine) & (cells["way"] == way) & (cells["pass"] == part)]
                if len(chosen):
                    yield (machine, way, part), chosen.sort_values("value")


def _line(key: Key, chosen: pd.DataFrame) -> dict[str, str]:
    done, failed = chosen[chosen["status"] == "ok"], chosen[chosen["status"] != "ok"]
    peaks = done["peak_bytes"].dropna()
    first, last = (done.iloc[0], done.iloc[-1]) if len(done) else (None, None)
    values = (
        *key,
        "-" if first is None else f"{1e3 * first['seconds']:.3g} ms at {first['value']}",
        "-" if last is None else f"{1e3 * last['seconds']:.3g} ms at {last['value']}",
        _text(growth(done, "seconds")),
        _text(growth(done, "flops")),
        _text(growth(done, "saved_bytes")),
        f"{peaks.iloc[-1] / MIB:.3g} MiB" if len(peaks) else "",
        "; ".join(f"{row['value']}: {row['status']}" for _, row in failed.iterrows()),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _text(fit: Fit | None) -> str:
    return "" if fit is None else str(fit)


def growth(done: pd.DataFrame, column: str) -> Fit | None:
    """The exponent of a cost in the dimension from `LARGE` on, or None where there are too few points."""
    large = done[(done["value"] >= LARGE) & done[column].notna()]
    return exponent(large["value"].tolist(), large[column].astype(float).tolist()) if len(large) >= 3 else None


def bracket(cells: pd.DataFrame, dear: str, cheap: str) -> Bracket | None:
    """Between which dimensions one way begins to take longer than another by quartiles that don't overlap.

    Returns:
        Forward and backward; None where it takes no longer at the largest dimension.
    """
    chosen = cells[(cells["axis"] == "dimension") & (cells["pass"] == BOTH)]
    return bracket_of(chosen, "seconds", dear, cheap, ("q1", "q3"))


def finding(cells: pd.DataFrame) -> str:
    """What the picture shows, in a sentence, from the first machine's figures."""
    cells = first_machine(cells)
    parts = []
    fits = [_fit(cells, way, column) for column in ("flops", "seconds") for way in ("exact", "Hutchinson")]
    if None not in fits:
        powers = [f"D^{fit}" for fit in fits if fit is not None]
        parts.append(
            f"from D = {LARGE} on the operations of the exact trace grow like {powers[0]} and those of Hutchinson's "
            f"estimator like {powers[1]}, their times like {powers[2]} and {powers[3]} (95 % intervals)"
        )
    if (between := bracket(cells, "exact", "Hutchinson")) is not None:
        below = "" if between.last is None else f"; up to D = {between.last:g} their quartiles overlap or it is quicker"
        parts.append(f"the exact trace takes longer than the estimator from D = {between.first:g} on{below}")
    if closed := _of_closed_form(cells):
        parts.append(closed)
    if best := _least_spread(cells):
        parts.append(best)
    return sentence(parts)


def _of_closed_form(cells: pd.DataFrame) -> str:
    """What the closed form takes beside the estimator: the quadratic cost is that of generic differentiation."""
    chosen = cells[(cells["axis"] == "dimension") & (cells["pass"] == BOTH) & (cells["status"] == "ok")]
    times = chosen.pivot_table(index="value", columns="way", values="seconds", aggfunc="first").sort_index()
    times = times.reindex(columns=["closed form", "Hutchinson"]).dropna()
    if times.empty:
        return ""
    dim = times.index[-1]
    closed, estimated = (f"{1e3 * times.loc[dim, way]:.3g} ms" for way in ("closed form", "Hutchinson"))
    return (
        f"at D = {dim:g} the closed form, which this field has, takes {closed} and the estimator {estimated}: the "
        "quadratic cost is that of generic differentiation"
    )


def _fit(cells: pd.DataFrame, way: str, column: str) -> Fit | None:
    chosen = cells[(cells["axis"] == "dimension") & (cells["way"] == way) & (cells["pass"] == BOTH)]
    return growth(chosen[chosen["status"] == "ok"], column)


def _least_spread(cells: pd.DataFrame) -> str:
    """Which estimator is the least noisy for the most products measured, and from how many on it is less so."""
    noisy = cells[(cells["axis"] == "products") & (cells["noise"] == "gaussian")]
    if noisy.empty:
        return ""
    most = noisy[noisy["value"] == noisy["value"].max()].set_index("way")["spread"]
    best = str(most.idxmin())
    ratio = f"{most['Hutchinson'] / most[best]:.2g}"
    if best == "Hutchinson":
        return f"up to {noisy['value'].max()} products Hutchinson is the least noisy estimator"
    table = noisy.pivot_table(index="value", columns="way", values="spread", aggfunc="first").sort_index()
    gain = (table["Hutchinson"] / table[best]).dropna()
    since = next(value for value in gain.index if (gain[gain.index >= value] > 1).all())
    return (
        f"at D = {NOISY_DIMENSION} {best} is less noisy than Hutchinson from {since} products on, "
        f"{ratio} times less for {noisy['value'].max()}; FFJORD takes one product"
    )


def claims(cells: pd.DataFrame) -> Sequence[MeasuredClaim]:
    """FFJORD's claim on what the estimator saves."""
    statement = "The trace estimator brings the cost of a log-density from quadratic to linear in the dimension."
    judgement = linear_cost(first_machine(cells)) if len(cells) else NOT_CLEAN
    source = "FFJORD, Section 3.1 and the costs below it"
    return [MeasuredClaim("ffjord-linear-cost", statement, source, judgement, rule_of(linear_cost))]


def linear_cost(cells: pd.DataFrame) -> Judgement:
    """Reproduced if counted operations grow like D² and D within 0.1, and times no faster than that.

    Times at feasible dimensions may grow more slowly, since a large product uses a processor better than a small one.
    """
    fits = {way: [_fit(cells, way, column) for column in ("flops", "seconds")] for way in ("exact", "Hutchinson")}
    found = {way: pair for way, pair in fits.items() if None not in pair}
    if len(found) < 2:
        return NOT_ATTEMPTED
    (exact_flops, exact_time), (flops, time) = (fits[way] for way in ("exact", "Hutchinson"))
    assert exact_flops and exact_time and flops and time  # noqa: PT018 (told apart above)
    counted = abs(exact_flops.value - 2) <= 0.1 and abs(flops.value - 1) <= 0.1
    timed = time.value <= 1.1 and exact_time.value - time.value >= 0.7
    verdict = "reproduced" if counted and timed else "partly" if counted or timed else "not reproduced"
    text = f"operations ~ D^{exact_flops} exact, D^{flops} Hutchinson; time ~ D^{exact_time} exact, D^{time} Hutchinson"
    return Judgement(verdict, f"{text} (forward + backward, D ≥ {LARGE}, 95 % intervals)")
