"""FFJORD's tabular densities as tables: Table 2 with ours in it, and what each of our runs gave and cost."""

import pandas as pd

from repro.papers.ffjord.tabular_claims import SETS, TABLE2, published_nlls, strongest_cells
from repro.papers.ffjord.tabular_pictures import MODELS
from repro.results import final_values, largest_text, mean_text, outcomes

OTHERS = {
    **{name: (name, "FFJORD") for name in SETS if name != "power"},
    "miniboone_partial": ("miniboone_partial", "FFJORD"),
    "bsds300_patches": ("bsds300", "FFJORD cut down, on other patches: compare loosely"),
}
"""Cells on other data -> whose published numbers stand beside theirs, and what was trained."""


def methods_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Test NLL by method and data set; nats, lower is better. Ours first, the others as printed.

    Ours are those of the largest budget with enough seeds, or of the largest budget.

    Args:
        rows: the runs of one level.
    """
    published = {name: published_nlls(name) for name in SETS}
    methods = dict.fromkeys(method for numbers in published.values() for method in numbers)
    cells = strongest_cells(rows, SETS)
    tier = rows["tier"].iloc[0]
    ours = {name: mean_text(rows, TABLE2, cell, "test_nll", 2) for name, cell in cells.items()}
    ran = set(rows.loc[rows["experiment"] == TABLE2, "cell"])
    warm = "power_fm_long_warm" if "power_fm_long_warm" in ran else "power_fm_warm"
    after = mean_text(rows, TABLE2, warm, "test_nll", 2)
    printed = [
        {"method": method}
        | {name: numbers[method].with_spread for name, numbers in published.items() if method in numbers}
        for method in methods
    ]
    lines = [
        {"method": f"FFJORD, ours ({tier})", **ours},
        {"method": f"one CNF, likelihood after flow matching, ours ({tier})", "power": after},
        *printed,
    ]
    return pd.DataFrame(lines, columns=["method", *SETS]).fillna("-")


def tabular_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Test NLL and cost of every cell that was run; nats, lower is better.

    Args:
        rows: the runs of one tier.
    """
    cells = [*MODELS, *OTHERS]
    run = set(rows.loc[rows["experiment"] == TABLE2, "cell"])
    return pd.DataFrame([_line(rows, cell) for cell in cells if cell in run])


def _line(rows: pd.DataFrame, cell: str) -> dict[str, str]:
    beside, model = OTHERS[cell] if cell in OTHERS else ("power", MODELS[cell])
    nll, gaussian = (final_values(rows, TABLE2, cell, metric) for metric in ("test_nll", "gaussian_nll"))
    early = "; not trained out, a Gaussian does better" if nll and gaussian and min(nll) > max(gaussian) else ""
    published = published_nlls(beside)
    printed = {method: published[method].printed if method in published else "-" for method in ("FFJORD", "MAF")}
    return {
        "data and model": f"{cell if cell in OTHERS else 'power'}, {model}{early}",
        "test NLL": mean_text(rows, TABLE2, cell, "test_nll", 3),
        "standard error over test rows": mean_text(rows, TABLE2, cell, "test_nll_error", 3),
        "FFJORD, paper": printed["FFJORD"],
        "MAF, paper": printed["MAF"],
        "one Gaussian": mean_text(rows, TABLE2, cell, "gaussian_nll", 2),
        "NLL of the first test rows": mean_text(rows, TABLE2, cell, "tolerance_nll", 4),
        "the same in float64 at a tenth of the tolerance": mean_text(rows, TABLE2, cell, "tolerance_nll_tight", 4),
        "NFE, test": mean_text(rows, TABLE2, cell, "nfe_test", 0),
        "largest error there and back": largest_text(rows, TABLE2, cell, "reversibility_error"),
        "variance by the probes": largest_text(rows, TABLE2, cell, "probe_variance"),
        "parameters": mean_text(rows, TABLE2, cell, "parameters", 0),
        "updates": mean_text(rows, TABLE2, cell, "steps", 0),
        "epochs": mean_text(rows, TABLE2, cell, "epochs", 1),
        "training / min, beside other work": _minutes(rows, cell),
        "an update / s, beside other work": _update(rows, cell),
        "runs": outcomes(rows[(rows["experiment"] == TABLE2) & (rows["cell"] == cell)]),
    }


def _minutes(rows: pd.DataFrame, cell: str) -> str:
    seconds = final_values(rows, TABLE2, cell, "wall_time")
    return f"{sum(seconds) / len(seconds) / 60:.0f}" if seconds else "-"


def _update(rows: pd.DataFrame, cell: str) -> str:
    seconds, steps = (final_values(rows, TABLE2, cell, metric) for metric in ("wall_time", "steps"))
    return f"{sum(seconds) / sum(steps):.2g}" if seconds and sum(steps) else "-"
