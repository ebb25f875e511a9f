"""torchdiffeq, used directly; its adjoint is what every other way is set against."""

from functools import partial

import torch
from torchdiffeq import odeint, odeint_adjoint

from benchmarks.peers.fields import Traced
from benchmarks.peers.protocol import Way
from benchmarks.peers.torch_steps import flow_step, image_step
from benchmarks.peers.workloads import Likelihood
from benchmarks.settings import DEVICE

SEMINORM = {"adjoint_options": {"norm": "seminorm"}}


def _build(workload, rtol, atol, integrate, options):
    settings = {"rtol": rtol, "atol": atol, "method": "dopri5", **options}

    def flow(field, noise, times):
        function, t = Traced(field, noise), torch.tensor(times, device=DEVICE)

        def carry(x):
            z, gain = integrate(function, (x, x.new_zeros(len(x))), t, **settings)
            return z[-1], gain[-1]

        return carry

    def block(field):
        return lambda y: integrate(field, y, torch.tensor([0.0, 1.0], device=DEVICE), **settings)[-1]

    return flow_step(workload, flow) if isinstance(workload, Likelihood) else image_step(workload, block)


MODES = {"adjoint": (odeint_adjoint, {}), "adjoint_seminorm": (odeint_adjoint, SEMINORM), "backprop": (odeint, {})}
WAYS = [
    Way("torchdiffeq", name, partial(_build, integrate=integrate, options=options), ("torchdiffeq",))
    for name, (integrate, options) in MODES.items()
]
