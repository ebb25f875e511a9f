"""What FFJORD says of its toy densities, and how the rows are judged; thresholds stand here, before any run."""

import numpy as np
import pandas as pd

from repro.experiment import NOT_ATTEMPTED, Claim, Judgement, graded
from repro.results import curve, final_values, mean_pairs

FIG2, FIG8, NOISE = "ffjord/fig2_toy2d", "ffjord/fig8_tolerance", "ffjord/section3_noise"
SETS = ("8gaussians", "checkerboard", "2spirals", "circles", "rings", "moons", "swissroll", "pinwheel")
COMPARED = ("8gaussians", "checkerboard", "2spirals")
"""Sets on which the baselines run too."""


def evaluations(rows: pd.DataFrame) -> Judgement:
    """The forward evaluations of the trained models lie in 70 to 100; 60 to 120 counts as about that."""
    found = {name: final_values(rows, FIG2, name, "nfe_test") for name in SETS}
    counts = {name: float(np.mean(values)) for name, values in found.items() if values}
    if not counts:
        return NOT_ATTEMPTED
    near = [60 <= count <= 120 for count in counts.values()]
    inside = [70 <= count <= 100 for count in counts.values()]
    verdict = "reproduced" if all(near) and np.mean(inside) >= 0.5 else "partly" if any(near) else "not reproduced"
    return Judgement(verdict, ", ".join(f"{name} {count:.0f}" for name, count in counts.items()))


def separated_modes(rows: pd.DataFrame) -> Judgement:
    """Mass where the data have none: FFJORD's at most half of Glow's on every set that both were trained on."""
    means = mean_pairs(rows, FIG2, {name: (name, f"{name}_glow") for name in COMPARED}, "empty_mass")
    if not means:
        return NOT_ATTEMPTED
    better = [ours <= 0.5 * theirs for ours, theirs in means.values()]
    text = ", ".join(f"{name} {a:.2%} against Glow's {b:.2%}" for name, (a, b) in means.items())
    return Judgement(graded(better), f"mass where the data's density is under a thousandth of its peak: {text}")


def integral_error(rows: pd.DataFrame) -> Judgement:
    """|1 − ∫p| is within a factor of 30 of the tolerance, above the floor of float32's 1e-6, and falls with it."""
    table = curve(rows, FIG8, "mixture_1d")
    if table.empty:
        return NOT_ATTEMPTED
    tolerance, error = table["tolerance"].to_numpy(float), table["integral_error"].to_numpy(float)
    chosen = tolerance >= 1e-5
    ratios = error[chosen] / tolerance[chosen]
    slope = float(np.polyfit(np.log10(tolerance[chosen]), np.log10(np.maximum(error[chosen], 1e-12)), 1)[0])
    near = (ratios < 30) & (ratios > 1 / 30)
    verdict = "reproduced" if near.all() and slope > 0.5 else "partly" if (ratios < 30).all() else "not reproduced"
    text = f"error ~ tolerance^{slope:.2f}; error/tolerance {ratios.min():.2g} to {ratios.max():.2g}"
    return Judgement(verdict, f"{text}, over tolerances {tolerance[chosen].min():.0e} to {tolerance[chosen].max():.0e}")


def noise_once(rows: pd.DataFrame) -> Judgement:
    """With noise redrawn at every evaluation a solve needs at least three times as many, or does not end."""
    fixed, redrawn = (final_values(rows, NOISE, cell, "nfe_forward") for cell in ("fixed", "redrawn"))
    if not fixed or not redrawn:
        return NOT_ATTEMPTED
    a, b = float(np.mean(fixed)), float(np.mean(redrawn))
    limit = final_values(rows, NOISE, "redrawn", "stopped")
    verdict = "reproduced" if b >= 3 * a else "partly" if b > 1.2 * a else "not reproduced"
    ending = ", where the budget ended it" if limit and limit[0] else ""
    return Judgement(verdict, f"{a:.0f} evaluations with noise held fixed, {b:.0f} with noise redrawn{ending}")


def hutchinson_suffices(rows: pd.DataFrame) -> Judgement:
    """Training with the estimator ends within 0.05 nats of training with the exact trace."""
    gaps = mean_pairs(rows, FIG2, {name: (name, f"{name}_hutchinson") for name in COMPARED}, "test_gap")
    if not gaps:
        return NOT_ATTEMPTED
    close = [b - a < 0.05 for a, b in gaps.values()]
    text = ", ".join(f"{name} {a:.3f} exact, {b:.3f} estimated" for name, (a, b) in gaps.items())
    return Judgement(graded(close), f"nats above the entropy of the data: {text}")


FIG2_CLAIMS = (
    Claim(
        id="ffjord-evaluations-on-toys",
        statement="On two-dimensional data the solver takes about 70 to 100 evaluations.",
        source="FFJORD, Section 4.1",
        check=evaluations,
    ),
    Claim(
        id="ffjord-separates-modes",
        statement="FFJORD leaves the space between modes empty, where a Glow of depth 100 does not.",
        source="FFJORD, Section 4.1 and Figure 2",
        check=separated_modes,
    ),
    Claim(
        id="ffjord-estimator-suffices",
        statement="Training with the unbiased trace estimator does not hurt the density that is learnt.",
        source="FFJORD, Section 3.1",
        check=hutchinson_suffices,
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
