"""How Table 1 of "Neural Ordinary Differential Equations" is laid out and drawn: the paper's numbers beside ours."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro import plotting
from repro.papers.neural_ode.claims import COST, TABLE1, TEST_IMAGES
from repro.published import Published, load_published
from repro.results import final_values, results_root
from repro.verdicts import binomial_interval, indistinguishable, verdict

NETWORKS = {
    "mlp": "1-layer MLP",
    "resnet": "ResNet (6 blocks)",
    "rknet": "RK-Net (backprop)",
    "odenet": "ODE-Net (adjoint)",
    "one_block": "one residual block (ablation)",
    "no_block": "no block (ablation)",
}


def table1(rows: pd.DataFrame) -> pd.DataFrame:
    """Table 1 with the ablations; errors with Wilson's 95 % interval on the 10,000 test images.

    Args:
        rows: the runs of one tier.
    """
    tier = str(rows["tier"].iloc[0])
    published = {
        (p.cell, p.metric): p for p in load_published(results_root() / "published.csv") if p.experiment == TABLE1
    }
    return pd.DataFrame([_line(rows, published, cell, name, tier) for cell, name in NETWORKS.items()])


def _line(
    rows: pd.DataFrame, published: dict[tuple[str, str], Published], cell: str, name: str, tier: str
) -> dict[str, str]:
    error, size = published.get((cell, "test_error")), published.get((cell, "parameters"))
    ours = final_values(rows, TABLE1, cell, "test_error")
    return {
        "network": name,
        "error, paper": f"{error.printed} %" if error else "-",
        "error, ours": _error(rows, cell),
        "error, public protocol": _error(rows, f"{cell}_public"),
        "standard errors from the ResNet, paper": _distance(
            _published_errors(published, cell), _published_errors(published, "resnet")
        ),
        "standard errors from the ResNet, ours": _distance(_our_errors(rows, cell), _our_errors(rows, "resnet")),
        "verdict": verdict(error, ours, tier=tier, our_sd=_binomial_sd(ours)).status if error else "-",
        "parameters, paper": f"{size.printed} M" if size else "-",
        "parameters, ours": _format(final_values(rows, TABLE1, cell, "parameters"), "{:,.0f}", 1.0),
        "memory, paper": _order(published.get((cell, "memory"))),
        "kept for backward": _format(final_values(rows, COST, cell, "saved_bytes"), "{:.1f} MiB", 2**-20),
        "time, paper": _order(published.get((cell, "time"))),
        "training step": _format(final_values(rows, COST, cell, "step_time"), "{:.0f} ms", 1e3),
        "NFE forward / backward": _evaluations(rows, cell),
        "epochs, share of public budget": _format(final_values(rows, TABLE1, cell, "budget_share"), "{:.1%}", 1.0),
    }


def _published_errors(published: dict[tuple[str, str], Published], cell: str) -> int | None:
    """The paper's error in percent as a count on the 10,000 test images."""
    number = published.get((cell, "test_error"))
    return None if number is None or number.value is None else round(number.value / 100 * TEST_IMAGES)


def _our_errors(rows: pd.DataFrame, cell: str) -> int | None:
    counts = _counts(rows, cell)
    return round(counts[0]) if counts is not None and counts[1] == TEST_IMAGES else None


def _distance(errors: int | None, baseline: int | None) -> str:
    """How many standard errors of the difference two counts lie apart; within about two they can't be ranked."""
    return "-" if errors is None or baseline is None else f"{indistinguishable(errors, baseline, TEST_IMAGES):+.1f}"


def _error(rows: pd.DataFrame, cell: str) -> str:
    counts = _counts(rows, cell)
    if counts is None:
        return "not run"
    errors, n = counts
    low, high = binomial_interval(round(errors), n)
    seeds = len(final_values(rows, TABLE1, cell, "test_errors"))
    return f"{100 * errors / n:.2f} % [{100 * low:.2f}, {100 * high:.2f}], {seeds} seed{'s' if seeds > 1 else ''}"


def _binomial_sd(errors_percent: list[float]) -> float | None:
    """Standard deviation of one run's error in percent that the finite test set alone brings."""
    if len(errors_percent) != 1:
        return None
    rate = errors_percent[0] / 100
    return float(100 * np.sqrt(rate * (1 - rate) / TEST_IMAGES))


def _order(published: Published | None) -> str:
    return published.note.split(";")[0] if published else "-"


def _format(values: list[float], text: str, scale: float) -> str:
    return text.format(scale * float(np.mean(values))) if values else "not run"


def _evaluations(rows: pd.DataFrame, cell: str) -> str:
    forward, backward = (final_values(rows, COST, cell, f"nfe_{way}") for way in ("forward", "backward"))
    if not forward:
        return "-"
    return f"{forward[0]:.0f} / {f'{backward[0]:.0f}' if backward else 'n/a'}"


def draw_errors(rows: pd.DataFrame) -> Figure:
    """Test errors, ours by both protocols and the paper's, all with the 95 % interval of 10,000 test images."""
    published = {p.cell: p.value for p in load_published(results_root() / "published.csv") if p.metric == "test_error"}
    tier = str(rows["tier"].iloc[0])
    paper = {cell: (error / 100 * TEST_IMAGES, TEST_IMAGES) for cell, error in published.items() if error is not None}
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
    axis: Axes, counts: Mapping[str, tuple[float, int] | None], shift: float, *, color: str, marker: str, label: str
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
