"""Measure a field of one's own: time, evaluations, memory and gradient error of every solver and gradient method."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from repro import plotting
from repro.checks import check_name, check_positive_counts
from repro.measuring.fresh import fresh
from repro.measuring.memory import peak
from repro.measuring.meters import Cell, counted, interleave, relative_error, start, status_of
from repro.measuring.step import Loss, mean_energy, solve_step
from repro.ode import GRADIENTS, SOLVERS, Solver
from repro.ode.parameters import collect_parameters
from repro.ode.solve import check_problem
from repro.types import State, Times, VectorField

MIB = 2**20
MOST_EVALUATIONS = 100_000
"""Of the reference, whose tolerance a field with kinks may never reach."""
COLUMNS = (
    "solver",
    "gradient",
    "status",
    "time_ms",
    "time_iqr_ms",
    "nfe_forward",
    "nfe_backward",
    "n_accepted",
    "n_rejected",
    "saved_mib",
    "peak_mib",
    "gradient_error",
    "loss_error",
    "first_call_s",
)


@dataclass(frozen=True)
class Measurement:
    """What the steps cost, and how exact their gradients are.

    Attributes:
        table: One line for each pair of solver and gradient method, with the columns `COLUMNS`: median and
            interquartile range of the step's time; evaluations and steps (missing where they do not apply, as the
            backward evaluations of backprop); bytes that autograd keeps for backward; peak memory of the step in a
            process of its own; relative errors of gradient and loss against `reference`; seconds of the first call,
            which loads and compiles. A pair that does not work says why in `status`.
        meter: What `peak_mib` was read from.
        reference: How the exact gradient was made, or why there is none.
    """

    table: pd.DataFrame
    meter: str
    reference: str

    def draw(self) -> Figure:
        """Error of the gradient against time and against memory; left and low is better."""
        memory = "peak_mib" if self.table["peak_mib"].notna().any() else "saved_mib"
        labels = {"peak_mib": f"peak, MiB ({self.meter})", "saved_mib": "kept by autograd, MiB"}
        figure, axes = plotting.new_figure(1, 2)
        plotting.panel_titles(axes, ("What exactness costs in time", "and in memory"))
        self._points(axes[0], "time_ms", "ms per training step")
        self._points(axes[1], memory, labels[memory])
        axes[1].legend(fontsize=7, loc="best")
        return figure

    def _points(self, axis: Axes, column: str, label: str) -> None:
        solvers, gradients = (list(dict.fromkeys(self.table[key])) for key in ("solver", "gradient"))
        for (solver, gradient), rows in self.table.groupby(["solver", "gradient"], sort=False):
            axis.plot(
                rows[column],
                rows["gradient_error"],
                linestyle="none",
                color=plotting.PALETTE[gradients.index(gradient) % len(plotting.PALETTE)],
                marker=plotting.MARKERS[solvers.index(solver) % len(plotting.MARKERS)],
                label=gradient if len(solvers) == 1 else f"{gradient}, {solver}",
            )
        axis.set(xscale="log", yscale="log", xlabel=label, ylabel="relative error of the gradient")
        plotting.plain_log_ticks(axis, "x")

    def save(self, folder: Path | str) -> None:
        """Write measure.csv, measure.svg and measure.png into a folder, which is made if needed."""
        target, figure = Path(folder), self.draw()
        target.mkdir(parents=True, exist_ok=True)
        self.table.to_csv(target / "measure.csv", index=False, lineterminator="\n")
        for kind, content in plotting.picture(figure).items():
            (target / f"measure.{kind}").write_bytes(content)

    def _repr_html_(self) -> str:
        """Let a notebook show the table."""
        return self.table.to_html(index=False, na_rep="n/a", float_format=lambda value: f"{value:.3g}")

    def __str__(self) -> str:
        return self.table.to_string(index=False, na_rep="n/a", float_format=lambda value: f"{value:.3g}")


def measure(
    field: VectorField,
    y0: State,
    t: Times,
    *,
    solvers: Sequence[str] | Mapping[str, Solver] = ("dopri5",),
    gradients: Sequence[str] = tuple(GRADIENTS),
    loss: Loss = mean_energy,
    parameters: Iterable[Tensor] | nn.Module | None = None,
    rounds: int = 7,
    peak_memory: bool = True,
    reference_tolerance: float = 1e-10,
) -> Measurement:
    """Measure a training step of your own field by several solvers and gradient methods.

    Each step solves dy/dt = f(t, y), applies `loss` and differentiates it for y0 and the parameters. Times are taken in
    turn, after a warm-up, with the device idle before and after. Peak memory is read in a fresh process for each pair.
    The field's weights are left as they are, its gradients are not.

    Args:
        field: Right-hand side, time first; a module, or a function whose parameters are named.
        y0: Initial state, on the device that is measured.
        t: Output times; with more than two, adjoint methods solve each interval anew.
        solvers: Names in `repro.ode.SOLVERS`, or solvers by names of your own.
        gradients: Names in `repro.ode.GRADIENTS`.
        loss: Of the trajectory [time, *state]; half the mean square of its end by default.
        parameters: As for `repro.ode.solve`.
        rounds: Timed steps of each pair.
        peak_memory: Whether to measure the peak too, which takes a process of its own for each pair.
        reference_tolerance: rtol and atol of the float64 reference, in whose units errors are relative.

    Returns:
        The table, with a picture; `print` shows it, a notebook too.

    Raises:
        ValueError: An argument is out of range; the message names it. What fails in a single pair is its status.
        TypeError: As for `repro.ode.solve`.
    """
    check_problem(y0, t)
    check_positive_counts(rounds=rounds)
    named = _named(solvers)
    for gradient in gradients:
        check_name("gradients", gradient, GRADIENTS)
    leaves = _collect(field, y0, t, parameters)
    makers = {
        (name, gradient): partial(solve_step, field, y0, t, solver, gradient, loss, leaves)
        for name, solver in named.items()
        for gradient in gradients
    }
    threads = torch.get_num_threads()
    peaks = {
        key: fresh(partial(peak, make, y0.device), threads=threads) if peak_memory else {}
        for key, make in makers.items()
    }
    # a pair that ran out of memory there must not take this process with it
    cells = {
        key: Cell("out of memory") if peaks[key].get("status") == "out of memory" else start(make, y0.device)
        for key, make in makers.items()
    }
    interleave(cells, rounds, y0.device)
    exact, how = _reference(field, y0, t, loss, leaves, reference_tolerance)
    meter = next((str(found["meter"]) for found in peaks.values() if "meter" in found), "not measured")
    lines = [_line(key, cell, peaks[key], exact) for key, cell in cells.items()]
    return Measurement(pd.DataFrame(lines, columns=pd.Index(COLUMNS)), meter, how)


def _collect(
    field: VectorField, y0: State, t: Times, parameters: Iterable[Tensor] | nn.Module | None
) -> tuple[Tensor, ...] | None:
    """Collect the parameters as `solve` does, by name alone; None for a module's.

    Raises:
        ValueError: The field is no module, uses what requires gradients, and none were named.
    """
    if parameters is None and isinstance(field, nn.Module):
        return None
    learners = collect_parameters(field, y0, t, parameters)
    if parameters is None and learners:
        raise ValueError(
            "parameters must be given: the field is no module but uses tensors that require gradients, and a "
            "measurement is of what it names; pass parameters=module.parameters(), or () to differentiate for y0 alone"
        )
    return learners


def _named(solvers: Sequence[str] | Mapping[str, Solver]) -> dict[str, Solver]:
    if isinstance(solvers, Mapping):
        return dict(solvers)
    if isinstance(solvers, str):
        raise ValueError(f"solvers must be a list of names or a mapping; got the string {solvers!r}")
    for name in solvers:
        check_name("solvers", name, SOLVERS)
    return {name: SOLVERS[name] for name in solvers}


Exact = tuple[Float[Tensor, " n"], float]


def _reference(
    field: VectorField, y0: State, t: Times, loss: Loss, parameters: tuple[Tensor, ...] | None, tolerance: float
) -> tuple[Exact | None, str]:
    """Gradient and loss by a tight solve in float64; without them there are no errors, and the reason says why."""
    if not isinstance(field, nn.Module) and y0.dtype != torch.float64:
        return None, "no reference: a field that is no module cannot be made float64; give y0 and parameters in float64"
    try:
        double, parameters = _in_float64(field, parameters)
        solver = Solver("dopri5", rtol=tolerance, atol=tolerance, max_nfe=MOST_EVALUATIONS)
        step = solve_step(double, y0.double(), t.double(), solver, "checkpoint", loss, parameters)
        exact = counted(step)["loss"]
    except Exception as error:  # the field is the user's, and so is what it raises in float64
        return None, f"no reference: {status_of(error)}"
    return (step.gradient(), exact), f"dopri5 in float64, rtol = atol = {tolerance:g}"


def _in_float64(
    field: VectorField, parameters: tuple[Tensor, ...] | None
) -> tuple[VectorField, tuple[Tensor, ...] | None]:
    """A copy of a module in float64, and what was to be differentiated in the copy; a function as it is."""
    if not isinstance(field, nn.Module):
        return field, parameters
    names = {id(p): name for name, p in field.named_parameters()}
    if any(id(parameter) not in names for parameter in parameters or ()):
        raise ValueError("parameters holds a tensor that is no parameter of the module, and has no copy in float64")
    double = copy.deepcopy(field).double()
    copies = dict(double.named_parameters())
    return double, None if parameters is None else tuple(copies[names[id(p)]] for p in parameters)


def _line(key: tuple[str, str], cell: Cell, peak: Mapping[str, Any], exact: Exact | None) -> dict[str, Any]:
    """One line of the table; figures that there are not stay missing."""
    line: dict[str, Any] = {"solver": key[0], "gradient": key[1], "status": cell.status}
    if cell.step is None:
        return line
    counts = {name: cell.figures.get(name) for name in ("nfe_forward", "nfe_backward", "n_accepted", "n_rejected")}
    line |= counts | {"time_ms": 1e3 * cell.median, "time_iqr_ms": 1e3 * cell.iqr, "first_call_s": cell.first_call}
    line["saved_mib"] = cell.figures["saved_bytes"] / MIB
    if "peak_bytes" in peak:
        line["peak_mib"] = peak["peak_bytes"] / MIB
    elif peak:
        line["status"] = f"peak memory: {peak['status']}"
    if exact is not None and cell.gradient is not None:
        line["gradient_error"] = relative_error(cell.gradient, exact[0])
        line["loss_error"] = abs(cell.figures["loss"] - exact[1]) / max(abs(exact[1]), 1e-300)
    return line
