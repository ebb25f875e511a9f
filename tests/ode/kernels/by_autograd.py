"""Steps by torch's operations, which autograd goes through: what native ones are compared with."""

import torch

from repro.ode.kernels import StageTimes
from repro.ode.replay import Step, replay

AT = StageTimes(0.1, 0.3, 0.4)
BACK = StageTimes(0.4, -0.3, 0.1)


def reference(system, at, y, tableau, outputs=(0.5,)):
    """The same step by torch, with the outputs at shares of it, so that all stages are taken."""
    numbers = [torch.tensor(value, dtype=y.dtype) for value in at]
    shares = torch.tensor(outputs, dtype=y.dtype)
    return replay(system, Step(*numbers, numbers[0] + shares * numbers[1]), y, None, tableau)


def error(actual, expected):
    """Relative, in the Euclidean norm."""
    return ((actual - expected).norm() / expected.norm()).item()
