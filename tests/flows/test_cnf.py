"""The continuous flow: likelihoods against closed forms and autograd, inverses, noise, bad input."""

import inspect
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

from repro.flows import CNF, DIVERGENCES, Stack
from repro.flows.divergence import NEEDS_NOISE
from repro.flows.low_variance import FEWEST_PROBES
from repro.ode import GRADIENTS, MaxNFEExceeded, Solver, StepSizeUnderflow

TIGHT = Solver(rtol=1e-10, atol=1e-10)


@pytest.fixture(params=GRADIENTS)
def gradient(request):
    return request.param


def rows(dim, batch=6, seed=5):
    return torch.randn(batch, dim, generator=torch.Generator().manual_seed(seed)).double()


def log_normal(z):
    return -0.5 * (z.square().sum(1) + z.shape[1] * math.log(2 * math.pi))


@pytest.mark.parametrize("divergence", ["exact", "closed_form"])
def test_a_linear_fields_likelihood_is_the_gaussian_of_its_closed_form(linear, divergence, gradient):
    x, t1 = rows(3), 0.7
    flow = CNF(linear, 3, t1, divergence, TIGHT, gradient)
    z = x @ torch.matrix_exp(t1 * linear.matrix).T
    expected = log_normal(z) + t1 * linear.matrix.trace()
    found = flow.log_prob(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    wanted = torch.autograd.grad(expected.mean(), linear.matrix)[0]
    torch.testing.assert_close(torch.autograd.grad(found.mean(), linear.matrix)[0], wanted, rtol=0, atol=1e-7)


def test_the_change_of_log_density_is_autograds_log_determinant(make_field):
    flow, x = CNF(make_field(3), 3, 1.0, "closed_form", TIGHT, "backprop"), rows(3)
    z, gain = flow.transform(x)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.transform(x)[0].sum(0), x).permute(1, 0, 2)
    torch.testing.assert_close(gain, torch.linalg.slogdet(jacobian).logabsdet, rtol=0, atol=1e-7)
    torch.testing.assert_close(flow.log_prob(x), log_normal(z) + gain)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_all_gradient_methods_agree(make_field, noise_for, divergence):
    x, found = rows(2), {}
    noise, n_probes = noise_for(divergence, 2, batch=6), FEWEST_PROBES.get(divergence, 1)
    for gradient in GRADIENTS:
        field = make_field(2)
        flow = CNF(field, 2, 1.0, divergence, TIGHT, gradient, n_probes=n_probes)
        flow.log_prob(x, noise).mean().backward()
        found[gradient] = torch.cat([p.grad.flatten() for p in field.parameters() if p.grad is not None])
        assert flow.stats.nfe_forward > 0
        assert (flow.stats.nfe_backward is None) == (gradient == "backprop")
    for gradient, grad in found.items():
        torch.testing.assert_close(grad, found["backprop"], rtol=0, atol=1e-7, msg=gradient)


def test_estimates_of_the_log_density_are_unbiased(make_field):
    field, x, n = make_field(2), rows(2, batch=1), 600
    solver = Solver(rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        exact = CNF(field, 2, 1.0, "closed_form", solver).log_prob(x)
        many = CNF(field, 2, 1.0, "hutchinson", solver).log_prob(
            x.expand(n, 2), generator=torch.Generator().manual_seed(0)
        )
    assert abs(many.mean() - exact[0]) < 4 * many.std() / n**0.5
    assert many.std() > 0


def test_a_density_integrates_to_one(make_field):
    flow = CNF(make_field(2), 2, 1.0, "closed_form", Solver(rtol=1e-6, atol=1e-6))
    side = torch.linspace(-9, 9, 181, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        total = flow.log_prob(grid).exp().sum() * (side[1] - side[0]) ** 2
    assert abs(total - 1) < 1e-5


def test_there_and_back(make_field):
    flow, x = CNF(make_field(2), 2, 1.0, "closed_form", TIGHT), rows(2)
    torch.testing.assert_close(flow.inverse(flow.transform(x)[0]), x, rtol=0, atol=1e-8)
    assert flow.reversibility_error(x) < 1e-8
    loose = CNF(flow.field, 2, 1.0, "closed_form", Solver(rtol=1e-2, atol=1e-2))
    assert loose.reversibility_error(x) > flow.reversibility_error(x)


def test_densities_on_the_way_are_those_of_the_moving_points(make_field):
    flow, x = CNF(make_field(2), 2, 1.0, "closed_form", TIGHT), rows(2)
    y = flow.trajectory(x, [0.0, 0.4])[-1]
    z, gain = flow.transform(y, t0=0.4)
    torch.testing.assert_close(z, flow.transform(x)[0], rtol=0, atol=1e-8)
    before = CNF(flow.field, 2, 0.4, "closed_form", TIGHT).transform(x)[1]
    torch.testing.assert_close(before + gain, flow.transform(x)[1], rtol=0, atol=1e-8)


def test_samples_follow_the_generator_and_the_base(make_field):
    field = make_field(2).float()
    base = Independent(Normal(torch.tensor([3.0, -3.0]), torch.tensor([0.1, 0.1])), 1)
    for chosen in (None, base):
        flow = CNF(field, 2, 0.5, "closed_form", base=chosen)
        a, b, c = (flow.sample(50, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
        assert a.shape == (50, 2)
        assert a.dtype == torch.float32
    z = flow.transform(flow.sample(400, torch.Generator().manual_seed(0)))[0]
    torch.testing.assert_close(z.mean(0), base.base_dist.loc, atol=0.02, rtol=0)
    assert torch.isfinite(flow.log_prob(a)).all()


def test_draws_come_with_their_own_log_densities(make_field, gradient):
    flow = CNF(make_field(2), 2, 1.0, "closed_form", TIGHT, gradient)
    x, log_q = flow.sample_with_log_prob(5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(x, flow.sample(5, torch.Generator().manual_seed(0)), rtol=0, atol=1e-8)
    torch.testing.assert_close(log_q, flow.log_prob(x.detach()), rtol=0, atol=1e-7)
    log_q.mean().backward()
    assert all(p.grad is not None for p in flow.parameters())


def test_sampling_leaves_the_global_stream_alone(make_field):
    flow = CNF(make_field(2), 2, base=Independent(Normal(torch.zeros(2), torch.ones(2)), 1))
    before = torch.random.get_rng_state()
    flow.sample(3, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_field_without_parameters_flows_too():
    x = rows(2)
    for gradient in GRADIENTS:
        flow = CNF(lambda t, y: -y, 2, 1.0, "exact", TIGHT, gradient)
        torch.testing.assert_close(flow.log_prob(x), log_normal(x * math.exp(-1)) - 2, rtol=0, atol=1e-8)


def test_a_stack_is_one_flow_after_the_other(make_field):
    flows = [CNF(make_field(2), 2, 0.5, "closed_form", TIGHT), CNF(make_field(2, 5), 2, 0.3, "closed_form", TIGHT)]
    stack, x = Stack(flows), rows(2)
    z, gain = flows[0].transform(x)
    found = stack.log_prob(x)
    assert stack.stats.nfe_forward == sum(flow.stats.nfe_forward for flow in flows) > 20
    torch.testing.assert_close(found, flows[1].log_prob(z) + gain)
    found.mean().backward()
    assert all(p.grad is not None for p in stack.parameters())
    sample = stack.sample(4, torch.Generator().manual_seed(0))
    assert sample.shape == (4, 2)
    assert stack.reversibility_error(x) < 1e-8


@pytest.mark.parametrize("divergence", NEEDS_NOISE)
def test_noise_is_drawn_once_per_solve(make_field, noise_for, divergence):
    """The estimate is a function of time and state: a solver that halves its steps finds the same numbers."""
    field, x = make_field(2), rows(2)
    noise, make = noise_for(divergence, 2, batch=6), partial(CNF, n_probes=FEWEST_PROBES.get(divergence, 1))
    solvers = (Solver("rk4", step_size=0.05), Solver("rk4", step_size=0.025))
    first, second = (make(field, 2, 1.0, divergence, solver).log_prob(x, noise) for solver in solvers)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    seeds = (torch.Generator().manual_seed(seed) for seed in (0, 0, 1))
    drawn = [make(field, 2, 1.0, divergence).log_prob(x, generator=seed) for seed in seeds]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_redrawing_noise_inside_a_solve_is_what_the_suite_forbids(make_field, hide):
    """torchdiffeq#120: then the field is no function, halving the steps changes the result, and step sizes collapse."""

    class Redrawn(nn.Module):
        def __init__(self, field):
            super().__init__()
            self.inner = field

        def forward(self, t, y):
            return self.inner(t, y)

        def divergence(self, t, y):
            return DIVERGENCES["hutchinson"](self.inner, t, y, torch.randn(1, *y.shape, dtype=y.dtype))

    flow = CNF(Redrawn(make_field(2)), 2, 1.0, "closed_form", Solver(rtol=1e-6, atol=1e-6, max_nfe=600))
    fixed = CNF(make_field(2), 2, 1.0, "hutchinson", Solver(rtol=1e-6, atol=1e-6))
    x = rows(2)
    fixed.log_prob(x)
    try:
        with torch.no_grad():
            flow.log_prob(x)
        spent = flow.stats.nfe_forward
    except (StepSizeUnderflow, MaxNFEExceeded):
        spent = 600
    assert spent >= 8 * fixed.stats.nfe_forward


def test_penalties_are_the_integrals_of_their_rates(linear):
    x, t1 = rows(3), 0.7
    flow = CNF(linear, 3, t1, "hutchinson", TIGHT, penalties=("kinetic", "jacobian"))
    noise = torch.eye(3).double()[:, None].expand(3, 6, 3) * 3**0.5  # Σ e eᵀ / 3 = I: no noise is left
    flow.log_prob(x, noise)
    times, weights = (torch.tensor(v) for v in __import__("numpy").polynomial.legendre.leggauss(20))
    nodes = (times + 1) / 2 * t1
    speeds = torch.stack([(x @ torch.matrix_exp(t * linear.matrix).T) @ linear.matrix.T for t in nodes])
    kinetic = (weights[:, None] * speeds.square().mean(2) / 2).sum(0) / 2 * t1
    torch.testing.assert_close(flow.penalty["kinetic"], kinetic, rtol=0, atol=1e-7)
    frobenius = t1 * linear.matrix.square().sum() / 3
    torch.testing.assert_close(flow.penalty["jacobian"], frobenius.expand(6), rtol=0, atol=1e-7)


def test_penalties_do_not_steer_the_steps(make_field):
    x, noise = rows(2), rows(2, seed=1)[None]
    plain = CNF(make_field(2), 2, 1.0, "hutchinson")
    with_penalties = CNF(make_field(2), 2, 1.0, "hutchinson", penalties=("kinetic", "jacobian"))
    assert torch.equal(plain.log_prob(x, noise), with_penalties.log_prob(x, noise))
    assert plain.stats.nfe_forward == with_penalties.stats.nfe_forward


def test_penalties_have_gradients_by_every_method(make_field, hide, gradient):
    found = []
    for used in (lambda f: f, hide):
        field = make_field(2)
        flow = CNF(used(field), 2, 1.0, "hutchinson", TIGHT, gradient, penalties=("kinetic",))
        flow.log_prob(rows(2), rows(2, seed=1)[None])
        flow.penalty["kinetic"].mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in field.parameters() if p.grad is not None]))
    torch.testing.assert_close(*found, rtol=0, atol=1e-7)


def test_vode_integrates_flows_too(make_field):
    flow = CNF(make_field(2), 2, 1.0, "closed_form", Solver("adams", engine="scipy", rtol=1e-8, atol=1e-8))
    torch.testing.assert_close(flow.log_prob(rows(2)), CNF(flow.field, 2, 1.0, "closed_form", TIGHT).log_prob(rows(2)))


BAD = {
    "dim": {"dim": 0},
    "t1": {"t1": 0.0},
    "divergence": {"divergence": "trace"},
    "noise": {"noise": "uniform"},
    "n_probes": {"n_probes": 0},
    "penalties": {"penalties": ("l2",)},
}


@pytest.mark.parametrize("argument", BAD)
def test_bad_settings_are_named(make_field, argument):
    with pytest.raises(ValueError, match=argument):
        CNF(make_field(2), **({"dim": 2} | BAD[argument]))


def test_bad_data_are_named(make_field):
    flow = CNF(make_field(2), 2)
    for x in (rows(3), rows(2)[0], rows(2)[:0], torch.tensor([[1.0, math.nan]]).double()):
        with pytest.raises(ValueError, match="x must"):
            flow.log_prob(x)
    with pytest.raises(TypeError, match="x must"):
        flow.log_prob(torch.ones(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="t0"):
        flow.transform(rows(2), t0=1.0)
    with pytest.raises(ValueError, match="noise must be None"):
        flow.log_prob(rows(2), rows(2)[None])
    with pytest.raises(ValueError, match="noise must be"):
        CNF(make_field(2), 2, divergence="hutchinson").log_prob(rows(2), rows(2))
    with pytest.raises(ValueError, match=r"noise must be .* at least one probe"):
        CNF(make_field(2), 2, divergence="hutchinson").log_prob(rows(2), rows(2)[None][:0])
    with pytest.raises(TypeError, match=r"x must have the field's dtype, torch\.float64; got torch\.float32"):
        flow.log_prob(rows(2).float())
    with pytest.raises(ValueError, match="dim must be that of the field, 2; got 3"):
        CNF(make_field(2), 3)
    with pytest.raises(ValueError, match="n must"):
        flow.sample(0)
    with pytest.raises(ValueError, match="base"):
        CNF(make_field(2), 2, base=Normal(torch.zeros(2), torch.ones(2))).log_prob(rows(2))
    with pytest.raises(ValueError, match="flows"):
        Stack([])
    with pytest.raises(ValueError, match="flows"):
        Stack([CNF(make_field(2), 2), CNF(make_field(3), 3)])
    stack = Stack([CNF(make_field(2), 2, divergence="hutchinson") for _ in "ab"])
    for noise in (rows(2)[None], [rows(2)[None]], []):
        with pytest.raises(ValueError, match="noise must be a sequence of 2 tensors, one for each flow; got"):
            inspect.unwrap(Stack.log_prob)(stack, rows(2), noise)  # users have no checks of annotations before ours


def test_a_base_on_another_device_is_named(make_field):
    """On the meta device, which every machine has."""
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    flow = CNF(make_field(2), 2, base=base)
    with pytest.raises(ValueError, match="base must lie on the device of the data, meta; its tensors lie on cpu"):
        flow.base_log_prob(torch.zeros(3, 2, device="meta"))
    assert flow.base_log_prob(torch.zeros(3, 2)).shape == (3,)


@pytest.mark.parametrize("engine", ["torchdiffeq", "compiled"])
@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_inference_mode_gives_the_densities_of_no_grad(make_field, hide, name, hidden, engine):
    if hidden and name in ("closed_form", "bottleneck"):
        pytest.skip("a field that offers nothing has neither")
    field = make_field(3, width=5)
    flow = CNF(hide(field) if hidden else field, 3, divergence=name, n_probes=FEWEST_PROBES.get(name, 1),
               solver=Solver("dopri5", engine=engine))  # fmt: skip
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).double()

    def results():
        stream = torch.Generator().manual_seed(1)
        return flow.log_prob(x + 0, generator=stream), *flow.sample_with_log_prob(3, generator=stream)

    with torch.no_grad():
        expected = results()
    with torch.inference_mode():
        inferred = results()
    assert all(torch.equal(a, b) for a, b in zip(expected, inferred, strict=True))


@pytest.mark.parametrize("name", ["exact", "hutchinson", "bottleneck"])
def test_an_estimator_by_itself_refuses_inference_mode(make_field, hide, noise_for, name):
    field = make_field(3, width=5)
    field = field if name == "bottleneck" else hide(field)
    noise, y = noise_for(name, 3, bottleneck=5), torch.ones(4, 3, dtype=torch.float64)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use torch\.no_grad\(\)"):
        DIVERGENCES[name](field, torch.tensor(0.0, dtype=torch.float64), y, noise)
