"""How Figures 4 and 5 of "Neural Ordinary Differential Equations" are drawn and tabulated."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repro import plotting
from repro.animation import Animation
from repro.arrays import load_arrays
from repro.data import DENSITIES, ENERGIES
from repro.papers.neural_ode.density_claims import ENERGIES as NAMES
from repro.papers.neural_ode.density_claims import FIG4, FIG5, SIZES
from repro.results import curve, final_values, outcomes

KINDS = {"nf": "NF", "cnf": "CNF"}
SNAPSHOT_TITLES = ("5 %", "20 %", "40 %", "60 %", "80 %", "100 %", "target")
DATA = {"circles": "circles_node", "moons": "moons_node"}


def draw_fig4(rows: pd.DataFrame) -> Figure | None:
    """Targets, planar NFs with K layers, planar CNFs with M units, and the KL divergence against K or M.

    Each panel has a colour scale of its own.
    """
    shown = [name for name in NAMES if load_arrays(rows, FIG4, f"{name}_cnf_{SIZES[-1]}") is not None]
    if not shown:
        return None
    titles = ["target", *(f"{label}, {letter} = {n}" for label, letter in (("NF", "K"), ("CNF", "M")) for n in SIZES)]
    figure, axes = plotting.grid_figure(len(shown), len(titles) + 1, shown, [*titles, "KL / nats"])
    for line, name in zip(axes, shown, strict=True):
        window = ENERGIES[name].window
        cells = [f"{name}_{kind}_{size}" for kind in KINDS for size in SIZES]
        for axis, cell in zip(line[1:-1], cells, strict=True):
            arrays = load_arrays(rows, FIG4, cell)
            if arrays is None:
                axis.axis("off")
                continue
            plotting.density_panel(axis, plotting.restored(arrays["density"]), window)
            plotting.density_panel(line[0], plotting.restored(arrays["truth"]), window)
        _draw_divergences(line[-1], rows, name)
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
    axis.tick_params(axis="y", labelsize=5, pad=1, direction="in")
    axis.tick_params(axis="x", pad=1, direction="in")
    axis.yaxis.tick_right()
    axis.set_ylim(0, None)
    axis.legend(fontsize=5, handlelength=1)


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
            line |= {f"KL, {label}": _spread(rows, FIG4, cell, "kl", 3) for label, cell in cells.items()}
            line |= {f"share of the paper's iterations, {label}": _share(rows, cell) for label, cell in cells.items()}
            line |= {"NFE, CNF": _spread(rows, FIG4, cells["CNF"], "nfe_test", 0), "runs": outcomes(runs) or "not run"}
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
    figure, axes = plotting.grid_figure(len(labels), len(SNAPSHOT_TITLES), labels, SNAPSHOT_TITLES)
    for index, name in enumerate(shown):
        window, cnf, nf = DENSITIES[DATA[name]].window, found[name, "cnf"] or {}, found[name, "nf"]
        densities, points, other = axes[3 * index : 3 * index + 3]
        for place in range(len(SNAPSHOT_TITLES) - 1):
            plotting.density_panel(densities[place], plotting.restored(cnf["snapshots"][place]), window)
            plotting.points_panel(points[place], cnf["points"][place].astype(float), window)
            if nf is not None:
                plotting.points_panel(other[place], nf["points"][place].astype(float), window)
        plotting.density_panel(densities[-1], plotting.restored(cnf["truth"]), window)
        for axis in (points[-1], other[-1]):
            axis.axis("off")
    return figure


def animate_fig5(rows: pd.DataFrame) -> Animation | None:
    """Noise turns into two circles and two moons under a planar CNF: density and sample on the way."""
    films = []
    for name, data in DATA.items():
        arrays = load_arrays(rows, FIG5, f"{name}_cnf")
        if arrays is not None:
            images, points = plotting.restored(arrays["film_density"]), arrays["film_points"].astype(float)
            film = plotting.density_frames(images, points, DENSITIES[data].window, 3)
            films.append(np.concatenate([film, film[-1:].repeat(8, axis=0)]))
    return Animation(np.concatenate(films), 80) if films else None


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
                "lowest possible NLL": _spread(rows, FIG5, cell, "nll_floor", 3),
                "test NLL": _spread(rows, FIG5, cell, "test_nll", 3),
                "above the lowest": _spread(rows, FIG5, cell, "test_gap", 3),
                "NFE, likelihood": _spread(rows, FIG5, cell, "nfe_test", 0),
                "NFE, sampling": _spread(rows, FIG5, cell, "nfe_sample", 0),
                "NFE forward, end of training": f"{training['nfe_forward'].iloc[-1]:.0f}"
                if "nfe_forward" in training.columns
                else "-",
                "largest error there and back": _largest(rows, cell),
                "parameters": _spread(rows, FIG5, cell, "parameters", 0),
                "runs": outcomes(rows[(rows["experiment"] == FIG5) & (rows["cell"] == cell)]) or "not run",
            }
        )
    return pd.DataFrame(lines)


def _largest(rows: pd.DataFrame, cell: str) -> str:
    values = final_values(rows, FIG5, cell, "reversibility_error")
    return f"{max(values):.1e}" if values else "-"


def _spread(rows: pd.DataFrame, experiment: str, cell: str, metric: str, digits: int) -> str:
    values = final_values(rows, experiment, cell, metric)
    if not values:
        return "-"
    more = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 and np.ptp(values) > 0 else ""
    return f"{np.mean(values):,.{digits}f}{more}"
