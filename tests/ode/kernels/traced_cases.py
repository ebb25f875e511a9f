"""What `test_traced.py` runs in a process of its own, where no annotations are checked: checks do not survive tracing.

Takes the name of torch.compile's backend; prints a JSON object of comparisons with the reference engine.
"""

import functools
import json
import logging
import sys
from unittest import mock

import torch
from torch import nn

from repro.flows import CNF
from repro.flows.divergence import NEEDS_NOISE
from repro.ode import Solver, solve
from repro.ode.kernels import advances, compile_seconds

TIMES = torch.tensor([0.0, 0.3, 0.31, 1.0], dtype=torch.float64)


class Net(nn.Module):
    """A field that offers nothing."""

    def __init__(self, width=8):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 3)

    def forward(self, t, y):
        return self.last(nn.functional.silu(self.first(torch.cat([y, t.expand(len(y), 1)], 1))))


class Untraceable(Net):
    @torch.compiler.disable
    def forward(self, t, y):
        return super().forward(t, y)


def both(field, compute):
    """Largest difference of values and gradients, and the costs, by the two engines."""
    found, stats = {}, {}
    for engine in ("torchdiffeq", "compiled"):
        field.zero_grad()
        y = torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        value, stats[engine] = compute(y, engine)
        value.square().mean().backward()
        found[engine] = [value.detach(), y.grad, *[p.grad for p in field.parameters()]]
    pairs = zip(found["torchdiffeq"], found["compiled"], strict=True)
    largest = max(float((a - b).abs().max()) for a, b in pairs)
    return {"difference": largest, "same": stats["torchdiffeq"] == stats["compiled"]}


def by_solve(field, gradient, **settings):
    def compute(y, engine):
        solution = solve(field, y, TIMES, Solver(engine=engine, **settings), gradient)
        return solution.y, (solution.stats.nfe_forward, solution.stats.n_accepted, solution.stats.n_rejected)

    return compute


def by_flow(field, divergence):
    def compute(y, engine):
        noise = torch.randn(3, 11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        solver = Solver("midpoint", step_size=0.3, engine=engine)
        flow = CNF(field, 3, 1.0, divergence, solver, "checkpoint", n_probes=3)
        value = flow.log_prob(y, noise if divergence in NEEDS_NOISE else None)
        return value, flow.stats.nfe_forward

    return compute


def many_structures():
    """More widths than torch compiles one function for: the rest steps eagerly, and is right."""
    cases = []
    for width in range(2, 14):
        field = Net(width).double()
        cases.append(both(field, by_solve(field, "checkpoint", method="euler", step_size=0.3)))
    return {"difference": max(case["difference"] for case in cases), "same": all(case["same"] for case in cases)}


def main(backend):
    """Run the cases that this backend is asked for."""
    torch.compile = functools.partial(torch.compile, backend=backend)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    field = Net().double()
    results = {"checkpoint, midpoint": both(field, by_solve(field, "checkpoint", method="midpoint", step_size=0.3))}
    if backend == "inductor":  # what CUDA does, on a device where torch records nothing: the trials find no difference
        with mock.patch.object(advances, "recordable", return_value=True):
            results["tried"] = both(field, by_solve(field, "checkpoint", method="midpoint", step_size=0.15))
        tried = list(advances._RECORDED.values())
        assert len(tried) == 2
        assert not any(recorded.given_up for recorded in tried)
    if backend == "aot_eager":
        for gradient in ("checkpoint", "backprop"):
            adaptive = by_solve(field, gradient, method="bosh3", rtol=1e-4, atol=1e-4, first_step=0.05)
            results[f"{gradient}, bosh3"] = both(field, adaptive)
        for divergence in ("hutchinson", "exact", "hutchpp", "xtrace"):
            results[f"flow, {divergence}"] = both(field, by_flow(field, divergence))
        strange = Untraceable().double()
        results["untraceable"] = both(strange, by_solve(strange, "checkpoint", method="midpoint", step_size=0.3))
    if backend == "aot_eager":
        results["many structures"] = many_structures()
    graphs = len(advances._ADVANCES)
    seconds = compile_seconds()
    shapes = 0
    for rows in (11, 7, 5, 3, 2):
        y = torch.randn(rows, 3, dtype=torch.float64)
        before = compile_seconds()
        solve(field, y, TIMES, Solver("midpoint", engine="compiled", step_size=0.3), "checkpoint").y.sum().backward()
        shapes += compile_seconds() > before
    print(json.dumps({"cases": results, "graphs": graphs, "seconds": seconds, "compilations": shapes}))


if __name__ == "__main__":
    main(sys.argv[1])
