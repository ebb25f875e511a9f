import pytest
import torch
from torch import nn


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
