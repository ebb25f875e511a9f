"""The discrete baseline: a density, its samples, its shapes, its start at the identity."""

import math

import pytest
import torch
from torch.func import jacrev, vmap

from repro.nets.couplings import glow


def shaken(dim=2, depth=4, width=8):
    """A small flow away from the identity, in float64."""
    flow = glow(dim, depth=depth, width=width).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow


def train(flow, steps=10):
    """Fit two clusters for a few steps; give the losses."""
    corner = torch.tensor([1.0, -1.0], dtype=torch.float64)
    x = torch.cat([corner + 0.5 * torch.randn(50, 2).double(), -corner + 0.5 * torch.randn(50, 2).double()])
    optimizer, losses = torch.optim.Adam(flow.parameters(), lr=5e-3), []
    for _ in range(steps):
        loss = -flow.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_shapes_and_number_of_parameters():
    flow = glow()
    shapes = [tuple(p.shape) for p in flow.parameters()]
    layer = [(2, 2), (64, 1), (64,), (64, 64), (64,), (2, 64), (2,)]
    assert shapes == 100 * layer


@pytest.mark.parametrize(("dim", "depth", "width", "hidden"), [(3, 2, 5, 1), (2, 1, 4, 3)])
def test_settings_are_the_networks_sizes(dim, depth, width, hidden):
    flow = glow(dim, depth, width, hidden).double()
    assert sum(p.ndim == 2 for p in flow.parameters()) == depth * (1 + hidden + 1)
    assert sum(p.shape == (width, width) for p in flow.parameters()) == depth * (hidden - 1)
    assert flow.log_prob(torch.randn(4, dim).double()).shape == (4,)
    assert flow.sample(4).shape == (4, dim)


def test_it_starts_as_the_identity():
    flow, x = glow(depth=20).double(), torch.randn(50, 2, dtype=torch.float64)
    expected = -0.5 * x.square().sum(1) - math.log(2 * math.pi)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=0, atol=1e-12)
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torch.testing.assert_close(flow.sample(5, torch.Generator().manual_seed(4)), z, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 3])
def test_log_prob_is_the_change_of_variables(dim):
    flow, x = shaken(dim), torch.randn(6, dim, dtype=torch.float64)
    transform = flow.flow.transform()
    jacobian = vmap(jacrev(lambda row: flow.flow.transform()(row[None])[0]))(x)
    expected = -0.5 * (transform(x).square().sum(1) + dim * math.log(2 * math.pi))
    expected = expected + torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-10, atol=1e-10)


def test_training_learns_and_the_density_integrates_to_one():
    flow = shaken(depth=5, width=16)
    losses = train(flow, steps=30)
    assert losses[-1] < losses[0] - 0.2
    axis = torch.linspace(-12, 12, 401, dtype=torch.float64)
    with torch.no_grad():
        mass = flow.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-3)


def test_samples_are_base_draws_through_the_inverse():
    flow = shaken()
    x = flow.sample(50, torch.Generator().manual_seed(3))
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    torch.testing.assert_close(flow.flow.transform()(x), z, rtol=0, atol=1e-9)
    assert torch.equal(flow.sample(50, torch.Generator().manual_seed(3)), x)
    assert not torch.equal(flow.sample(50, torch.Generator().manual_seed(5)), x)


def test_samples_follow_the_density():
    """Moments by samples and by quadrature, within five standard errors."""
    flow, n = shaken(), 20_000
    axis = torch.linspace(-15, 15, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        weights = flow.log_prob(grid).exp() * (axis[1] - axis[0]) ** 2
        x = flow.sample(n, torch.Generator().manual_seed(0))
    for g in (lambda p: p[:, 0], lambda p: p[:, 1], lambda p: p.prod(1)):
        values = g(x)
        assert abs(values.mean() - (weights * g(grid)).sum()) < 5 * values.std() / math.sqrt(n)


def test_masks_alternate():
    """A coupling leaves one coordinate as it is: the first one in odd layers, the second one in even layers."""
    flow, x = shaken(depth=4), torch.randn(6, 2, dtype=torch.float64)
    couplings = flow.flow.transform().transforms[1::2]
    kept = [(coupling(x) == x).all(0).tolist() for coupling in couplings]
    assert kept == 2 * [[True, False], [False, True]]


def test_every_parameter_gets_a_gradient_away_from_the_start():
    flow = shaken()
    flow.log_prob(torch.randn(50, 2, dtype=torch.float64)).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in flow.parameters())


@pytest.mark.parametrize(
    ("name", "value", "least"), [("dim", 1, 2), ("depth", 0, 1), ("width", 0, 1), ("hidden", 0, 1)]
)
def test_a_size_out_of_range_is_named(name, value, least):
    with pytest.raises(ValueError, match=f"^{name} must be at least {least}; got {value}"):
        glow(**{name: value})


def test_a_couplings_factor_stays_within_its_bound():
    flow = glow(depth=1, width=4, largest_scale=2.0).double()
    layer = flow.flow.transform.transforms[1]
    with torch.no_grad():
        for parameter in layer.hyper.parameters():
            parameter.mul_(0).add_(50.0)
    x = torch.tensor([[0.3, 0.7], [0.3, 1.7]], dtype=torch.float64)
    a, b = layer()(x)
    factor = float((b - a).abs().max())
    assert 1.9 < factor < 2
    with pytest.raises(ValueError, match=r"^largest_scale must be finite and > 1; got 1"):
        glow(largest_scale=1.0)


def test_wrong_points_and_counts_are_named():
    flow = glow(depth=1)
    with pytest.raises(ValueError, match=r"^x must have shape \[batch, 2\]; got \(4, 3\)"):
        flow.log_prob(torch.randn(4, 3))
    with pytest.raises(ValueError, match=r"^x must be finite; 1 of its numbers"):
        flow.log_prob(torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(ValueError, match=r"^n must be at least 1; got 0"):
        flow.sample(0)
