"""Table 1's networks: the public example's sizes, time as a channel, shapes, costs."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro.nets.odenet import (
    ConvField,
    OdeBlock,
    TimeConv2d,
    downsampling,
    mlp,
    ode_block_of,
    ode_net,
    residual_net,
)
from repro.ode import Solver

DOPRI5 = Solver("dopri5", rtol=1e-3, atol=1e-3)
NETWORKS = {
    "odenet conv": (lambda: ode_net("conv", DOPRI5, "adjoint"), 208_266),
    "resnet conv": (lambda: residual_net("conv", 6), 576_778),
    "odenet res": (lambda: ode_net("res", DOPRI5, "adjoint"), 232_970),
    "resnet res": (lambda: residual_net("res", 6), 601_482),
    "one block": (lambda: residual_net("conv", 1), 206_858),
    "no block": (lambda: residual_net("conv", 0), 132_874),
    "mlp": (mlp, 238_510),
}


@pytest.fixture(params=NETWORKS, ids=list(NETWORKS))
def network(request):
    return NETWORKS[request.param]


def test_number_of_trainable_parameters(network):
    make, parameters = network
    assert sum(p.numel() for p in make().parameters() if p.requires_grad) == parameters


def test_every_parameter_gets_a_gradient_and_every_image_ten_logits(network):
    model = network[0]()
    logits = model(torch.rand(3, 1, 28, 28))
    assert logits.shape == (3, 10)
    F.cross_entropy(logits, torch.tensor([1, 2, 3])).backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


@pytest.mark.parametrize(("kind", "side"), [("conv", 6), ("res", 7)])
def test_downsampling_sizes(kind, side):
    assert downsampling(kind)(torch.rand(2, 1, 28, 28)).shape == (2, 64, side, side)


@pytest.mark.parametrize("t", [0.0, 0.37, -2.0])
@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 4), (1, 1)])
def test_time_convolution_is_a_convolution_with_time_as_first_channel(t, height, width):
    layer = TimeConv2d(8).double()
    x = torch.randn(3, 8, height, width, dtype=torch.float64)
    time = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    concatenated = torch.cat([time.expand(3, 1, height, width), x], dim=1)
    expected = F.conv2d(concatenated, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(time, x), expected, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(y.square().sum(), [time, *layer.parameters()])
                    for y in (layer(time, x), expected))  # fmt: skip
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_the_field_depends_on_time_through_both_convolutions():
    field, y = ConvField(), torch.randn(2, 64, 6, 6)
    for layer in (field.conv1, field.conv2):
        with torch.no_grad():
            layer.weight[:, :1] = 0.0
    torch.testing.assert_close(field(torch.tensor(0.0), y), field(torch.tensor(9.0), y))
    for layer in (field.conv1, field.conv2):
        nn.init.normal_(layer.weight)
        assert not torch.allclose(field(torch.tensor(0.0), y), field(torch.tensor(9.0), y), atol=1e-3)
        with torch.no_grad():
            layer.weight[:, :1] = 0.0


class Decay(nn.Module):
    def __init__(self):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, t, y):
        return -self.rate * y


def test_the_block_integrates_from_zero_to_one():
    block = OdeBlock(Decay(), Solver("dopri5", rtol=1e-9, atol=1e-9), "adjoint")
    y = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    out = block(y)
    torch.testing.assert_close(out, y / math.e, rtol=1e-7, atol=0)
    out.sum().backward()
    assert block.field.rate.grad.item() == pytest.approx(1 / math.e, rel=1e-6)  # d/dk of (1 - 2) exp(-k)


def test_costs_are_those_of_the_last_call():
    block = OdeBlock(Decay(), DOPRI5, "adjoint")
    assert block.costs() == {}
    y = torch.ones(1, 2, dtype=torch.float64)
    out = block(y)
    stats = block.stats
    assert stats.nfe_forward == 2 + 6 * (stats.n_accepted + stats.n_rejected)
    out.sum().backward()
    assert block.costs() == {"nfe_forward": stats.nfe_forward, "nfe_backward": stats.nfe_backward}
    assert stats.nfe_backward > 0
    block(y)
    assert block.stats is not stats


def test_backprop_has_no_backward_count():
    block = OdeBlock(Decay(), Solver("rk4", step_size=0.25), "backprop")
    block(torch.ones(1, 2, dtype=torch.float64)).sum().backward()
    assert block.costs() == {"nfe_forward": 16}


def test_the_block_of_a_network_is_found():
    assert isinstance(ode_block_of(ode_net("conv", DOPRI5, "adjoint")), OdeBlock)
    assert ode_block_of(mlp()) is None
