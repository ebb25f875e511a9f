import pytest
import torch
from jaxtyping import config
from torch import nn


class Net(nn.Module):
    """A small field that depends on time, in float64."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 8), nn.Linear(8, 2)

    def forward(self, t, y):
        return self.last(torch.tanh(self.first(y * torch.cos(t) + t)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().double()


@pytest.fixture
def y0():
    return torch.tensor([[1.0, -0.5], [0.3, 0.8], [-1.0, 0.2]], dtype=torch.float64)


@pytest.fixture
def without_type_checks():
    """Call the suite as a user does, whose arguments no annotation checks."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
