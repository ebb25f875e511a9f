"""What FFJORD says of its toy densities, and how the rows are judged.

Thresholds stood here before any run; CHANGELOG's Rules tell what was changed later. Only all the cells that a claim is
about can give "reproduced" (`repro.cases`).
"""

from statistics import fmean

import numpy as np
import pandas as pd

from repro.cases import at_most_partly, cases, curve_cases, final_cases, paired_cases
from repro.experiment import SUITE, Claim, Judgement, Verdict, graded
from repro.results import final_values, seed_values

FIG2, FIG8, NOISE = "ffjord/fig2_toy2d", "ffjord/fig8_tolerance", "ffjord/section3_noise"
SETS = ("8gaussians", "checkerboard", "2spirals", "circles", "rings", "moons", "swissroll", "pinwheel")
COMPARED = ("8gaussians", "checkerboard", "2spirals")
"""Sets on which the baselines run too."""


def evaluations(rows: pd.DataFrame) -> Judgement:
    """Trained with Hutchinson's estimator, as the paper trains, models take 60 to 120 forward evaluations on all sets.

    These are the three sets on which the baselines run; on at least half of them it must be 70 to 100. Partly if it is
    70 to 100 on any. Models trained with the exact trace, as the public script does, are evidence alone.
    """
    sets = final_cases(rows, FIG2, {name: f"{name}_hutchinson" for name in COMPARED}, "nfe_test")
    counts = {name: fmean(values) for name, values in sets.found.items()}
    near = [60 <= count <= 120 for count in counts.values()]
    inside = [70 <= count <= 100 for count in counts.values()]
    most = sum(inside) >= 0.5 * len(inside)
    verdict = "reproduced" if all(near) and most else "partly" if any(inside) else "not reproduced"
    exact = {name: fmean(values) for name in SETS if (values := final_values(rows, FIG2, name, "nfe_test"))}
    text = f"{sum(inside)} of {len(counts)} sets within 70 to 100, {sum(near)} within 60 to 120: {_listed(counts)}"
    return sets.judged(verdict, f"{text}; trained with the exact trace: {_listed(exact) or 'not run'}")


def _listed(counts: dict[str, float]) -> str:
    return ", ".join(f"{name} {count:.0f}" for name, count in counts.items())


GLOWS = {name: f"{name}_glow" for name in COMPARED} | {"2spirals": "2spirals_glow_bounded"}
"""Glow's cell by the set; on two spirals it diverges unless its couplings' factors are bounded."""


def separated_modes(rows: pd.DataFrame) -> Judgement:
    """Mass where the data have none: FFJORD's at most half of Glow's on every set that both were trained on.

    Of both, what the data themselves have there is subtracted; a Glow that has no more than that left the space empty.
    At most partly reproduced while a Glow had less than the public script's iterations: more might have emptied it.
    """
    pairs = paired_cases(rows, FIG2, {name: (name, GLOWS[name]) for name in COMPARED}, "empty_mass")
    own = {name: max(final_values(rows, FIG2, name, "empty_mass_data"), default=0.0) for name in pairs.found}
    excess = {name: (ours - own[name], theirs - own[name]) for name, (ours, theirs) in pairs.found.items()}
    better = [theirs > 0 and ours <= 0.5 * theirs for ours, theirs in excess.values()]
    found = [f"{name} {a:.2%} against Glow's {b:.2%}, data {own[name]:.2%}" for name, (a, b) in pairs.found.items()]
    text = "; ".join(found)
    share = min((_budget_share(rows, GLOWS[name]) for name in pairs.found), default=0.0)
    verdict = graded(better) if share >= 1 else at_most_partly(graded(better))
    text += f"; Glow had {share:.0%} of the public script's iterations"
    return pairs.judged(verdict, f"mass where the data's density is under a thousandth of its peak: {text}")


def _budget_share(rows: pd.DataFrame, cell: str) -> float:
    """The smallest share of the public iterations over a cell's seeds; unknown is none."""
    return min(final_values(rows, FIG2, cell, "budget_share"), default=0.0)


def integral_error(rows: pd.DataFrame) -> Judgement:
    """|1 − ∫p| is within a factor of 30 of the tolerance and falls with a power of it above 0.5.

    Partly if it is nowhere more than 30 times the tolerance. Tolerances below ten times the sum's own error, a row of
    the run (`integral_floor`), are left out. The sum of a smooth density with vanishing tails converges faster
    than any power of its spacing, so that in float64 about 1e-13 is left, rounding and tails: below all tolerances.
    """
    sweep = curve_cases(rows, FIG8, ["mixture_1d"])
    floor = max([1e-15, *final_values(rows, FIG8, "mixture_1d", "integral_floor")])
    for table in sweep.found.values():
        chosen = table[table["tolerance"] >= 10 * floor]
        if len(chosen) > 1:
            return sweep.judged(*_against_tolerance(chosen, floor))
    return sweep.judged("not reproduced", f"the sum's own error of {floor:.0e} hides the solver's")


def _against_tolerance(table: pd.DataFrame, floor: float) -> tuple[Verdict, str]:
    tolerance, error = (table[name].to_numpy(float) for name in ("tolerance", "integral_error"))
    ratios = error / tolerance
    slope = float(np.polyfit(np.log10(tolerance), np.log10(np.maximum(error, floor)), 1)[0])
    near = (ratios < 30) & (ratios > 1 / 30)
    verdict = "reproduced" if near.all() and slope > 0.5 else "partly" if (ratios < 30).all() else "not reproduced"
    text = f"error ~ tolerance^{slope:.2f}; error/tolerance {ratios.min():.2g} to {ratios.max():.2g}"
    return verdict, f"{text}, over tolerances {tolerance.min():.0e} to {tolerance.max():.0e}"


def noise_once(rows: pd.DataFrame) -> Judgement:
    """With noise redrawn at every evaluation every solve needs at least three times as many, or does not end.

    A solve that was stopped did not end, whatever it had spent: its steps became too small, or it ran into a budget of
    many times what the other needs. If the one with noise held fixed was stopped, the claim fails.
    """
    flow = cases(rows, NOISE, {"8gaussians": ("fixed", "redrawn")}, lambda *cells: _solves(rows, *cells) or None)
    solves = flow.found.get("8gaussians", [])
    factors = [_factor(*both) for both in solves] or [0.0]
    verdict = "reproduced" if min(factors) >= 3 else "partly" if max(factors) > 1.2 else "not reproduced"
    return flow.judged(verdict, "; ".join(f"{_spent(a)} with noise held fixed, {_spent(b)} redrawn" for a, b in solves))


Solve = tuple[float, bool]
"""Evaluations that a solve spent, and whether it was stopped before its end."""


def _solves(rows: pd.DataFrame, *cells: str) -> list[tuple[Solve, ...]]:
    """The solves of the seeds that all cells have."""
    spent = [seed_values(rows, NOISE, cell, "nfe_forward") for cell in cells]
    stopped = [seed_values(rows, NOISE, cell, "stopped") for cell in cells]
    shared = sorted(set.intersection(*map(set, [*spent, *stopped])))
    return [tuple((nfe[seed], bool(end[seed])) for nfe, end in zip(spent, stopped, strict=True)) for seed in shared]


def _factor(fixed: Solve, redrawn: Solve) -> float:
    """How many times as many evaluations redrawn noise needs."""
    if fixed[1]:
        return 0.0
    return float("inf") if redrawn[1] else redrawn[0] / fixed[0]


def _spent(solve: Solve) -> str:
    return f"no end after {solve[0]:.0f} evaluations" if solve[1] else f"{solve[0]:.0f} evaluations"


def hutchinson_suffices(rows: pd.DataFrame) -> Judgement:
    """Training with the estimator ends less than 0.05 nats above training with the exact trace, on every set."""
    gaps = paired_cases(rows, FIG2, {name: (name, f"{name}_hutchinson") for name in COMPARED}, "test_gap")
    close = [b - a < 0.05 for a, b in gaps.found.values()]
    text = ", ".join(f"{name} {a:.3f} exact, {b:.3f} estimated" for name, (a, b) in gaps.found.items())
    return gaps.judged(graded(close), f"nats above the data's own density: {text}")


def compare_rings(rows: pd.DataFrame) -> str:
    """Set the two ways to sample `rings` side by side, and say what explains their gap as far as runs tell."""
    cells = ("rings", "rings_released")
    gaps, updates = ([final_values(rows, FIG2, cell, metric) for cell in cells] for metric in ("test_gap", "steps"))
    if not all(gaps):
        return ""
    seeds = [len(values) for values in gaps]
    ours, theirs = (f"{fmean(values):.3f}" for values in gaps)
    text = (
        f"rings: trained on random angles the flow ends {ours} nats above the data's entropy, trained on the public "
        f"script's fixed angles (cell `rings_released`) {theirs}, both tested on random angles"
    )
    if all(updates):
        text += f", after {fmean(updates[0]):,.0f} and {fmean(updates[1]):,.0f} updates"
    reason = (
        "the fixed angles give every batch as many points on each ring, evenly spread, so that batches differ less, "
        "which would ease training"
    )
    few = "one seed each does" if max(seeds) == 1 else f"{seeds[0]} and {seeds[1]} seeds do"
    decided = "; no run tells this from other reasons" if min(seeds) > 2 else f"; {few} not rule out chance"
    return f"{text}; {reason}{decided}."


def compare_directions(rows: pd.DataFrame) -> str:
    """Set the evaluations of the toy flows' two directions side by side: a claim of Neural ODE's on flows of FFJORD."""
    ratios: dict[str, float] = {}
    for name in SETS:
        there, back = (final_values(rows, FIG2, name, metric) for metric in ("nfe_there", "nfe_back"))
        if there and back:
            ratios[name] = fmean(there) / fmean(back)
    if not ratios:
        return ""
    text = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
    return (
        "Neural ODE says of its flows that they run backwards at about the same cost. FFJORD's toy flows, which that "
        f"claim is not judged by, take so many times as many evaluations from data to base as back: {text}."
    )


FIG2_REMARKS = (compare_rings, compare_directions)
FIG2_CLAIMS = (
    Claim(
        id="ffjord-evaluations-on-toys",
        statement="On two-dimensional data the solver takes about 70 to 100 evaluations.",
        source="FFJORD, Section 4.1",
        check=evaluations,
        cells=tuple(f"{name}_hutchinson" for name in COMPARED),
    ),
    Claim(
        id="ffjord-separates-modes",
        statement="FFJORD leaves the space between modes empty, where a Glow of depth 100 does not.",
        source="FFJORD, Section 4.1 and Figure 2",
        check=separated_modes,
    ),
    Claim(
        id="ffjord-estimator-suffices",
        statement="Does training with the unbiased trace estimator end at the same density as with the exact trace?",
        source=SUITE,
        check=hutchinson_suffices,
        origin="suite",
    ),
)
FIG8_CLAIMS = (
    Claim(
        id="ffjord-integral-follows-tolerance",
        statement="The density's integral deviates from 1 by about the solver's tolerance.",
        source="FFJORD, Appendix C and Figure 8",
        check=integral_error,
    ),
)
NOISE_CLAIMS = (
    Claim(
        id="ffjord-noise-once-per-solve",
        statement="The noise is drawn once per solve, to keep the dynamics deterministic for the solver.",
        source="FFJORD, Section 3.1, eq. 8 and Algorithm 1",
        check=noise_once,
    ),
)
