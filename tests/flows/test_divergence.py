"""Divergence estimators: exact where they claim it, unbiased where not, with the variance of theory."""

import pytest
import torch
from torch import nn

from repro.flows import divergence as module
from repro.flows.divergence import DIVERGENCES, NEEDS_NOISE, NOISES, hutchinson_variance
from repro.flows.low_variance import FEWEST_PROBES
from repro.metrics import saved_bytes
from repro.types import BottleneckField, ClosedFormField, TangentField

T = torch.tensor(0.3, dtype=torch.float64)


@pytest.fixture(params=DIVERGENCES)
def name(request):
    return request.param


@pytest.fixture(params=NOISES)
def noise(request):
    return request.param


def probes(kind, n, batch, width, seed=0):
    return NOISES[kind]((n, batch, width), torch.Generator().manual_seed(seed)).double()


def rows(dim, batch=4, seed=5):
    return torch.randn(batch, dim, generator=torch.Generator().manual_seed(seed)).double()


def test_the_fields_of_the_suite_offer_all_protocols(make_field):
    field = make_field(2)
    assert all(isinstance(field, protocol) for protocol in (ClosedFormField, TangentField, BottleneckField))


@pytest.mark.parametrize("dim", [1, 2, 5, 40])
@pytest.mark.parametrize("hidden", [False, True])
def test_exact_is_the_trace_for_any_field(make_field, hide, trace_of, dim, hidden):
    field, y = make_field(dim), rows(dim)
    dy, trace = DIVERGENCES["exact"](hide(field) if hidden else field, T, y, None)
    torch.testing.assert_close(dy, field(T, y))
    torch.testing.assert_close(trace, trace_of(field, T, y), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("hidden", [False, True])
def test_a_slice_of_a_state_with_gradients_changes_no_value(make_field, hide, noise_for, name, hidden):
    # as a CNF's system meets it in the forward pass of an autograd.Function, and in all but the first CNF of a stack
    field = make_field(3, width=2)
    if hidden and name not in ("closed_form", "bottleneck"):
        field = hide(field)
    noise = noise_for(name, 3, bottleneck=2)
    state = rows(4).requires_grad_()
    expected = DIVERGENCES[name](field, T, state.detach()[:, :3], noise)
    with torch.no_grad():
        found = DIVERGENCES[name](field, T, state[:, :3], noise)
    # a BLAS may round by where in memory its operands lie: Intel's does
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)
    assert expected[1].abs().min() > 0


@pytest.mark.parametrize("hidden", [False, True])
def test_estimators_are_unbiased_with_the_variance_of_theory(make_field, hide, trace_of, noise, hidden):
    inner, n = make_field(4), 4000
    field, y = (hide(inner) if hidden else inner), rows(4, batch=1)
    estimates = DIVERGENCES["hutchinson"](field, T, y.expand(n, 4), probes(noise, 1, n, 4))[1]
    jacobian = torch.func.jacrev(lambda row: inner(T, row[None])[0])(y[0])
    variance = hutchinson_variance(jacobian, noise)
    assert abs(estimates.mean() - trace_of(inner, T, y)[0]) < 4 * (variance / n).sqrt()
    # Var of a sample variance is about (kurtosis - 1) σ⁴ / n; the kurtosis of a quadratic form is at most 15
    assert abs(estimates.var() / variance - 1) < 4 * (14 / n) ** 0.5


def test_the_bottleneck_is_unbiased_with_the_variance_of_its_own_matrix(make_field, trace_of, noise):
    field, y, n = make_field(6, width=3), rows(6, batch=1), 4000
    estimates = DIVERGENCES["bottleneck"](field, T, y.expand(n, 6), probes(noise, 1, n, 3))[1]
    hidden = field.encode(T, y)[0]
    inner = torch.func.jacrev(lambda row: field.encode(T, row[None])[0])(y[0])
    outer = torch.func.jacrev(lambda row: field.decode(T, row[None])[0])(hidden)
    variance = hutchinson_variance(inner @ outer, noise)
    assert abs(estimates.mean() - trace_of(field, T, y)[0]) < 4 * (variance / n).sqrt()
    assert abs(estimates.var() / variance - 1) < 4 * (14 / n) ** 0.5


def test_variance_formulas_against_moments(noise):
    torch.manual_seed(2)
    matrix, n = torch.randn(3, 3, dtype=torch.float64), 200_000
    e = probes(noise, 1, n, 3)[0]
    forms = torch.einsum("ni,ij,nj->n", e, matrix, e)
    torch.testing.assert_close(forms.var(), hutchinson_variance(matrix, noise), rtol=0.03, atol=0)


def test_rademacher_never_has_more_variance():
    matrices = torch.randn(50, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    assert (hutchinson_variance(matrices, "rademacher") <= hutchinson_variance(matrices, "gaussian")).all()


def test_probes_have_mean_zero_and_unit_covariance(noise):
    e = probes(noise, 1, 100_000, 3)[0]
    torch.testing.assert_close(e.mean(0), torch.zeros(3).double(), atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(e.T), torch.eye(3).double(), atol=0.03, rtol=0)


def test_several_probes_are_averaged(make_field):
    field, y, draws = make_field(3), rows(3), probes("gaussian", 5, 4, 3)
    single = torch.stack([DIVERGENCES["hutchinson"](field, T, y, draw[None])[1] for draw in draws]).mean(0)
    torch.testing.assert_close(DIVERGENCES["hutchinson"](field, T, y, draws)[1], single)


def test_a_linear_fields_trace_has_no_dependence_on_the_state(linear, name):
    if name == "bottleneck":
        pytest.skip("a linear field has no bottleneck")
    draws = torch.eye(3).double()[:, None].expand(3, 4, 3) * 3**0.5  # an exact quadrature: Σ e eᵀ / 3 = I
    draws = draws.repeat(3, 1, 1) if name == "hutchpp" else draws  # its sketch, a third, is the whole space
    trace = DIVERGENCES[name](linear, T, rows(3), draws if name in NEEDS_NOISE else None)[1]
    expected = trace[0] if name == "xtrace" else linear.matrix.trace()  # no probes make xtrace exact for every matrix
    torch.testing.assert_close(trace, expected.expand(4))


@pytest.mark.parametrize("hidden", [False, True])
def test_second_order_gradients(make_field, hide, noise_for, name, hidden):
    field = make_field(2, width=3)
    if name in FEWEST_PROBES:
        pytest.skip("its sketch is a constant to autograd: see test_low_variance.py")
    if hidden and name in ("closed_form", "bottleneck"):
        pytest.skip("needs what the field offers")
    draws = noise_for(name, 2, batch=2, bottleneck=3)
    used = hide(field) if hidden else field
    y = rows(2, batch=2).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda y: DIVERGENCES[name](used, T, y, draws), (y,), atol=1e-6)


@pytest.mark.parametrize("hidden", [False, True])
def test_parameters_get_the_same_gradient_by_every_exact_way(make_field, hide, trace_of, hidden):
    field, y = make_field(3), rows(3)
    wanted = torch.autograd.grad(trace_of(field, T, y).sum(), list(field.parameters()), allow_unused=True)
    trace = DIVERGENCES["exact"](hide(field) if hidden else field, T, y, None)[1]
    found = torch.autograd.grad(trace.sum(), list(field.parameters()), allow_unused=True)
    for a, b in zip(wanted, found, strict=True):
        torch.testing.assert_close(torch.zeros(()) if a is None else a, torch.zeros(()) if b is None else b)


def test_without_gradients_no_graph_is_left(make_field, hide, noise_for, name):
    draws = noise_for(name, 3)
    field = make_field(3)
    with torch.no_grad():
        for used in (field, hide(field)) if name not in ("closed_form", "bottleneck") else (field,):
            assert not any(x.requires_grad for x in DIVERGENCES[name](used, T, rows(3), draws))


def test_a_constant_field_has_no_divergence(name, noise_for):
    class Constant(nn.Module):
        def forward(self, t, y):
            return torch.ones_like(y)

    if name in ("closed_form", "bottleneck"):
        pytest.skip("needs what the field offers")
    assert (DIVERGENCES[name](Constant(), T, rows(3), noise_for(name, 3))[1] == 0).all()


@pytest.mark.parametrize(("name", "what"), [("closed_form", "divergence"), ("bottleneck", "encode and decode")])
def test_a_field_that_lacks_something_is_named(make_field, hide, name, what):
    with pytest.raises(TypeError, match=f"{name}.*{what}.*Plain"):
        DIVERGENCES[name](hide(make_field(3)), T, rows(3), probes("gaussian", 1, 4, 3))


@pytest.mark.parametrize("name", NEEDS_NOISE)
def test_missing_noise_is_named(make_field, name):
    with pytest.raises(ValueError, match="noise"):
        DIVERGENCES[name](make_field(3), T, rows(3), None)


def test_what_would_not_fit_is_refused_before_it_is_made(make_field, hide, monkeypatch):
    field = make_field(3)
    for used, size in ((field, module.held_bytes(field, rows(3))), (hide(field), 4 * 3 * 9 * 8)):
        monkeypatch.setattr(module, "MEMORY_BOUND", size - 1)
        with pytest.raises(ValueError, match=r"'exact'.*batch 4 and dim 3"):
            DIVERGENCES["exact"](used, T, rows(3), None)
        monkeypatch.setattr(module, "MEMORY_BOUND", size)
        DIVERGENCES["exact"](used, T, rows(3), None)


@pytest.mark.parametrize(("dim", "width", "depth"), [(5, 64, 3), (40, 8, 2), (40, 100, 1)])
def test_what_is_held_is_what_autograd_keeps(make_field, dim, width, depth):
    """Up to the plain evaluation's own activations, which do not grow with the number of tangents."""
    field, y = make_field(dim, width, depth), rows(dim, batch=50)
    with saved_bytes(field.parameters()) as kept:
        results = DIVERGENCES["exact"](field, T, y, None)
    with saved_bytes(field.parameters()) as plain:
        value = field(T, y)
    assert results[0].requires_grad
    assert value.requires_grad
    assert (kept.total - plain.total) / module.held_bytes(field, y) == pytest.approx(1, abs=0.4)
    with torch.no_grad():
        assert depth == 1 or module.held_bytes(field, y) < 50 * dim * (dim + 2 * depth * width) * 8
