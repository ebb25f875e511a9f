"""What "Neural Ordinary Differential Equations" says of its flows (Section 4), and how the rows are judged.

Thresholds stand here, before any run; each check only reads rows.
"""

import numpy as np
import pandas as pd

from repro.experiment import NOT_ATTEMPTED, Claim, Judgement, graded
from repro.results import curve, final_values, mean_pairs

SECTION4 = "neural_ode/section4_change_of_variables"
FIG4, FIG5 = "neural_ode/fig4_nf_vs_cnf", "neural_ode/fig5_noise_to_data"
ENERGIES = ("u1", "u2", "u3", "u4")
SIZES = (2, 8, 32)


def theorem1(rows: pd.DataFrame) -> Judgement:
    """The error falls with the tolerance and is below 1e-8 nats at the tightest."""
    cells = {cell: curve(rows, SECTION4, cell) for cell in ("theorem1_planar", "theorem1_perceptron")}
    tables = {cell: table for cell, table in cells.items() if not table.empty}
    if not tables:
        return NOT_ATTEMPTED
    errors = {cell: table["log_density_error"] for cell, table in tables.items()}
    ends = {cell: (float(values.iloc[0]), float(values.iloc[-1])) for cell, values in errors.items()}
    holds = [last < 1e-8 and last < first for first, last in ends.values()]
    verdict = graded(holds)
    text = ", ".join(f"{cell.removeprefix('theorem1_')} {a:.1e} to {b:.1e}" for cell, (a, b) in ends.items())
    return Judgement(verdict, f"largest difference from autograd's log-determinant, loosest to tightest, nats: {text}")


def linear_in_width(rows: pd.DataFrame) -> Judgement:
    """Time ~ M^p over the widest half: p at most 1.3 for the trace and at least 2 for the determinant."""
    slopes = {}
    for cell in ("width_planar_cnf", "width_determinant"):
        table = curve(rows, SECTION4, cell)
        if table.empty:
            return NOT_ATTEMPTED
        half = table.iloc[len(table) // 2 :]
        slopes[cell] = float(np.polyfit(np.log(half["width"]), np.log(half["step_time"]), 1)[0])
    trace, determinant = slopes.values()
    verdict = (
        "reproduced" if trace <= 1.3 and determinant >= 2 else "partly" if trace < determinant else "not reproduced"
    )
    return Judgement(verdict, f"time ~ M^{trace:.2f} for the trace, M^{determinant:.2f} for the determinant")


def at_least_as_good(rows: pd.DataFrame) -> Judgement:
    """KL(q‖p) of the CNF with M units at most that of the NF with K = M layers, up to 0.01 nats, in every pair."""
    pairs = {
        f"{energy} {size}": (f"{energy}_cnf_{size}", f"{energy}_nf_{size}") for energy in ENERGIES for size in SIZES
    }
    means = mean_pairs(rows, FIG4, pairs, "kl")
    if not means:
        return NOT_ATTEMPTED
    holds = [cnf <= nf + 0.01 for cnf, nf in means.values()]
    lines = [f"{pair}: {cnf:.3f} against {nf:.3f}" for pair, (cnf, nf) in means.items()]
    verdict = "reproduced" if all(holds) else "partly" if np.mean(holds) >= 0.5 else "not reproduced"
    return Judgement(verdict, f"KL in nats, CNF against NF: {'; '.join(lines)}")


def reversible(rows: pd.DataFrame) -> Judgement:
    """Data carried to the base and back return within a thousandth of the data's scale (about 1)."""
    found = {cell: final_values(rows, FIG5, f"{cell}_cnf", "reversibility_error") for cell in ("circles", "moons")}
    errors = {cell: max(values) for cell, values in found.items() if values}
    if not errors:
        return NOT_ATTEMPTED
    holds = [error < 1e-3 for error in errors.values()]
    verdict = graded(holds)
    text = ", ".join(f"{cell} {error:.1e}" for cell, error in errors.items())
    return Judgement(verdict, f"largest distance after the way there and back: {text}")


def better_likelihood(rows: pd.DataFrame) -> Judgement:
    """By maximum likelihood the CNF of 64 units ends closer to the data than the NF of 64 layers, by 0.05 nats."""
    pairs = {cell: (f"{cell}_cnf", f"{cell}_nf") for cell in ("circles", "moons")}
    means = mean_pairs(rows, FIG5, pairs, "test_gap")
    if not means:
        return NOT_ATTEMPTED
    holds = [a < b - 0.05 for a, b in means.values()]
    verdict = graded(holds)
    text = ", ".join(f"{cell} {a:.3f} against {b:.3f}" for cell, (a, b) in means.items())
    return Judgement(verdict, f"nats above the entropy of the data, CNF against NF: {text}")


SECTION4_CLAIMS = (
    Claim(
        id="node-theorem-1",
        statement="Along a flow the log-density changes by minus the trace of the field's Jacobian (Theorem 1).",
        source="Neural ODE v5, Section 4 and Appendix A",
        check=theorem1,
    ),
    Claim(
        id="node-cost-linear-in-width",
        statement="A wide continuous flow's log-density costs O(M), a wide discrete layer's O(M^3).",
        source="Neural ODE v5, Section 4.1, eq. 10",
        check=linear_in_width,
    ),
)
FIG4_CLAIMS = (
    Claim(
        id="node-cnf-at-least-as-good-as-nf",
        statement="A planar CNF with M units is at least as good as a planar NF with K = M layers.",
        source="Neural ODE v5, Section 4.2 and Figure 4",
        check=at_least_as_good,
    ),
)
FIG5_CLAIMS = (
    Claim(
        id="node-flow-reversible",
        statement="The flow runs backwards as well as forwards, at about the same cost, and returns to where it began.",
        source="Neural ODE v5, Section 4.3",
        check=reversible,
    ),
    Claim(
        id="node-cnf-fits-where-nf-struggles",
        statement="Trained by maximum likelihood, the CNF fits two circles and two moons, where the NF struggles.",
        source="Neural ODE v5, Section 4.3 and Figure 5",
        check=better_likelihood,
    ),
)
