"""FFJORD's tabular densities as a figure."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro import plotting
from repro.papers.ffjord.tabular_claims import TABLE2, published_nlls
from repro.results import curve, final_values

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


def draw_power(rows: pd.DataFrame) -> Figure | None:
    """Validation NLL on POWER by updates and by hours, beside published test NLLs; what an update costs.

    The runs shared their machines with more or less other work, so that hours and seconds are those that they took, not
    those that they need; a warm start's hours are included. Runs that kept no clock have their hours spread by the
    evaluations, and no line among the seconds.
    """
    curves = {cell: table for cell in MODELS if "validation_nll" in (table := curve(rows, TABLE2, cell))}
    if not curves:
        return None
    clocked = rows[rows["run"].isin(rows.loc[rows["metric"] == "update_time", "run"])]
    figure, axes = plotting.new_figure(2, 2, panel=(4.2, 2.7))
    by_updates, by_hours, evaluations, seconds = axes
    for index, (cell, table) in enumerate(curves.items()):
        again, colour = divmod(index, len(plotting.PALETTE))
        before = _hours(rows, STARTS_FROM[cell]) if cell in STARTS_FROM else 0.0
        style = {"color": plotting.PALETTE[colour], "label": MODELS[cell], "linewidth": 2.2 if again else 1.2}
        style["linestyle"] = "--" if cell in STARTS_FROM else "-"  # whose updates come after another training's
        validations = table["validation_nll"].dropna()
        by_updates.plot(validations.index, validations, **style)
        by_hours.plot(before + _hours_of_curve(rows, cell, table).loc[validations.index], validations, **style)
        for axis, metric, measured in (
            (evaluations, "nfe_forward", table),
            (seconds, "update_time", curve(clocked, TABLE2, cell)),
        ):
            if metric in measured:
                found = measured[metric].dropna()
                axis.plot(found.index, found, **style)
    for axis in (by_updates, by_hours):
        _published_lines(axis)
    by_updates.set(xlabel="updates (dashed: after those of flow matching)", ylabel="NLL / nats")
    by_hours.set(xlabel="hours as run, beside other work: no race", ylabel="NLL / nats")
    by_hours.ticklabel_format(axis="x", style="plain")  # the smoke tier's hours had a power of ten across the label
    evaluations.set(xlabel="updates", ylabel="forward evaluations of an update")
    seconds.set(xlabel="updates of the runs that kept a clock", ylabel="an update / s, beside other work")
    seconds.set_yscale("log")
    for axis in (by_updates, evaluations, seconds):
        axis.set_xscale("log")
        plotting.plain_log_ticks(axis, "x", roomy_up_to=100.0)
    plotting.plain_log_ticks(seconds, "y")
    _limit_nll((by_updates, by_hours), curves)
    plotting.panel_titles(axes, ["likelihood by updates", "by time", "evaluations", "time of an update"])
    figure.legend(*by_updates.get_legend_handles_labels(), fontsize=6.5, loc="outside upper center", ncols=4)
    return figure


def _limit_nll(axes: Sequence[Axes], curves: Mapping[str, pd.DataFrame]) -> None:
    """Leave out how badly trainings begin, but show every one's end, and the published numbers."""
    ends = [float(table["validation_nll"].dropna().iloc[-1]) for table in curves.values()]
    lowest = min(float(table["validation_nll"].min()) for table in curves.values())
    published = [number.value for number in published_nlls("power").values() if number.value is not None]
    for axis in axes:
        axis.set_ylim(min([lowest, *published]) - 0.1, max(1.0, *(end + 0.2 for end in ends)))


def _hours_of_curve(rows: pd.DataFrame, cell: str, table: pd.DataFrame) -> pd.Series:
    """When each point of a cell's curve was reached: as its clock said, or by its evaluations where there was none."""
    if "elapsed" in table:
        return table["elapsed"] / 3600
    return shares_of_time(table) * _hours(rows, cell)


def shares_of_time(table: pd.DataFrame) -> pd.Series:
    """Which share of a training's time was over at each step of its curve, by the evaluations of the updates before.

    Args:
        table: a cell's curves, see `repro.results.curve`; without evaluations every update counts the same.
    """
    steps = table.index.to_series().astype(float)
    spent = table.reindex(columns=["nfe_forward", "nfe_backward"]).sum(axis=1, min_count=1)
    total = (spent.bfill().ffill().fillna(1.0) * steps.diff().fillna(steps)).cumsum()
    return total / total.iloc[-1]


def _hours(rows: pd.DataFrame, cell: str) -> float:
    """Hours of training of a cell's first seed; 0 where it was not run."""
    return next(iter(final_values(rows, TABLE2, cell, "wall_time")), 0.0) / 3600


def _published_lines(axis: Axes) -> None:
    numbers = published_nlls("power")
    for (method, label), style in zip(LINES.items(), ("--", ":", "-."), strict=True):
        if method in numbers and (value := numbers[method].value) is not None:
            axis.axhline(value, color="0.35", linestyle=style, linewidth=0.9, label=label)
