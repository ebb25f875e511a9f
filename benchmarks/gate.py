"""The regression gate: `python -m benchmarks.gate [--renew]`, seconds, no clock.

Evaluations, steps, bytes that autograd keeps, floating-point operations and the exponents fitted to them are the same
on every machine. Those of a fixed set stand in results/benchmarks/reference.json; the gate fails where one differs
from there, whether for better or worse. Who means the change renews the file in the same commit. Times never gate.
"""

import argparse
import json
import math
import sys
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import tasks
from benchmarks.settings import DEVICE
from repro.flows import CNF
from repro.measuring.fits import exponent, slope
from repro.measuring.meters import counted
from repro.measuring.step import flow_step, solve_step
from repro.nets.fields import ConcatSquashField
from repro.ode import GRADIENTS, SOLVERS, Solver
from repro.ode.gradients import supported
from repro.ode.problems import PROBLEMS
from repro.results import results_root, write_json

COUNTS = ("nfe_forward", "nfe_backward", "n_accepted", "n_rejected", "n_accepted_backward", "n_rejected_backward")
DEPTHS, DIMENSIONS, WIDTH = (2, 4, 8), (64, 128, 256, 512), 16


def figures():
    """Every figure of the set by its name."""
    found = {}
    for name, solver in SOLVERS.items():
        for gradient in GRADIENTS:
            if supported(solver, gradient) is None:
                found |= _named(f"oscillator, {name}, {gradient}", _solved(solver, gradient), COUNTS)
    for gradient in GRADIENTS:
        solver = Solver(rtol=1e-6, atol=1e-6)
        step = tasks.flow(solver, gradient, dim=4, width=16, batch=8, dtype=torch.float64)
        found |= _named(f"CNF, dopri5, {gradient}", counted(step), COUNTS)
        found |= _memory("ODE-Net", gradient, partial(tasks.classifier, batch=2))
        found |= _memory("CNF", gradient, partial(tasks.flow, dim=4, width=16, batch=8))
    for divergence in ("exact", "closed_form", "hutchinson"):
        found |= _operations(divergence)
    return found


def _named(name, known, keys):
    return {f"{name}: {key}": known[key] for key in keys}


def _solved(solver, gradient):
    problem = PROBLEMS["oscillator"]
    return counted(solve_step(problem.field, problem.y0, problem.times(3), solver, gradient))


def _memory(name, gradient, make):
    """Bytes that autograd keeps by RK4 steps, and what a step adds."""
    kept = [counted(make(tasks.fixed(steps), gradient))["saved_bytes"] for steps in DEPTHS]
    known = {f"saved_bytes at {steps} steps": value for steps, value in zip(DEPTHS, kept, strict=True)}
    return _named(f"{name}, rk4, {gradient}", known, known) | {
        f"{name}, rk4, {gradient}: bytes per step": slope(DEPTHS, kept).value
    }


def _operations(divergence):
    """Floating-point operations of a training step against the dimension, and their exponent."""
    flops = []
    for dim in DIMENSIONS:
        torch.manual_seed(0)
        field = ConcatSquashField(dim, WIDTH, 2)
        x, noise = torch.randn(2, 4, dim, generator=tasks.stream())
        flow = CNF(field, dim, 1.0, divergence, Solver("euler", step_size=1.0), "backprop")
        step = flow_step(flow, x, noise[None] if divergence == "hutchinson" else None)
        with FlopCounterMode(display=False) as counter:
            step.take()
        flops.append(counter.get_total_flops())
    known = {f"flops at D = {dim}": value for dim, value in zip(DIMENSIONS, flops, strict=True)}
    return _named(f"trace, {divergence}", known, known) | {
        f"trace, {divergence}: exponent of flops in D": exponent(DIMENSIONS, flops).value
    }


def differences(stored, found):
    """What is not as stored, in lines; a figure is as stored if it is equal, or for a fit to nine digits."""
    return [
        f"{name}: stored {stored.get(name, 'nothing')}, now {found.get(name, 'nothing')}"
        for name in {**stored, **found}
        if name not in stored or name not in found or not _same(stored[name], found[name])
    ]


def _same(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return a == b


def main(arguments=None):
    """Compare, or store anew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__.splitlines()[0])
    parser.add_argument("--renew", action="store_true", help="store the figures as they are now")
    renew = parser.parse_args(arguments).renew
    if DEVICE.type != "cpu":
        parser.error("the stored figures are a CPU's, which everybody has: set REPRO_BENCH_DEVICE=cpu")
    torch.set_num_threads(1)
    path = results_root() / "benchmarks" / "reference.json"
    found = figures()
    changed = differences(json.loads(path.read_text()) if path.exists() else {}, found)
    for line in changed:
        print(line)
    if renew:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
    elif changed:
        print("the regression gate: figures differ; if that is meant, run `python -m benchmarks.gate --renew`")
    print(f"{len(found)} figures, {len(changed)} {'renewed' if renew else 'differ'}")
    return 1 if changed and not renew else 0


if __name__ == "__main__":
    sys.exit(main())
