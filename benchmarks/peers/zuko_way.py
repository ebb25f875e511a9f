"""zuko: its free-form transformation for flows, its `odeint` else; both differentiate each accepted step again.

zuko draws its probe inside, by `torch.randn_like`: every step is seeded so that it draws the workload's. Its
log-determinant is scaled by 0.01 within the solve and its error is the largest component's, so that the same
tolerance means something else than in the other libraries.
"""

import torch

from benchmarks.peers.protocol import Way
from benchmarks.peers.torch_steps import flow_step, image_step
from benchmarks.peers.workloads import NOISE_SEED, Likelihood


def _build(workload, rtol, atol):
    from zuko.transforms import FreeFormJacobianTransform
    from zuko.utils import odeint

    def flow(field, noise, times):
        exact = noise is None
        transform = FreeFormJacobianTransform(field, *times, field.parameters(), atol=atol, rtol=rtol, exact=exact)

        def carry(x):
            torch.manual_seed(NOISE_SEED)
            return transform.call_and_ladj(x)

        return carry

    def block(field):
        return lambda y: odeint(field, y, 0.0, 1.0, field.parameters(), atol, rtol)

    return flow_step(workload, flow) if isinstance(workload, Likelihood) else image_step(workload, block)


WAYS = [Way("zuko", "checkpoint", _build, ("zuko",))]
