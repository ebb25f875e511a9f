"""What "Neural Ordinary Differential Equations" says of Section 3's experiments, and how its rows are judged.

Thresholds stand here, before any run; each check only reads rows.
"""

import numpy as np
import pandas as pd
from scipy import stats

from repro.experiment import NOT_ATTEMPTED, Claim, Judgement
from repro.results import curve, final_values
from repro.verdicts import indistinguishable

TABLE1, COST, FIG3 = "neural_ode/table1_mnist", "neural_ode/table1_cost", "neural_ode/fig3_solver_stats"
TEST_IMAGES = 10_000


def mean_errors(rows: pd.DataFrame, cell: str) -> tuple[float, int] | None:
    """Mean count of errors on the 10,000 test images over the seeds of a Table 1 cell, and the number of seeds."""
    errors = final_values(rows, TABLE1, cell, "test_errors")
    return (float(np.mean(errors)), len(errors)) if errors else None


def _error_text(name: str, errors: float, seeds: int) -> str:
    return f"{name} {100 * errors / TEST_IMAGES:.2f} % ({seeds} seed{'s' if seeds > 1 else ''})"


def as_good_as_resnet(rows: pd.DataFrame) -> Judgement:
    """ODE-Net and RK-Net err about as often as the ResNet."""
    found = {cell: mean_errors(rows, cell) for cell in ("resnet", "rknet", "odenet")}
    resnet, odenet = found["resnet"], found["odenet"]
    if resnet is None or odenet is None:
        return NOT_ATTEMPTED
    z = indistinguishable(round(odenet[0]), round(resnet[0]), TEST_IMAGES)
    text = ", ".join(_error_text(cell, *value) for cell, value in found.items() if value)
    verdict = "reproduced" if z < 1.96 else "not reproduced"
    return Judgement(verdict, f"{text}; ODE-Net against ResNet z = {z:.2f} (above 1.96 would be worse)")


def parameter_efficiency(rows: pd.DataFrame) -> Judgement:
    """The ODE-Net needs fewer parameters than a discrete net for the same error (withdrawn in v5)."""
    found = {cell: mean_errors(rows, cell) for cell in ("odenet", "one_block", "no_block")}
    odenet, one = found["odenet"], found["one_block"]
    sizes = {cell: final_values(rows, TABLE1, cell, "parameters") for cell in found}
    if odenet is None or one is None:
        return NOT_ATTEMPTED
    z = indistinguishable(round(one[0]), round(odenet[0]), TEST_IMAGES)
    text = ", ".join(
        f"{_error_text(cell, *value)} with {sizes[cell][0]:,.0f} parameters" for cell, value in found.items() if value
    )
    verdict = "reproduced" if z >= 1.96 else "not reproduced"
    return Judgement(verdict, f"{text}; one residual block against ODE-Net z = {z:.2f} (above 1.96 would be worse)")


def constant_memory(rows: pd.DataFrame) -> Judgement:
    """The adjoint's memory does not depend on depth; that of backprop does."""
    kept = {name: curve(rows, COST, f"depth_{name}") for name in ("adjoint", "checkpoint", "backprop", "resnet")}
    if kept["adjoint"].empty or kept["backprop"].empty:
        return NOT_ATTEMPTED
    slopes = {name: _slope(table, "saved_bytes") / 2**20 for name, table in kept.items() if not table.empty}
    peaks = {name: _slope(table, "peak_step_memory") / 2**20 for name, table in kept.items() if not table.empty}
    steps = [int(step) for step in kept["adjoint"].index]
    text = "; ".join(f"{name} {slope:.3g} (peak {peaks[name]:.3g})" for name, slope in slopes.items())
    holds = abs(slopes["adjoint"]) < 1e-6 < slopes["backprop"] and peaks["adjoint"] < 0.1 * peaks["backprop"]
    half = slopes["adjoint"] < 0.02 * slopes["backprop"]
    verdict = "reproduced" if holds else "partly" if half else "not reproduced"
    return Judgement(verdict, f"MiB kept per solver step or block, over {steps[0]} to {steps[-1]}: {text}")


def _slope(table: pd.DataFrame, metric: str) -> float:
    return float(np.polyfit(table.index.to_numpy(dtype=float), _column(table, metric), 1)[0])


def _column(table: pd.DataFrame, metric: str) -> np.ndarray:
    return table[metric].to_numpy(dtype=float)


def backward_half(rows: pd.DataFrame) -> Judgement:
    """Backward evaluations are about half of the forward ones; judged for the paper's solver family and for dopri5."""
    ratios = {}
    for cell in ("vode_adams", "dopri5", "dopri5_seminorm"):
        table = curve(rows, FIG3, cell)
        if not table.empty:
            ratio = _column(table, "nfe_backward") / _column(table, "nfe_forward")
            ratios[cell] = (float(np.median(ratio)), float(ratio.min()), float(ratio.max()))
    if not {"vode_adams", "dopri5"} <= set(ratios):
        return NOT_ATTEMPTED
    text = "; ".join(f"{cell} {m:.2f} ({low:.2f} to {high:.2f})" for cell, (m, low, high) in ratios.items())
    near = {cell: 0.35 <= median <= 0.65 for cell, (median, _, _) in ratios.items()}
    verdict = "reproduced" if all(near.values()) else "partly" if any(near.values()) else "not reproduced"
    return Judgement(verdict, f"backward/forward, median over tolerances (range): {text}")


def error_follows_tolerance(rows: pd.DataFrame) -> Judgement:
    """A tighter tolerance gives a smaller error."""
    table = curve(rows, FIG3, "dopri5")
    if table.empty:
        return NOT_ATTEMPTED
    tolerance, error = np.log10(_column(table, "tolerance")), np.log10(_column(table, "error"))
    fit = stats.linregress(tolerance, error)
    rank = stats.spearmanr(tolerance, error).statistic
    verdict = "reproduced" if rank > 0.9 and 0.5 <= fit.slope <= 1.5 else "partly" if rank > 0.5 else "not reproduced"
    text = f"error ~ tolerance^{fit.slope:.2f}, rank correlation {rank:.2f}, over {len(table)} tolerances"
    return Judgement(verdict, text)


def time_follows_evaluations(rows: pd.DataFrame) -> Judgement:
    """Forward time is proportional to forward evaluations."""
    table = curve(rows, FIG3, "dopri5")
    if table.empty:
        return NOT_ATTEMPTED
    milliseconds = 1e3 * _column(table, "forward_time")
    fit = stats.linregress(_column(table, "nfe_forward"), milliseconds)
    share = abs(fit.intercept) / milliseconds.max()
    holds = fit.rvalue**2 > 0.98 and share < 0.1
    verdict = "reproduced" if holds else "partly" if fit.rvalue**2 > 0.9 else "not reproduced"
    text = f"{fit.slope:.2f} ms per evaluation, intercept {fit.intercept:.1f} ms, R^2 = {fit.rvalue**2:.3f}"
    return Judgement(verdict, text)


def evaluations_grow(rows: pd.DataFrame) -> Judgement:
    """The number of forward evaluations rises during training."""
    table = curve(rows, TABLE1, "odenet")
    if table.empty or len(table) < 3:
        return NOT_ATTEMPTED
    values = _column(table, "nfe_forward")
    fit = stats.linregress(np.arange(1, len(values) + 1), values)
    grows = fit.pvalue < 0.05 and fit.slope > 0
    verdict = "reproduced" if grows and values[-1] > 1.1 * values[0] else "partly" if grows else "not reproduced"
    text = f"mean per step {values[0]:.1f} in epoch 1, {values[-1]:.1f} in epoch {len(values)}"
    text += f" (slope {fit.slope:.2f} per epoch, p = {fit.pvalue:.2g})"
    return Judgement(verdict, text)


TABLE1_CLAIMS = (
    Claim(
        id="node-as-good-as-resnet",
        statement="On MNIST, ODE-Nets reach about the test error of a ResNet.",
        source="Neural ODE v5, Section 3 and Table 1",
        check=as_good_as_resnet,
    ),
    Claim(
        id="node-parameter-efficiency",
        statement="An ODE-Net needs fewer parameters for the same error (a claim that the paper's v5 withdrew).",
        source="Neural ODE, NeurIPS 2018 version, Section 1; absent from v5",
        check=parameter_efficiency,
    ),
    Claim(
        id="node-evaluations-grow",
        statement="Forward evaluations increase during training.",
        source="Neural ODE v5, Figure 3d",
        check=evaluations_grow,
    ),
)
COST_CLAIMS = (
    Claim(
        id="node-constant-memory",
        statement="Trained by the adjoint, memory is constant in depth; by backpropagation it grows with it.",
        source="Neural ODE v5, Section 1 and Table 1",
        check=constant_memory,
    ),
)
FIG3_CLAIMS = (
    Claim(
        id="node-error-follows-tolerance",
        statement="The tolerance controls the numerical error.",
        source="Neural ODE v5, Figure 3a",
        check=error_follows_tolerance,
    ),
    Claim(
        id="node-time-follows-evaluations",
        statement="Forward time is proportional to the number of function evaluations.",
        source="Neural ODE v5, Figure 3b",
        check=time_follows_evaluations,
    ),
    Claim(
        id="node-backward-half",
        statement="The backward solve takes about half as many evaluations as the forward solve.",
        source="Neural ODE v5, Figure 3c",
        check=backward_half,
    ),
)
