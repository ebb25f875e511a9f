"""The discrete planar flow: determinants, gradients, inversion, densities that integrate to one."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.func import jacrev, vmap
from torch.nn import functional as F

from repro.flows.planar import DIRECTIONS, PlanarFlow, _Layers, _solve_layer


def make(dim=2, n_layers=6, direction="to_base", scale=1.0):
    """A flow far from the identity, in float64."""
    flow = PlanarFlow(dim, n_layers, direction=direction).double()
    with torch.no_grad():
        flow.u += scale * torch.randn_like(flow.u)
    return flow


def make_nearly_singular(margin, n_layers=3, dim=2):
    """A flow whose layers all have wᵀû = −1 + margin."""
    flow = make(dim, n_layers)
    with torch.no_grad():
        along = flow.w / flow.w.square().sum(1, keepdim=True)
        flow.u += (math.log(math.expm1(margin)) - (flow.w * flow.u).sum(1, keepdim=True)) * along
    return flow


def on_the_hyperplane(flow, n):
    """Points at which the first layer stretches least: w·x + b = 0."""
    w, b = flow.w[0].detach(), flow.b[0].detach()
    x = torch.randn(n, flow.dim, dtype=torch.float64)
    return x - torch.outer(x @ w + b, w) / w.square().sum()


def layer_by_layer(flow, x):
    """The same map by the papers' formulas, for autograd: points, and log |det| as a sum of logarithms."""
    log_det = torch.zeros(len(x), dtype=x.dtype)
    for w, u, b in zip(flow.w, flow.u, flow.b, strict=True):
        dot = w @ u
        constrained = u + (-1 + torch.log1p(dot.exp()) - dot) * w / (w @ w)
        h = torch.tanh(x @ w + b)
        log_det = log_det + (1 + (1 - h**2) * (constrained @ w)).abs().log()
        x = x + h[:, None] * constrained
    return x, log_det


def mass(flow, half_width=12.0, n=1001):
    """Integral of the density over a square, by the trapezoidal rule."""
    axis = torch.linspace(-half_width, half_width, n, dtype=torch.float64)
    with torch.no_grad():
        return flow.log_prob(torch.cartesian_prod(axis, axis)).exp().sum() * (axis[1] - axis[0]) ** 2


@pytest.mark.parametrize(("dim", "n_layers"), [(1, 3), (2, 1), (2, 16), (5, 4)])
def test_log_det_is_that_of_the_jacobian(dim, n_layers):
    flow, x = make(dim, n_layers), torch.randn(7, dim, dtype=torch.float64)
    jacobian = vmap(jacrev(lambda row: layer_by_layer(flow, row[None])[0][0]))(x)
    y, log_det = flow.transform(x)
    torch.testing.assert_close(y, layer_by_layer(flow, x)[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-10, atol=1e-10)
    assert log_det.abs().max() > 0.1


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (0.6, -1.3)], ids=["y", "log_det", "both"])
@pytest.mark.parametrize(("dim", "n_layers"), [(1, 4), (2, 9), (3, 1)])
def test_written_out_gradients_are_those_of_autograd(dim, n_layers, weights):
    flow, x = make(dim, n_layers), torch.randn(7, dim, dtype=torch.float64, requires_grad=True)
    inputs = [x, flow.w, flow.u, flow.b]
    gradients = []
    for y, log_det in (flow.transform(x), layer_by_layer(flow, x)):
        loss = weights[0] * (y.sin() * y).sum() + weights[1] * (log_det + log_det**2).sum()
        gradients.append(torch.autograd.grad(loss, inputs))
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12 * expected.abs().max().item())


def test_written_out_gradients_are_those_of_finite_differences():
    flow, x = make(2, 3), torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(_Layers.apply, (x, flow.w, flow.u, flow.b))


def test_gradients_where_softplus_is_linear_and_where_it_vanishes():
    """wᵀu of 25 and of −30: log |det| and its gradient keep their relative accuracy."""
    x = torch.tensor([[0.7]], dtype=torch.float64)
    for dot in (25.0, -30.0):
        w, u, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([[1.0]], [[dot]], [-0.7]))
        _, log_det = _Layers.apply(x, w, u, b)
        (slope,) = torch.autograd.grad(log_det.sum(), u)
        expected = torch.tensor(dot).double().exp().log1p()  # det = softplus(wᵀu) where tanh = 0
        torch.testing.assert_close(log_det, expected.log()[None], rtol=1e-13, atol=0)
        torch.testing.assert_close(slope[0, 0], torch.tensor(dot).double().sigmoid() / expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("dim", "n_layers", "scale"), [(1, 4, 1.0), (2, 32, 0.3), (2, 4, 10.0), (5, 8, 1.0)])
def test_inverse_undoes_the_layers(dim, n_layers, scale):
    flow, x = make(dim, n_layers, scale=scale), 3 * torch.randn(200, dim, dtype=torch.float64)
    y, _ = flow.transform(x)
    torch.testing.assert_close(flow.inverse(y), x, rtol=0, atol=1e-8)
    torch.testing.assert_close(flow.transform(flow.inverse(x))[0], x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("margin", [1e-3, 1e-6])
def test_inverse_where_layers_are_nearly_singular(margin):
    flow = make_nearly_singular(margin, n_layers=1)
    assert flow.transform(on_the_hyperplane(flow, 1))[1].item() == pytest.approx(math.log(margin), abs=1e-6)
    x = torch.cat([on_the_hyperplane(flow, 50), torch.randn(50, 2, dtype=torch.float64)])
    torch.testing.assert_close(flow.inverse(flow.transform(x)[0]), x, rtol=0, atol=1e-8)


@pytest.mark.parametrize("margin", [1e-6, 1e-12, 1e-200])
def test_inverse_maps_back_to_its_argument_however_singular_the_layers(margin):
    flow = make_nearly_singular(margin, n_layers=5)
    y = torch.cat([on_the_hyperplane(flow, 50), 5 * torch.randn(50, 2, dtype=torch.float64)])
    torch.testing.assert_close(flow.transform(flow.inverse(y))[0], y, rtol=0, atol=1e-10)


def test_inverse_of_a_strong_expansion():
    flow, x = PlanarFlow(2, 1, direction="to_base").double(), torch.randn(300, 2, dtype=torch.float64)
    with torch.no_grad():
        flow.u.copy_(1e6 * flow.w)
    torch.testing.assert_close(flow.inverse(flow.transform(x)[0]), x, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_layers_scalar_equation_is_solved_to_rounding(dtype):
    """p + (s − 1) tanh p = c from contractions of nearly everything, s = 0, to expansions, s = 1e12."""
    size = torch.logspace(-30, 6, 100, dtype=dtype)
    c = torch.cat([-size, torch.zeros(1, dtype=dtype), size])
    for s in [torch.zeros((), dtype=dtype), *torch.logspace(-30, 12, 50, dtype=dtype), torch.ones((), dtype=dtype)]:
        p = _solve_layer(c, s)
        residual = (p + (s - 1) * torch.tanh(p) - c).abs() / (1 + c.abs() + s)
        assert residual.max() < 4 * torch.finfo(dtype).eps


def test_it_starts_next_to_the_identity():
    flow, x = PlanarFlow(2, 64, direction="to_base"), torch.randn(100, 2)
    y, log_det = flow.transform(x)
    assert (y - x).norm(dim=1).max() < 0.5
    assert log_det.abs().max() < 1.0


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_density_integrates_to_one(direction):
    flow = make(2, 5, direction, scale=0.5)
    assert mass(flow, n=401).item() == pytest.approx(1, abs=1e-4)


def test_maximum_likelihood_learns_and_stays_a_density():
    flow = PlanarFlow(2, 8, direction="to_base").double()
    corner = torch.tensor([1.0, -1.0], dtype=torch.float64)
    x = torch.cat([corner + 0.4 * torch.randn(200, 2).double(), -corner + 0.4 * torch.randn(200, 2).double()])
    optimizer = torch.optim.Adam(flow.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        loss = -flow.log_prob(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3
    assert mass(flow).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_samples_come_with_their_log_density(direction):
    flow = make(2, 6, direction)
    x, log_q = flow.sample_with_log_prob(50, torch.Generator().manual_seed(1))
    torch.testing.assert_close(flow.log_prob(x), log_q, rtol=0, atol=1e-8)
    assert torch.equal(flow.sample(50, torch.Generator().manual_seed(1)), x)
    assert not torch.equal(flow.sample(50, torch.Generator().manual_seed(2)), x)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_samples_follow_the_density(direction):
    """E_q[g(x)] by samples and by quadrature, within five standard errors."""
    flow, n = make(2, 5, direction, scale=0.5), 20_000
    axis = torch.linspace(-12, 12, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        weights = flow.log_prob(grid).exp() * (axis[1] - axis[0]) ** 2
        x = flow.sample(n, torch.Generator().manual_seed(0))
    for g in (lambda p: p[:, 0], lambda p: p[:, 1], lambda p: p.prod(1), lambda p: p.square().sum(1)):
        values = g(x)
        assert abs(values.mean() - (weights * g(grid)).sum()) < 5 * values.std() / math.sqrt(n)


def test_the_direction_says_what_can_be_trained():
    closed, numerical = PlanarFlow(2, 3, direction="to_base"), PlanarFlow(2, 3, direction="from_base")
    x = torch.randn(5, 2)
    assert closed.log_prob(x).requires_grad
    assert not any(part.requires_grad for part in closed.sample_with_log_prob(5))
    assert not numerical.log_prob(x).requires_grad
    assert all(part.requires_grad for part in numerical.sample_with_log_prob(5))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_parameter_gets_a_gradient(direction):
    flow = PlanarFlow(2, 4, direction=direction)
    if direction == "to_base":
        loss = -flow.log_prob(torch.randn(50, 2) + 1).mean()
    else:
        z, log_q = flow.sample_with_log_prob(50)
        loss = (log_q + F.softplus(z.square().sum(1))).mean()
    loss.backward()
    for parameter in flow.parameters():
        assert (parameter.grad.reshape(4, -1).abs().sum(1) > 0).all()


def test_float32_agrees_with_float64():
    double = make(2, 32, scale=0.3)
    single = PlanarFlow(2, 32, direction="to_base")
    single.load_state_dict(double.state_dict())
    x = torch.randn(100, 2)
    y, log_det = single.transform(x)
    assert (y.dtype, log_det.dtype) == (torch.float32, torch.float32)
    expected, expected_log_det = double.transform(x.double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(log_det.double(), expected_log_det, rtol=1e-3, atol=1e-3)
    assert single.sample(3).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 0}, "dim must be at least 1; got 0"),
        ({"n_layers": 0}, "n_layers must be at least 1; got 0"),
        ({"direction": "forwards"}, "direction must be one of: to_base, from_base; got 'forwards'"),
    ],
)
def test_a_bad_setting_is_named(change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        PlanarFlow(**{"dim": 2, "n_layers": 3, "direction": "to_base", **change})


def test_points_of_another_dimension_are_named():
    flow, points = PlanarFlow(2, 3, direction="to_base"), torch.randn(4, 3)
    for name, call in {"x": flow.transform, "y": flow.inverse}.items():
        with pytest.raises(ValueError, match=rf"^{name} must have shape \[batch, 2\]; got \(4, 3\)"):
            call(points)
    with pytest.raises(ValueError, match=r"^x must have shape"):
        flow.log_prob(points)
    with pytest.raises(ValueError, match=r"^n must be at least 1; got 0"):
        flow.sample(0)


@pytest.mark.parametrize("direction", ["to_base", "from_base"])
def test_points_that_are_not_finite_are_named(direction):
    flow, points = PlanarFlow(2, 3, direction=direction), torch.tensor([[1.0, math.nan]])
    for name, call in (("x", flow.transform), ("y", flow.inverse), ("x", flow.log_prob)):
        with pytest.raises(ValueError, match=f"^{name} must be finite; 1 of its numbers"):
            call(points)
