"""FFJORD's tabular densities as a figure and as a table."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro import plotting
from repro.papers.ffjord.tabular_claims import SETS, TABLE2, published_nlls
from repro.results import curve, final_values, largest_text, mean_text, outcomes

LINES = {"FFJORD": "FFJORD, paper", "MAF": "MAF, paper", "RQ-NSF (AR)": "RQ-NSF (AR), NSF paper"}
"""Method in published.csv -> label of its line."""
MODELS = {
    "power": "FFJORD",
    "power_concat": "FFJORD, concat",
    "power_exact": "FFJORD, exact trace",
    "power_long": "FFJORD, more updates",
    "power_rnode": "FFJORD, RNODE's penalties",
    "power_steer": "FFJORD, STEER's end times",
    "power_fm": "one CNF, flow matching",
    "power_fm_warm": "likelihood after flow matching",
    "power_fm_long": "one CNF, flow matching, more updates",
    "power_fm_long_warm": "likelihood after flow matching, more updates",
}
"""Cells on POWER -> what was trained."""
STARTS_FROM = {"power_fm_warm": "power_fm", "power_fm_long_warm": "power_fm_long"}
"""Cells that go on from another one's weights, whose hours come before theirs."""
OTHERS = {
    **{name: (name, "FFJORD") for name in SETS if name != "power"},
    "miniboone_partial": ("miniboone_partial", "FFJORD"),
    "bsds300_patches": ("bsds300", "FFJORD cut down, on other patches: compare loosely"),
}
"""Cells on other data -> whose published numbers stand beside theirs, and what was trained."""


def draw_power(rows: pd.DataFrame) -> Figure | None:
    """Validation NLL on POWER against updates and against hours of training, beside published test NLLs.

    The runs shared their machine with more or less other work, so that hours are those that they took, not those that
    they need; a warm start's are included.
    """
    curves = {cell: table for cell in MODELS if not (table := _validations(rows, cell)).empty}
    if not curves:
        return None
    figure, (left, right) = plotting.new_figure(1, 2)
    for index, (cell, table) in enumerate(curves.items()):
        again, colour = divmod(index, len(plotting.PALETTE))
        before = _hours(rows, STARTS_FROM[cell]) if cell in STARTS_FROM else 0.0
        share = table.index.to_numpy(float) / float(table.index.max())
        style = {"color": plotting.PALETTE[colour], "label": MODELS[cell], "linewidth": 2.2 if again else 1.2}
        style["linestyle"] = "--" if cell in STARTS_FROM else "-"  # whose updates come after another training's
        left.plot(table.index, table, **style)
        right.plot(before + share * _hours(rows, cell), table, **style)
    labels = "updates (dashed: after those of flow matching)", "hours as run, beside other work: no race"
    for axis, label in zip((left, right), labels, strict=True):
        _published_lines(axis)
        axis.set(xlabel=label, ylabel="NLL / nats")
    left.set_xscale("log")
    plotting.plain_log_ticks(left, "x", roomy_up_to=100.0)
    lowest = min(float(table.min()) for table in curves.values())
    published = [number.value for number in published_nlls("power").values() if number.value is not None]
    top = max(*(float(table.iloc[-1]) + 0.2 for table in curves.values()), 1.0)  # every curve's end is seen
    for axis in (left, right):
        axis.set_ylim(min([lowest, *published]) - 0.1, top)
    plotting.panel_titles([left, right], ["updates", "time"])
    figure.legend(*left.get_legend_handles_labels(), fontsize=6.5, loc="outside upper center", ncols=3)
    return figure


def _hours(rows: pd.DataFrame, cell: str) -> float:
    """Hours of training of a cell's first seed; 0 where it was not run."""
    return next(iter(final_values(rows, TABLE2, cell, "wall_time")), 0.0) / 3600


def _validations(rows: pd.DataFrame, cell: str) -> pd.Series:
    table = curve(rows, TABLE2, cell)
    return table["validation_nll"].dropna() if "validation_nll" in table else pd.Series(dtype=float)


def _published_lines(axis: Axes) -> None:
    numbers = published_nlls("power")
    for (method, label), style in zip(LINES.items(), ("--", ":", "-."), strict=True):
        if method in numbers and (value := numbers[method].value) is not None:
            axis.axhline(value, color="0.35", linestyle=style, linewidth=0.9, label=label)


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
    published = published_nlls(beside)
    printed = {method: published[method].printed if method in published else "-" for method in ("FFJORD", "MAF")}
    return {
        "data and model": f"{cell if cell in OTHERS else 'power'}, {model}",
        "test NLL": mean_text(rows, TABLE2, cell, "test_nll", 3),
        "standard error over test rows": mean_text(rows, TABLE2, cell, "test_nll_error", 3),
        "FFJORD, paper": printed["FFJORD"],
        "MAF, paper": printed["MAF"],
        "one Gaussian": mean_text(rows, TABLE2, cell, "gaussian_nll", 2),
        "some test rows": mean_text(rows, TABLE2, cell, "tolerance_nll", 4),
        "the same in float64 at a tenth of the tolerance": mean_text(rows, TABLE2, cell, "tolerance_nll_tight", 4),
        "NFE, test": mean_text(rows, TABLE2, cell, "nfe_test", 0),
        "largest error there and back": largest_text(rows, TABLE2, cell, "reversibility_error"),
        "variance by the probes": largest_text(rows, TABLE2, cell, "probe_variance"),
        "parameters": mean_text(rows, TABLE2, cell, "parameters", 0),
        "updates": mean_text(rows, TABLE2, cell, "steps", 0),
        "epochs": mean_text(rows, TABLE2, cell, "epochs", 1),
        "training / min": _minutes(rows, cell),
        "runs": outcomes(rows[(rows["experiment"] == TABLE2) & (rows["cell"] == cell)]),
    }


def _minutes(rows: pd.DataFrame, cell: str) -> str:
    seconds = final_values(rows, TABLE2, cell, "wall_time")
    return f"{sum(seconds) / len(seconds) / 60:.0f}" if seconds else "-"
