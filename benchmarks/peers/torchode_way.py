"""torchode: one step size for the batch (`JointBacksolveAdjoint`), or one a sample (`AutoDiffAdjoint`)."""

from functools import partial

import torch
from torch import nn

from benchmarks.peers.fields import Traced
from benchmarks.peers.protocol import Way
from benchmarks.peers.torch_steps import flow_step, image_step
from benchmarks.peers.workloads import Likelihood


class FlatFlow(nn.Module):
    """A field with its log-density in one row a sample, as torchode wants its states."""

    def __init__(self, field, noise):
        super().__init__()
        self.traced = Traced(field, noise)

    def forward(self, t, state):
        """Derivative of a row."""
        dy, trace = self.traced(t, (state[:, :-1],))
        return torch.cat([dy, trace.unsqueeze(1)], 1)


class FlatImage(nn.Module):
    """A field of images, each flattened; written so that it can be scripted."""

    def __init__(self, field, shape):
        super().__init__()
        self.field, self.channels, self.height, self.width = field, *shape

    def forward(self, t, state):
        """Derivative of a row."""
        return self.field(t, state.view(-1, self.channels, self.height, self.width)).flatten(1)


def _integrator(function, times, rtol, atol, mode):
    import torchode

    term = torchode.ODETerm(function)
    method, controller = torchode.Dopri5(term=term), torchode.IntegralController(atol=atol, rtol=rtol, term=term)
    if mode == "joint_backsolve":
        solver = torchode.JointBacksolveAdjoint(term, method, controller)
    else:
        solver = torchode.AutoDiffAdjoint(method, controller)
    if mode == "autodiff_torchscript":
        solver = torch.jit.script(solver)

    def integrate(state):
        start, end = (state.new_full((len(state),), time) for time in times)
        return solver.solve(torchode.InitialValueProblem(state, start, end)).ys[:, -1]

    return integrate


def _build(workload, rtol, atol, mode):
    def flow(field, noise, times):
        integrate = _integrator(FlatFlow(field, noise), times, rtol, atol, mode)

        def carry(x):
            end = integrate(torch.cat([x, x.new_zeros(len(x), 1)], 1))
            return end[:, :-1], end[:, -1]

        return carry

    def block(field):
        stem = workload.theirs()[0]
        with torch.no_grad():
            shape = stem(workload.images[:1]).shape[1:]
        integrate = _integrator(FlatImage(field, shape), (0.0, 1.0), rtol, atol, mode)

        def carry(y):
            return integrate(y.flatten(1)).unflatten(1, shape)

        return carry

    return flow_step(workload, flow) if isinstance(workload, Likelihood) else image_step(workload, block)


WAYS = [
    Way("torchode", mode, partial(_build, mode=mode), ("torchode",))
    for mode in ("joint_backsolve", "autodiff", "autodiff_torchscript")
]
