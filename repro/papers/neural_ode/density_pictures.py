"""How Figures 4 and 5 of "Neural Ordinary Differential Equations" are drawn and tabulated."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repro import panels, pixels, plotting
from repro.animation import Animation
from repro.arrays import load_arrays
from repro.data import DENSITIES, ENERGIES
from repro.papers.neural_ode.density_claims import ENERGIES as NAMES
from repro.papers.neural_ode.density_claims import FIG4, FIG5, SIZES
from repro.results import curve, final_values, largest_text, mean_text, outcomes

KINDS = {"nf": "NF", "cnf": "CNF"}
SNAPSHOT_TITLES = ("5 %", "20 %", "40 %", "60 %", "80 %", "100 %", "target")
DATA = {"circles": "circles_node", "moons": "moons_node"}


def draw_fig4(rows: pd.DataFrame) -> Figure | None:
    """Targets, planar NFs with K layers, planar CNFs with M units, and the KL divergence against K or M.

    Each panel has a colour scale of its own.
    """
    cells = {name: [f"{name}_{kind}_{size}" for kind in KINDS for size in SIZES] for name in NAMES}
    found = {name: [load_arrays(rows, FIG4, cell) for cell in cells[name]] for name in NAMES}
    shown = [name for name in NAMES if found[name][-1] is not None]  # the largest CNF brings its target along
    if not shown:
        return None
    titles = ["target", *(f"{label}, {letter} = {n}" for label, letter in (("NF", "K"), ("CNF", "M")) for n in SIZES)]
    figure, axes = panels.grid_figure(len(shown), len(titles) + 1, shown, [*titles, "KL / nats"])
    for line, name in zip(axes, shown, strict=True):
        window = ENERGIES[name].window
        for axis, arrays in zip(line[1:-1], found[name], strict=True):
            if arrays is None:
                axis.axis("off")
            else:
                panels.density_panel(axis, pixels.restored(arrays["density"]), window)
        largest = found[name][-1] or {}
        panels.density_panel(line[0], pixels.restored(largest["truth"]), window)
        _draw_divergences(line[-1], rows, name)
    axes[0][-1].legend(fontsize=5, handlelength=1)  # the other rows have the same colours
    return figure


def _draw_divergences(axis: plotting.Axes, rows: pd.DataFrame, name: str) -> None:
    for kind, color in zip(KINDS, plotting.PALETTE[1::-1], strict=True):
        found = {size: final_values(rows, FIG4, f"{name}_{kind}_{size}", "kl") for size in SIZES}
        places = [place for place, size in enumerate(SIZES) if found[size]]
        means = [float(np.mean(found[SIZES[place]])) for place in places]
        axis.plot(places, means, marker="o", markersize=2.5, linewidth=0.9, color=color, label=KINDS[kind])
        for place in places:
            seeds = found[SIZES[place]]
            axis.plot([place] * len(seeds), seeds, ".", markersize=2, color=color, alpha=0.5)
    axis.set_xticks(range(len(SIZES)), [str(size) for size in SIZES], fontsize=5)
    axis.set_xlim(-0.4, len(SIZES) - 0.6)
    axis.yaxis.set_major_locator(MaxNLocator(4))
    axis.tick_params(axis="y", labelsize=5, pad=1, direction="in", length=2)
    axis.tick_params(axis="x", pad=1, direction="in", length=2)
    axis.yaxis.tick_right()
    axis.set_ylim(0, None)


def fig4_table(rows: pd.DataFrame) -> pd.DataFrame:
    """KL(q ‖ p) of every flow, nats, lower is better; mean and standard deviation over the seeds.

    Args:
        rows: the runs of one tier.
    """
    lines = []
    for name in NAMES:
        for size in SIZES:
            cells = {label: f"{name}_{kind}_{size}" for kind, label in KINDS.items()}
            runs = rows[(rows["experiment"] == FIG4) & rows["cell"].isin(cells.values())]
            line = {"target, K or M": f"{name}, {size}"}
            line |= {f"KL, {label}": mean_text(rows, FIG4, cell, "kl", 3) for label, cell in cells.items()}
            line |= {f"share of the paper's iterations, {label}": _share(rows, cell) for label, cell in cells.items()}
            line |= {
                "NFE, CNF": mean_text(rows, FIG4, cells["CNF"], "nfe_test", 0),
                "runs": outcomes(runs) or "not run",
            }
            lines.append(line)
    return pd.DataFrame(lines)


def _share(rows: pd.DataFrame, cell: str) -> str:
    values = final_values(rows, FIG4, cell, "budget_share")
    return f"{values[0]:.1%}" if values else "-"


def draw_fig5(rows: pd.DataFrame) -> Figure | None:
    """From noise to data: density and samples of the CNF, samples of the NF, and the target.

    Each panel has a colour scale of its own.
    """
    found = {(name, kind): load_arrays(rows, FIG5, f"{name}_{kind}") for name in DATA for kind in KINDS}
    shown = [name for name in DATA if found[name, "cnf"] is not None]
    if not shown:
        return None
    labels = [f"{name}\n{what}" for name in shown for what in ("CNF density", "CNF samples", "NF samples")]
    figure, axes = panels.grid_figure(len(labels), len(SNAPSHOT_TITLES), labels, SNAPSHOT_TITLES)
    for index, name in enumerate(shown):
        window, cnf, nf = DENSITIES[DATA[name]].window, found[name, "cnf"] or {}, found[name, "nf"]
        densities, points, other = axes[3 * index : 3 * index + 3]
        for place in range(len(SNAPSHOT_TITLES) - 1):
            panels.density_panel(densities[place], pixels.restored(cnf["snapshots"][place]), window)
            panels.points_panel(points[place], cnf["points"][place].astype(float), window)
            if nf is not None:
                panels.points_panel(other[place], nf["points"][place].astype(float), window)
        panels.density_panel(densities[-1], pixels.restored(cnf["truth"]), window)
        for axis in (points[-1], other[-1]):
            axis.axis("off")
    return figure


def animate_fig5(rows: pd.DataFrame) -> Animation | None:
    """Noise turns into two circles and two moons under a planar CNF: density and sample on the way."""
    found = {data: load_arrays(rows, FIG5, f"{name}_cnf") for name, data in DATA.items()}
    films = [(arrays, DENSITIES[data].window) for data, arrays in found.items() if arrays]
    return panels.animated(films, 3)


CELLS = {
    "circles_cnf": "two circles, planar CNF, 64 units",
    "circles_nf": "two circles, planar NF, 64 layers",
    "moons_cnf": "two moons, planar CNF, 64 units",
    "moons_nf": "two moons, planar NF, 64 layers",
    "example": "two circles, the public example's CNF",
}


def fig5_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Test likelihoods in nats, lower is better, beside the lowest that any model can reach.

    Args:
        rows: the runs of one tier.
    """
    lines = []
    for cell, name in CELLS.items():
        training = curve(rows, FIG5, cell)
        lines.append(
            {
                "data and model": name,
                "entropy of the data": mean_text(rows, FIG5, cell, "nll_floor", 3),
                "test NLL": mean_text(rows, FIG5, cell, "test_nll", 3),
                "above the data's own density on the same draws": mean_text(rows, FIG5, cell, "test_gap", 3),
                "NFE, likelihood": mean_text(rows, FIG5, cell, "nfe_test", 0),
                "NFE there / back, without density": " / ".join(
                    mean_text(rows, FIG5, cell, metric, 0) for metric in ("nfe_there", "nfe_back")
                ),
                "NFE forward, end of training": f"{training['nfe_forward'].iloc[-1]:.0f}"
                if "nfe_forward" in training.columns
                else "-",
                "largest error there and back": largest_text(rows, FIG5, cell, "reversibility_error"),
                "parameters": mean_text(rows, FIG5, cell, "parameters", 0),
                "runs": outcomes(rows[(rows["experiment"] == FIG5) & (rows["cell"] == cell)]) or "not run",
            }
        )
    return pd.DataFrame(lines)
