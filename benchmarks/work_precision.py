"""Every solver on one problem, from loose to tight: error, evaluations and time of the forward solve, taken in turn.

Problems are those with closed forms, and the published toy flow, whose state and log-density come from one solve. All
is in float64, so that errors are those of the methods. Fields of the closed-form problems are plain functions, which
the compiled engine steps eagerly; the flow's steps it takes by the native kernel where there is one, never by
torch.compile, whose half a minute per graph would hide everything else.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch

from benchmarks.settings import DEVICE, grid
from benchmarks.toys import points, toy_flow
from repro.measuring.fits import exponent
from repro.measuring.meters import in_turn, relative_error, status_of
from repro.ode import PROBLEMS, SOLVERS, Solver, Stats, solve

TOLERANCES = grid((1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9), (1e-3, 1e-5, 1e-7))
STEPS = grid((4, 8, 16, 32, 64, 128, 256), (32, 64, 128))
"""From start to end; powers of two, so that their sizes are exact."""
FLOWS = ("8gaussians",)
"""Cells of FFJORD's Figure 2."""
BATCH = 64
CORRECTOR = 1e-10
"""Tolerance to which implicit_adams iterates its corrector: so tight that its error is that of its steps."""
BUDGET = grid(2000, 500)
"""Evaluations after which a solve is given up: methods of order 2 need far more at tight tolerances."""
REFERENCE = 1e-13
"""Tolerance of a flow's reference, by dopri5."""
ROUNDS, LONGEST = grid(5, 2), grid(0.3, 0.05)
"""Timed solves of a setting, fewer where they take so many seconds together, but one at least."""
FINEST, ASYMPTOTIC = 1e-11, 32
"""An order is fitted where errors are above rounding and steps are at least so many."""

Outcome = tuple[torch.Tensor, torch.Tensor | None, Stats]
"""State at the end, log-density where there is one, cost."""


@dataclass(frozen=True)
class Task:
    """A problem: how a solver is applied to it, and what is exact.

    Attributes:
        length: Of the time interval.
        run: Solves, without gradients.
        exact: The state [batch dim] at the end, in float64.
        exact_log_prob: The log-density [batch] of the data, in nats; None where there is none.
    """

    length: float
    run: Callable[[Solver], Outcome]
    exact: torch.Tensor
    exact_log_prob: torch.Tensor | None = None


@dataclass
class Cell:
    """A solver with a setting, what is known of it, and the seconds of its timed solves."""

    known: dict[str, Any]
    run: Callable[[], Outcome] | None
    seconds: list[float] = field(default_factory=list)


def task_of(name):
    """The problem of this name: one of `PROBLEMS`, or one of `FLOWS` as it was published."""
    if name in PROBLEMS:
        return closed_form(PROBLEMS[name])
    return flow_task(partial(toy_flow, name, "trained"), points(name, BATCH))


def closed_form(problem):
    """A problem whose solution is known."""
    y0, t = problem.y0.to(DEVICE), problem.times().to(DEVICE)

    def run(solver):
        solution = solve(problem.field, y0, t, solver, parameters=())
        return solution.y[-1], None, solution.stats

    return Task(problem.t1 - problem.t0, run, problem.solution(problem.times())[-1].to(DEVICE))


def flow_task(make, x):
    """Data carried to the base with their log-densities; exact is dopri5 at a tolerance of 1e-13.

    Args:
        make: Makes the flow from a solver and a gradient method.
        x: Data [batch dim] in float64.
    """

    def run(solver):
        flow = make(solver, "adjoint")
        z, gain = flow.transform(x)
        return z, flow.base_log_prob(z) + gain, flow.stats

    with torch.no_grad():
        exact, log_prob, _ = run(Solver(rtol=REFERENCE, atol=REFERENCE))
    return Task(make(Solver(), "adjoint").t1, run, exact, log_prob)


def settings():
    """Each solver's name with each of its settings."""
    return [(name, s) for name, solver in SOLVERS.items() for s in (STEPS if solver.is_fixed_step else TOLERANCES)]


def solver_of(name, setting, length):
    """A solver of `SOLVERS` with so many steps over an interval, or with a tolerance."""
    solver = replace(SOLVERS[name], max_nfe=BUDGET)
    if solver.is_fixed_step:
        return replace(solver, step_size=length / setting, rtol=CORRECTOR, atol=CORRECTOR)
    return replace(solver, rtol=setting, atol=setting)


def measure(name):
    """Everything about a problem, to be called in a process of its own.

    Returns:
        By (solver, setting): what is known and the seconds, as `{"known": …, "seconds": […]}`.
    """
    os.environ.setdefault("REPRO_KERNELS", "native")
    task = task_of(name)
    with torch.no_grad():
        cells = {key: cell_of(name, task, *key) for key in settings()}
        interleave(list(cells.values()))
    for solver in SOLVERS:
        found = order([cell.known for (known, _), cell in cells.items() if known == solver])
        for (known, _), cell in cells.items():
            cell.known |= {"order": found} if known == solver else {}
    return {key: {"known": cell.known, "seconds": cell.seconds} for key, cell in cells.items()}


def cell_of(name, task, method, setting):
    """A setting after one solve: errors and counts, or a status that says why there are none."""
    solver = solver_of(method, setting, task.length)
    known = {"work_precision": name, "method": method, "engine": solver.engine, "setting": setting}
    known["kind"] = "steps" if solver.is_fixed_step else "tolerance"
    known["nominal_order"] = solver.order
    try:
        end, log_prob, stats = task.run(solver)
    except Exception as error:  # what fails is a result
        return Cell(known | {"status": status_of(error)}, None)
    counts = {key: value for key, value in asdict(stats).items() if "backward" not in key}
    known |= {"status": "ok", "error": relative_error(end.flatten(), task.exact.flatten()), **counts}
    if log_prob is not None and task.exact_log_prob is not None:
        known["error_log_prob"] = float((log_prob - task.exact_log_prob).abs().mean())
    return Cell(known, partial(task.run, solver))


def interleave(cells):
    """Time the solves of the cells that have one, in turn."""
    calls = {index: cell.run for index, cell in enumerate(cells) if cell.run is not None}
    for index, seconds in in_turn(calls, ROUNDS, DEVICE, LONGEST, 1).items():
        cells[index].seconds += seconds


def order(points):
    """How fast the error falls: with the steps where they are given, with the evaluations where tolerances steer them.

    Args:
        points: What is known of a solver's settings on one problem.

    Returns:
        Minus the exponent of the error in the steps or evaluations; None where too few errors are asymptotic and above
        rounding.
    """
    used = [p for p in points if p["status"] == "ok" and p["error"] > FINEST]
    used = [p for p in used if p["kind"] == "tolerance" or p["setting"] >= ASYMPTOTIC]
    if len(used) < 3:
        return None
    work = [float(p["setting" if p["kind"] == "steps" else "nfe_forward"]) for p in used]
    return -exponent(work, [p["error"] for p in used]).value if len(set(work)) > 1 else None
