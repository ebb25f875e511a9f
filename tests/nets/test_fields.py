"""Fields of continuous flows: sizes, layers as the public code writes them, tangents, traces, determinism."""

import pytest
import torch
from torch.nn import functional as F

from repro.nets.fields import ACTIVATIONS, FIELDS, ConcatField, ConcatSquash, ConcatSquashField


def count(field):
    return sum(p.numel() for p in field.parameters())


@pytest.fixture(params=FIELDS)
def layer(request):
    return request.param


@pytest.fixture(params=ACTIVATIONS)
def activation(request):
    return request.param


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    return torch.tensor(0.3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)


# papers.md B.6, less one inert end time for each of the flow steps
SIZES = {
    "toy": (2, 64, 3, 1, 9_225, 8_837),
    "power": (6, 60, 3, 5, 43_325, 41_465),
    "gas": (8, 160, 3, 5, 278_565, 273_685),
    "hepmass": (21, 210, 2, 10, 546_850, 538_030),
    "miniboone": (43, 860, 2, 1, 820_613, 817_087),
    "bsds300": (63, 1260, 3, 2, 6_698_666, 6_683_294),
}


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_those_of_the_papers_models_less_their_end_times(name):
    dim, width, depth, flows, squash, concat = SIZES[name]
    with torch.device("meta"):
        assert flows * count(ConcatSquashField(dim, width, depth)) == squash - flows
        assert flows * count(ConcatField(dim, width, depth)) == concat - flows


def test_concatsquash_is_the_gated_sum_of_its_definition(inputs):
    t, x = inputs
    layer = ConcatSquash(3, 4).double()
    weight, bias = layer.at(t)
    time = t.view(1, 1)
    expected = layer.linear(x) * torch.sigmoid(layer.gate(time)) + layer.shift(time)
    torch.testing.assert_close(F.linear(x, weight, bias), expected, rtol=1e-14, atol=1e-14)


def test_concat_is_a_layer_with_time_as_first_input(inputs):
    t, x = inputs
    field = ConcatField(3, 4, 1).double()
    first, last = field.layers
    with_time = torch.cat([t.expand(5, 1), x], 1)
    hidden = torch.tanh(first.linear(with_time))
    expected = last.linear(torch.cat([t.expand(5, 1), hidden], 1))
    torch.testing.assert_close(field(t, x), expected, rtol=1e-14, atol=1e-14)


def test_only_ignore_ignores_the_time(layer, make_field, inputs):
    t, x = inputs
    field = make_field(3, layer=layer)
    assert torch.equal(field(t, x), field(t + 0.1, x)) == (layer == "ignore")


def test_two_evaluations_agree_in_training_mode(layer, make_field, inputs):
    t, x = inputs
    field = make_field(3, layer=layer).train()
    with torch.no_grad():
        values = [torch.cat([field(t, x), field.divergence(t, x)[1][:, None]], 1) for _ in range(2)]
    assert torch.equal(*values)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_encode_then_decode_is_the_field(layer, make_field, inputs, depth):
    t, x = inputs
    field = make_field(3, 4, depth, layer=layer)
    hidden = field.encode(t, x)
    assert hidden.shape == (5, field.bottleneck)
    torch.testing.assert_close(field.decode(t, hidden), field(t, x))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tangents_are_jacobian_products(layer, activation, make_field, inputs, depth):
    t, x = inputs
    field, v = make_field(3, 6, depth, layer=layer, activation=activation), torch.randn(2, 5, 3, dtype=torch.float64)
    dy, pushed = field.push(t, x, v)
    torch.testing.assert_close(dy, field(t, x))
    for probe, product in zip(v, pushed, strict=True):
        torch.testing.assert_close(product, torch.func.jvp(lambda y: field(t, y), (x,), (probe,))[1])


# width below and above 2 dim: the folded and the pushed way
@pytest.mark.parametrize(("dim", "width"), [(1, 4), (3, 4), (3, 9)])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_divergence_is_the_trace(layer, activation, make_field, trace_of, dim, width, depth):
    field = make_field(dim, width, depth, layer=layer, activation=activation)
    t, x = torch.tensor(0.3, dtype=torch.float64), torch.randn(5, dim, dtype=torch.float64)
    dy, trace = field.divergence(t, x)
    torch.testing.assert_close(dy, field(t, x))
    torch.testing.assert_close(trace, trace_of(field, t, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("depth", "width"), [(1, 3), (2, 3), (3, 3), (3, 5)])
def test_divergence_has_second_derivatives(make_field, depth, width):
    field = make_field(2, width, depth)
    x = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(field.divergence, (t, x), atol=1e-6)


@pytest.mark.parametrize(("argument", "value"), [("dim", 0), ("width", 0), ("depth", 0), ("activation", "relu")])
def test_bad_sizes_are_named(layer, argument, value):
    with pytest.raises(ValueError, match=argument):
        FIELDS[layer](**{"dim": 2, argument: value})
