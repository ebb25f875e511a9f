"""Where a parameter's numbers lie among its views: what autograd gives to the one is at that place of the other."""

import pytest
import torch

from repro.nets.fields import FIELDS
from repro.ode.kernels.layers import numbers_of
from repro.ode.kernels.views import places_of


def weight(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def layers_of(name):
    """A field's layers as its kernel reads them, and its parameters."""
    field = FIELDS[name](3, 7, 2, "tanh").double()
    return [layer.affine() for layer in field.layers], list(field.parameters())


@pytest.mark.parametrize("name", list(FIELDS))
def test_gradients_of_views_move_to_the_places_that_autograd_brings_them_to(name):
    layers, parameters = layers_of(name)
    views = numbers_of(layers)
    cotangents = [torch.randn_like(view) for view in views]
    expected = torch.autograd.grad(views, parameters, cotangents, materialize_grads=True)
    flat = torch.cat([g.flatten() for g in cotangents] + [torch.zeros(1, dtype=torch.float64)])
    found = flat[places_of(views, parameters)]
    torch.testing.assert_close(found, torch.cat([g.flatten() for g in expected]), rtol=0, atol=0)


@pytest.mark.parametrize("name", list(FIELDS))
def test_views_of_frozen_parameters_are_constants(name):
    layers, parameters = layers_of(name)
    parameters[0].requires_grad_(False)
    layers = [type(layer)(*(None if x is None else x.detach() for x in layers[0])) for layer in layers[:1]] + layers[1:]
    places = places_of(numbers_of(layers), parameters[1:])
    assert places is not None
    assert len(places) == sum(p.numel() for p in parameters[1:])


def test_columns_and_what_no_view_shows():
    a, b = weight(2, 3), weight(2)
    assert places_of([a[:, 1:], b], [a, b]).tolist() == [6, 0, 1, 6, 2, 3, 4, 5]
    assert places_of([b], [a, b]).tolist() == [2] * 6 + [0, 1]


def test_two_parameters_in_one_memory_are_told_apart():
    memory = torch.randn(8)
    a, b = (memory[part].requires_grad_() for part in (slice(0, 4), slice(4, 8)))
    assert places_of([b, a[1:3]], [a, b]).tolist() == [6, 4, 5, 6, 0, 1, 2, 3]


@pytest.mark.parametrize(
    "make",
    [
        lambda a: [2 * a],
        lambda a: [a[:1], a],
        lambda a: [a.expand(3, 2, 3)],
        lambda a: [a, weight(2)],
        lambda a: [a.clone()],
    ],
    ids=["scaled", "shown twice", "expanded", "of another parameter", "copied"],
)
def test_what_does_not_simply_move_has_no_places(make):
    a = weight(2, 3)
    assert places_of(make(a), [a]) is None


def test_a_parameter_that_lies_apart_has_no_places():
    a = torch.randn(3, 2).T.requires_grad_()
    assert places_of([a[0]], [a]) is None
