"""This suite: native steps where the field offers a kernel, replayed for the gradient or their products kept for it."""

import copy
from functools import partial

from benchmarks.peers.protocol import Way
from benchmarks.peers.workloads import Likelihood, classification_step, likelihood_step
from repro.ode import Solver

PEER = "neural-ode-ffjord-suite"


def _build(workload, rtol, atol, engine, gradient):
    solver = Solver("dopri5", rtol=rtol, atol=atol, engine=engine)
    if isinstance(workload, Likelihood):
        return likelihood_step(copy.deepcopy(workload.field), workload, solver, gradient)
    return classification_step(workload.make(solver, gradient), workload)


GRADIENTS = ("checkpoint", "backprop", "adjoint", "adjoint_seminorm")
WAYS = [Way(PEER, name, partial(_build, engine="compiled", gradient=name), ("repro",)) for name in GRADIENTS]
