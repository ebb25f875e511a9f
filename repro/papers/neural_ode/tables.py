"""How Table 1 of "Neural Ordinary Differential Equations" is laid out and drawn: the paper's numbers beside ours."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro import plotting
from repro.evaluation.statistics import binomial_interval, z_statistic
from repro.papers.neural_ode.claims import COST, TABLE1
from repro.published import Published, load_published
from repro.results import curve, final_values, outcomes, results_root

TEST_IMAGES = 10_000
"""Of MNIST; the paper's errors are rates on them."""

NETWORKS = {
    "mlp": "1-layer MLP",
    "resnet": "ResNet (6 blocks)",
    "rknet": "RK-Net (backprop)",
    "odenet": "ODE-Net (adjoint)",
    "one_block": "one residual block (ablation)",
    "no_block": "no block (ablation)",
}

COSTS = ("kept for backward", "training step")
"""Rows of Table 1 that another artefact measures."""

VARIANTS = {
    "odenet_adjoint_seminorm": "ODE-Net (adjoint, seminorm)",
    "odenet_checkpoint": "ODE-Net (checkpoint)",
}
"""Rows of the table of costs alone."""


def table1(rows: pd.DataFrame) -> pd.DataFrame:
    """Tabulate Table 1 with the ablations; errors with Wilson's 95 % interval on the test images.

    A network without a run at the level has no line, and an empty column is left out: what of the paper was not run is
    in the table of comparison, with the verdicts. The cost of a step is measured with the reference engine, and not in
    every tier.

    Args:
        rows: the runs of one level.
    """
    published, compiled = _published(), _by_compiled_engine(rows)
    names = {cell: f"{name}, compiled engine" if cell in compiled else name for cell, name in NETWORKS.items()}
    here = set(rows.loc[rows["experiment"].isin((TABLE1, COST)), "cell"].str.removesuffix("_public"))
    lines = [_line(rows, published, cell, name) for cell, name in names.items() if cell in here]
    table = pd.DataFrame(lines, columns=None if lines else ["network"])
    table.loc[table["network"].isin([names[cell] for cell in compiled]), list(COSTS)] = "-"
    return table.loc[:, ~table.isin(["-", "not run"]).all()]


def _by_compiled_engine(rows: pd.DataFrame) -> set[str]:
    """Collect the networks whose runs took their steps by the compiled engine."""
    ours = rows[rows["experiment"] == TABLE1]
    return set(ours.loc[(ours["source_cell"] != ours["cell"]) & ours["source_cell"].str.contains("_compiled"), "cell"])


def _published() -> dict[tuple[str, str], Published]:
    """Table 1's numbers as printed, by cell and metric."""
    numbers = load_published(results_root() / "published.csv")
    return {(number.cell, number.metric): number for number in numbers if number.experiment == TABLE1}


def _line(rows: pd.DataFrame, published: dict[tuple[str, str], Published], cell: str, name: str) -> dict[str, str]:
    error, size = published.get((cell, "test_error")), published.get((cell, "parameters"))
    return {
        "network": name,
        "error, paper": f"{error.printed} %" if error else "-",
        "error, ours": _error(rows, cell),
        "error, public protocol": _error(rows, f"{cell}_public"),
        "standard errors from the ResNet, paper": _distance(_published_errors(published, cell, "resnet")),
        "standard errors from the ResNet, ours": _distance(_our_errors(rows, cell, "resnet")),
        "error at a tenth of the tolerance": _format(rows, TABLE1, cell, "test_error_tight", "{:.2f} %"),
        "parameters, paper": f"{size.printed} M" if size else "-",
        "parameters, ours": _format(rows, TABLE1, cell, "parameters", "{:,.0f}"),
        "memory, paper": _order(published.get((cell, "memory"))),
        COSTS[0]: _format(rows, COST, cell, "saved_bytes", "{:.1f} MiB", 2**-20),
        "time, paper": _order(published.get((cell, "time"))),
        COSTS[1]: _format(rows, COST, cell, "step_time", "{:.0f} ms", 1e3),
        "NFE forward / backward, last epoch": _evaluations(rows, cell),
        "share of the public budget": _format(rows, TABLE1, cell, "budget_share", "{:.1%}"),
        "runs": outcomes(rows[(rows["experiment"] == TABLE1) & (rows["cell"] == cell)]) or "not run",
    }


def table1_cost(rows: pd.DataFrame) -> pd.DataFrame:
    """What one training step costs, at initialisation and on random images; one machine a line.

    Args:
        rows: the runs of one tier.
    """
    cells = rows.loc[
        (rows["experiment"] == COST) & ~rows["cell"].str.startswith("depth_"), ["cell", "machine", "threads"]
    ]
    lines = []
    for cell, machine, threads in cells.drop_duplicates().itertuples(index=False):
        here = rows[(rows["machine"] == machine) & (rows["threads"] == threads)]
        evaluated = bool(final_values(here, COST, cell, "nfe_forward"))
        spread = [_format(here, COST, cell, f"step_time{end}", "{:.0f}", 1e3) for end in ("_low", "_high")]
        lines.append(
            {
                "network": (NETWORKS | VARIANTS)[cell],
                "training step": _format(here, COST, cell, "step_time", "{:.0f} ms", 1e3)
                + f" [{spread[0]}, {spread[1]}]",
                "NFE forward": _format(here, COST, cell, "nfe_forward", "{:.0f}", missing="-"),
                "NFE backward": _format(
                    here, COST, cell, "nfe_backward", "{:.0f}", missing="n/a" if evaluated else "-"
                ),
                "kept by autograd": _format(here, COST, cell, "saved_bytes", "{:.1f} MiB", 2**-20),
                "peak over baseline": _format(here, COST, cell, "peak_step_memory", "{:.0f} MiB", 2**-20),
                "machine": f"{machine}, {threads} threads",
            }
        )
    return pd.DataFrame(lines)


def _published_errors(published: dict[tuple[str, str], Published], *cells: str) -> list[tuple[int, int]]:
    """The paper's errors in percent as counts on the 10,000 test images."""
    numbers = [published.get((cell, "test_error")) for cell in cells]
    return [(round(n.value / 100 * TEST_IMAGES), TEST_IMAGES) for n in numbers if n is not None and n.value is not None]


def _our_errors(rows: pd.DataFrame, *cells: str) -> list[tuple[int, int]]:
    found = [_counts(rows, cell) for cell in cells]
    return [(round(counts[0]), counts[1]) for counts in found if counts is not None]


def _distance(pair: list[tuple[int, int]]) -> str:
    """How many standard errors of the difference two counts lie apart; within about two they can't be ranked."""
    if len(pair) < 2 or pair[0][1] != pair[1][1]:
        return "-"
    return f"{z_statistic(pair[0][0], pair[1][0], pair[0][1]):+.1f}"


def _error(rows: pd.DataFrame, cell: str) -> str:
    counts = _counts(rows, cell)
    if counts is None:
        return "not run"
    errors, n = counts
    low, high = binomial_interval(round(errors), n)
    values = final_values(rows, TABLE1, cell, "test_error")
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    seeds = f"{len(values)} seed{'s' if len(values) > 1 else ''}"
    return f"{100 * errors / n:.2f}{spread} % [{100 * low:.2f}, {100 * high:.2f}], {seeds}"


def _order(published: Published | None) -> str:
    return published.note.split(";")[0] if published else "-"


def _format(
    rows: pd.DataFrame, experiment: str, cell: str, metric: str, text: str, scale: float = 1.0, missing: str = "not run"
) -> str:
    values = final_values(rows, experiment, cell, metric)
    if values:
        return text.format(scale * float(np.mean(values)))
    return "-" if missing == "not run" and final_values(rows, experiment, cell, "parameters") else missing


def _evaluations(rows: pd.DataFrame, cell: str) -> str:
    table = curve(rows, TABLE1, cell)
    if "nfe_forward" not in table.columns:
        return "-"
    backward = f"{table['nfe_backward'].iloc[-1]:.1f}" if "nfe_backward" in table.columns else "n/a"
    return f"{table['nfe_forward'].iloc[-1]:.1f} / {backward}"


def draw_errors(rows: pd.DataFrame) -> Figure:
    """Test errors, ours by both protocols and the paper's, all with the 95 % interval of 10,000 test images."""
    published, tier = _published(), str(rows["tier"].iloc[0])
    paper = {cell: next(iter(_published_errors(published, cell)), None) for cell in NETWORKS}
    clean, public = ({cell: _counts(rows, cell + suffix) for cell in NETWORKS} for suffix in ("", "_public"))
    figure, (axis,) = plotting.new_figure(1, 1, panel=(1.6 * plotting.COLUMN_WIDTH, 2.8))
    _draw_points(axis, paper, -0.2, color="0.35", marker="D", label="paper")
    _draw_points(
        axis, clean, 0.0, color=plotting.PALETTE[0], marker="o", label=f"ours ({tier}), selected on validation"
    )
    _draw_points(axis, public, 0.2, color=plotting.PALETTE[1], marker="s", label=f"ours ({tier}), best test epoch")
    axis.set_yticks(range(len(NETWORKS)), list(NETWORKS.values()))
    axis.set_ylim(len(NETWORKS) - 0.5, -0.5)
    axis.set_xscale("log")
    plotting.plain_log_ticks(axis, "x")
    axis.set(xlabel="test error / %, with the 95 % interval of 10,000 images")
    figure.legend(fontsize=6.5, loc="outside upper center", ncols=3, columnspacing=1.0, handletextpad=0.3)
    return figure


def _draw_points(
    axis: Axes,
    counts: Mapping[str, tuple[float | int, int] | None],
    shift: float,
    *,
    color: str,
    marker: str,
    label: str,
) -> None:
    found = [(place + shift, c) for place, cell in enumerate(NETWORKS) if (c := counts.get(cell)) is not None]
    if not found:
        return
    rates = np.array([100 * errors / n for _, (errors, n) in found])
    bounds = np.array([binomial_interval(round(errors), n) for _, (errors, n) in found]).T
    places = [place for place, _ in found]
    style: dict[str, Any] = {"fmt": marker, "color": color, "markersize": 4, "linewidth": 1.0}
    axis.errorbar(rates, places, xerr=np.abs(100 * bounds - rates), label=label, **style)


def _counts(rows: pd.DataFrame, cell: str) -> tuple[float, int] | None:
    errors = final_values(rows, TABLE1, cell, "test_errors")
    images = final_values(rows, TABLE1, cell, "test_images")
    return (float(np.mean(errors)), round(images[0])) if errors else None
