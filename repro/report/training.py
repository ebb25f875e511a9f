"""Whole trainings by both engines: the time each took, and what it ended with."""

from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from repro.evaluation.statistics import mean_source, welch_interval
from repro.report.benchmarks import entries, first_machine, sentence

REFERENCE, FAST = "torchdiffeq", "compiled"
KNOWN = ("training", "engine", "gradient", "seed", "updates", "total_seconds", "outcome", "outcome_error", "unit",
         "nfe_forward", "nfe_backward")  # fmt: skip


def load_trainings(folder: Path) -> pd.DataFrame:
    """Read results/benchmarks/: a line for each training.

    Columns: machine, training, engine, gradient, seed, updates, total_seconds, outcome with outcome_error and unit,
    nfe_forward, nfe_backward (means over updates). A training that failed is left out.
    """
    found = [
        {"machine": machine, **{key: benchmark["extra_info"][key] for key in KNOWN}}
        for machine, benchmark in entries(folder, "training")
        if benchmark["extra_info"].get("status", "ok") == "ok"
    ]
    return pd.DataFrame(found, columns=pd.Index(("machine", *KNOWN)))


def trainings(lines: pd.DataFrame) -> pd.DataFrame:
    """One line for each work and engine: mean over seeds, the speed-up over torchdiffeq's adjoint in the same run."""
    return pd.DataFrame([_line(group, lines) for _, group in _groups(lines)])


def _groups(lines: pd.DataFrame) -> Any:  # noqa: ANN401 (pandas' groupby)
    return lines.groupby(["machine", "training", "engine"], sort=False)


def _line(group: pd.DataFrame, lines: pd.DataFrame) -> dict[str, str]:
    first = group.iloc[0]
    other = lines[(lines["machine"] == first["machine"]) & (lines["training"] == first["training"])]
    reference = other[other["engine"] == REFERENCE]["total_seconds"].mean()
    return {
        "machine": str(first["machine"]),
        "training": str(first["training"]),
        "engine": str(first["engine"]),
        "gradient": str(first["gradient"]),
        "seeds": str(len(group)),
        "updates": f"{first['updates']:,}",
        "time": f"{group['total_seconds'].mean():.3g} s",
        "times as fast": f"{reference / group['total_seconds'].mean():.2f}",
        "ends with": _ending(group),
        "NFE forward / backward": f"{group['nfe_forward'].mean():.1f} / {group['nfe_backward'].mean():.1f}",
    }


def _ending(group: pd.DataFrame) -> str:
    """The outcome: over seeds with their deviation, of one seed with its standard error over the test set."""
    values, unit = group["outcome"].tolist(), group["unit"].iloc[0]
    spread = stdev(values) if len(values) > 1 else float(group["outcome_error"].iloc[0])
    return f"{fmean(values):.3f} ± {spread:.2g} {unit}"


def _difference(fast: pd.DataFrame, slow: pd.DataFrame) -> str:
    """Mean over the seeds that both have, with 95 % intervals, and whether they tell the two ends apart.

    Of several seeds there are two intervals, paired by seed and of independent seeds (Welch): of few seeds one of them
    may exclude zero by chance, so that both must. Of one seed the interval is that over the test set, which says
    nothing of other seeds.
    """
    paired = fast.merge(slow, on="seed", suffixes=("_fast", "_slow"))
    if paired.empty:
        return "that no common seed tells"
    ends = [paired[f"outcome_{which}"].tolist() for which in ("fast", "slow")]
    values = [a - b for a, b in zip(*ends, strict=True)]
    if len(values) == 1:
        half = 1.96 * float((paired["outcome_error_fast"] ** 2 + paired["outcome_error_slow"] ** 2).iloc[0] ** 0.5)
        interval = f"[{values[0] - half:.2g}, {values[0] + half:.2g}]"
        return f"of {values[0]:.2g} {interval} (95 % interval over the test set): one seed cannot tell"
    both = [welch_interval(fmean(values), *sources) for sources in ([mean_source(values)], map(mean_source, ends))]
    words = " and ".join(
        f"[{one.low:.2g}, {one.high:.2g}] {how}"
        for one, how in zip(both, ("paired by seed", "by independent seeds"), strict=True)
    )
    apart = all(one.high < 0 for one in both) or all(one.low > 0 for one in both)
    reading = "the ends differ" if apart else "this test cannot tell"
    return f"of {fmean(values):.2g} (95 % intervals {words}, over {len(values)} seeds): {reading}"


def finding(lines: pd.DataFrame) -> str:
    """Time saved and what was ended with, for each work."""
    own = first_machine(lines)
    parts = []
    for name, group in own.groupby("training", sort=False):
        slow, fast = (group[group["engine"] == engine] for engine in (REFERENCE, FAST))
        if slow.empty or fast.empty:
            continue
        times = [part["total_seconds"].mean() for part in (slow, fast)]
        parts.append(
            f"{name} takes {times[1]:.3g} s by the compiled engine and {fast['gradient'].iloc[0]} instead of "
            f"{times[0]:.3g} s by torchdiffeq and {slow['gradient'].iloc[0]} "
            f"({times[0] / times[1]:.1f} times as fast) and ends with {_ending(fast)} instead of {_ending(slow)}, "
            f"a difference {_difference(fast, slow)}"
        )
    return sentence(parts)
