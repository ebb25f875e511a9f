"""torchdyn: its `CNF` and `NeuralODE`.

The CNF calls its network without the time, which torchdyn hands to every submodule that has an attribute `t`; and it
draws its probe from a distribution, which here always gives the workload's. Its adjoints are wrong where times
decrease, so that such a field is given to it backwards.
"""

from functools import partial

import torch
from torch import nn

from benchmarks.peers.protocol import Way
from benchmarks.peers.torch_steps import flow_step, image_step
from benchmarks.peers.workloads import Likelihood
from benchmarks.settings import DEVICE

SENSITIVITIES = ("adjoint", "interpolated_adjoint", "autograd")


class Timed(nn.Module):
    """A field whose time is set from outside."""

    def __init__(self, field):
        super().__init__()
        self.field, self.t = field, None

    def forward(self, x):
        """dx/dt at the time that was set."""
        return self.field(self.t, x)


class WithArguments(nn.Module):
    """A field that takes the further arguments that torchdyn passes on."""

    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, t, x, args=None):
        """dx/dt."""
        return self.field(t, x)


class Backwards(nn.Module):
    """A field along the time that passes from `start` on towards smaller times."""

    def __init__(self, field, start):
        super().__init__()
        self.field, self.start = field, start

    def forward(self, s, x):
        """dx/ds, s = start - t."""
        return -self.field(self.start - s, x)


class Given:
    """A distribution that gives the same sample at every draw."""

    def __init__(self, sample):
        self._sample = sample

    def sample(self, shape):
        """The sample."""
        return self._sample


def _build(workload, rtol, atol, sensitivity):
    from torchdyn.core import NeuralODE
    from torchdyn.models import CNF, autograd_trace, hutch_trace

    settings = {"atol": atol, "rtol": rtol, "atol_adjoint": atol, "rtol_adjoint": rtol, "sensitivity": sensitivity}

    def flow(field, noise, times):
        start, end = times
        if end < start:
            field, times = Backwards(field, start), (0.0, start - end)
        trace = (autograd_trace,) if noise is None else (hutch_trace, Given(noise))
        model, t = NeuralODE(CNF(Timed(field), *trace), solver="dopri5", **settings), torch.tensor(times, device=DEVICE)

        def carry(x):
            # the first column is minus the integral of the trace
            end = model(torch.cat([x.new_zeros(len(x), 1), x], 1), t)[1][-1]
            return end[:, 1:], -end[:, 0]

        return carry

    def block(field):
        model = NeuralODE(WithArguments(field), solver="dopri5", **settings)
        return lambda y: model(y, torch.tensor([0.0, 1.0], device=DEVICE))[1][-1]

    return flow_step(workload, flow) if isinstance(workload, Likelihood) else image_step(workload, block)


WAYS = [
    Way("torchdyn", name, partial(_build, sensitivity=name), ("torchdyn.core", "torchdyn.models"))
    for name in SENSITIVITIES
]
