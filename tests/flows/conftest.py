import pytest
import torch
from torch import nn

from repro.flows.divergence import NEEDS_NOISE, gaussian
from repro.flows.low_variance import FEWEST_PROBES


class Linear(nn.Module):
    """f(t, y) = A y, whose flow and log-density are known."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, t, y):
        return y @ self.matrix.T

    def divergence(self, t, y):
        return self(t, y), self.matrix.trace().expand(len(y))


class Plain(nn.Module):
    """Any field without what it offers beyond f: estimators have to differentiate it by themselves."""

    def __init__(self, field):
        super().__init__()
        self.inner = field

    def forward(self, t, y):
        return self.inner(t, y)


@pytest.fixture
def linear():
    torch.manual_seed(3)
    return Linear(torch.randn(3, 3, dtype=torch.float64) * 0.6)


@pytest.fixture
def hide():
    return Plain


@pytest.fixture
def noise_for():
    """As few Gaussian probes as an estimator works with, in float64; None for those that need no noise."""

    def noise_for(name, dim, batch=4, bottleneck=7, seed=0):
        if name not in NEEDS_NOISE:
            return None
        shape = (FEWEST_PROBES.get(name, 1), batch, bottleneck if name == "bottleneck" else dim)
        return gaussian(shape, torch.Generator().manual_seed(seed)).double()

    return noise_for
