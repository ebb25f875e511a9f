"""diffrax (JAX), jitted: one solve for the batch, or one a sample as in its own example of a flow.

Evaluations are counted apart from the timing, by a callback in another build of the step. Under `vmap` it would run
for every sample; there they are not known.
"""

from functools import cache, partial

import numpy as np
import torch

from benchmarks.peers.fields import HyperPlanar
from benchmarks.peers.protocol import NotPossible, Outcome, Way
from benchmarks.peers.workloads import Likelihood
from benchmarks.settings import DEVICE
from repro.ode import Solver


class Count:
    """Evaluations of the field so far."""

    def __init__(self):
        self.total = 0

    def add(self):
        """Count one."""
        self.total += 1


def _loss(workload, adjoint, by_sample, count=None):
    """The loss as a function of weights and tolerances, the weights, and what takes the gradient to ours."""
    import jax

    from benchmarks.peers import jax_losses

    if DEVICE.type != "cpu" and jax.default_backend() == "cpu":
        raise NotPossible(f"this JAX computes on the CPU, the others on {DEVICE.type}")
    if isinstance(workload, Likelihood):
        model, times = workload.theirs()
        loss = jax_losses.likelihood(workload, model, count, times=times, adjoint=adjoint, by_sample=by_sample)
    else:
        model = workload.make(Solver(), "backprop")
        loss = jax_losses.classification(workload, count, adjoint=adjoint)
    weights = tuple(jax.numpy.asarray(weight.detach().cpu().numpy()) for weight in model.parameters())
    return loss, weights, model.restored if isinstance(model, HyperPlanar) else tuple


@cache
def _compiled(workload, adjoint, by_sample):
    """The loss and its gradient, compiled once for all tolerances."""
    import jax

    loss, *others = _loss(workload, adjoint, by_sample)
    return jax.jit(jax.value_and_grad(loss)), *others


def _build(workload, rtol, atol, adjoint, by_sample=False):
    import jax

    compiled, weights, restored = _compiled(workload, adjoint, by_sample)

    def step():
        loss, gradient = jax.block_until_ready(compiled(weights, rtol, atol))
        return Outcome(float(loss), restored(tuple(torch.from_numpy(np.array(part)) for part in gradient)))

    return step


def _count(workload, rtol, atol, adjoint):
    import jax

    totals = []
    for transform in (lambda loss: loss, jax.value_and_grad):
        count = Count()
        loss, weights, _ = _loss(workload, adjoint, by_sample=False, count=count.add)
        jax.block_until_ready(jax.jit(transform(loss))(weights, rtol, atol))
        jax.effects_barrier()
        totals.append(count.total)
    return totals[0], totals[1] - totals[0]


MODULES = ("jax", "equinox", "diffrax")
ADJOINTS = {"recursive_checkpoint": "RecursiveCheckpointAdjoint", "backsolve": "BacksolveAdjoint"}
TRIAL = 150.0
"""Seconds for the first step of the network of images: XLA's convolutions on a CPU are slow."""


def _ways(kind, trial=None):
    return [
        Way(
            "diffrax",
            name,
            partial(_build, adjoint=adjoint),
            MODULES,
            (kind,),
            trial,
            count=partial(_count, adjoint=adjoint),
        )
        for name, adjoint in ADJOINTS.items()
    ]


BY_SAMPLE = partial(_build, adjoint=ADJOINTS["recursive_checkpoint"], by_sample=True)
WAYS = [
    *_ways("Likelihood"),
    Way("diffrax", "recursive_checkpoint_vmap", BY_SAMPLE, MODULES, ("Likelihood",)),
    *_ways("Classification", TRIAL),
]
