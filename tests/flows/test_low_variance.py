"""Hutch++ and XTrace: unbiased, exact at low rank, better than Hutchinson; gradients as their module says."""

import pytest
import torch
from torch import nn

from repro.flows import CNF
from repro.flows.divergence import DIVERGENCES, NOISES, hutchinson_variance
from repro.flows.low_variance import FEWEST_PROBES
from repro.ode import GRADIENTS, NonFiniteState, Solver, steppers

T = torch.tensor(0.3, dtype=torch.float64)
DIM = 6
PROBES = {"hutchpp": 7, "xtrace": 4}
"""A sketch of two and three, and a number that is not a multiple of three."""


@pytest.fixture(params=PROBES)
def name(request):
    return request.param


@pytest.fixture(params=NOISES)
def noise(request):
    return request.param


class Bilinear(nn.Module):
    """f(t, y) = (A + Σ_i y_i B_i) y, whose Jacobian has a different range at every y."""

    def __init__(self, matrix, slope):
        super().__init__()
        self.matrix, self.slope = nn.Parameter(matrix), slope

    def forward(self, t, y):
        return y @ self.matrix.T + torch.einsum("ijk,bj,bk->bi", self.slope, y, y)

    def jacobian(self, y):
        return self.matrix + torch.einsum("ijk,bk->bij", self.slope + self.slope.mT, y)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def probes(kind, n, batch, dim=DIM, seed=0):
    return NOISES[kind]((n, batch, dim), torch.Generator().manual_seed(seed)).double()


def of_rank(rank, dim=DIM):
    return normal(dim, rank, seed=1) @ normal(rank, dim, seed=2)


def estimates(name, matrix, draws):
    """One estimate a row, by a field that offers nothing but f(t, y) = A y."""
    return DIVERGENCES[name](lambda t, y: y @ matrix.T, T, torch.zeros_like(draws[0]), draws)[1]


def projector(columns):
    """On a range, by singular vectors."""
    left, values, _ = torch.linalg.svd(columns, full_matrices=False)
    left = left[:, values > 1e-10]
    return left @ left.T


def splits(name, matrix, draws):
    """Projectors on what is computed, each with the probes that estimate the rest, for one row; one after another."""
    if name == "hutchpp":
        third = len(draws) // 3
        return [(projector(matrix @ draws[:third].T), draws[2 * third :])]
    others = [torch.cat([draws[:i], draws[i + 1 :]]) for i in range(len(draws))]
    return [(projector(matrix @ other.T), draws[i : i + 1]) for i, other in enumerate(others)]


def slowly(name, matrix, draws, fixed=None):
    """The estimator as its docstring defines it, for one row, with the projectors of A or of another matrix."""
    total = torch.zeros(())
    for inside, left in (pairs := splits(name, matrix if fixed is None else fixed, draws)):
        rest = left @ (torch.eye(len(matrix)) - inside)
        total = total + (inside @ matrix).trace() + torch.einsum("ni,ij,nj->n", rest, matrix, rest).mean()
    return total / len(pairs)


@pytest.mark.parametrize("rank", [1, 4, DIM])
def test_estimates_are_those_of_the_definition(name, noise, rank):
    """Also where signs repeat or A has a lower rank than the sketch has columns."""
    matrix, draws = of_rank(rank), probes(noise, PROBES[name], 60)
    if name == "hutchpp":  # where its two signs repeat, QR fills the sketch up: no definition says how
        draws = draws[:, torch.linalg.matrix_rank(draws[:2].permute(1, 0, 2)) == 2]
    draws = draws[:, :40]
    expected = torch.stack([slowly(name, matrix, draws[:, row]) for row in range(40)])
    torch.testing.assert_close(estimates(name, matrix, draws), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dim", [2, 3, DIM])
def test_estimates_are_unbiased(name, noise, dim):
    """In few dimensions most draws of signs are linearly dependent."""
    matrix, n = of_rank(dim, dim), 20_000
    found = estimates(name, matrix, probes(noise, min(PROBES[name], dim) if name == "xtrace" else 4, n, dim))
    assert abs(found.mean() - matrix.trace()) < 4 * found.std() / n**0.5
    assert found.std() > 0


@pytest.mark.parametrize(("name", "n", "rank"), [("hutchpp", 9, 3), ("hutchpp", 8, 2), ("xtrace", 4, 3)])
def test_a_rank_within_the_sketch_is_exact(name, n, rank):
    matrix = of_rank(rank)
    torch.testing.assert_close(estimates(name, matrix, probes("gaussian", n, 50)), matrix.trace().expand(50))


def test_a_sketch_of_everything_is_exact_with_any_more_probes():
    matrix = of_rank(2, 2)
    for n in (6, 9, 13):
        torch.testing.assert_close(
            estimates("hutchpp", matrix, probes("gaussian", n, 50, 2)), matrix.trace().expand(50)
        )


@pytest.mark.parametrize(("name", "n", "products"), [("hutchpp", 12, 12), ("xtrace", 6, 12)])
def test_less_variance_than_hutchinson_for_the_same_products(name, n, products, noise):
    basis, _ = torch.linalg.qr(normal(20, 20))
    matrix = basis @ torch.diag(0.5 ** torch.arange(20.0, dtype=torch.float64)) @ basis.T
    found = estimates(name, matrix, probes(noise, n, 2_000, 20))
    assert found.var() < 0.1 * hutchinson_variance(matrix, noise) / products


@pytest.mark.parametrize(("name", "n", "products"), [("hutchpp", 9, 9), ("hutchpp", 8, 8), ("xtrace", 4, 8)])
def test_products_are_counted_as_documented(name, n, products):
    class Counted(nn.Module):
        pushed = 0

        def push(self, t, y, v):
            self.pushed += len(v)
            return y, 2 * v

    field = Counted()
    trace = DIVERGENCES[name](field, T, torch.zeros(3, DIM).double(), probes("gaussian", n, 3))[1]
    assert field.pushed == products
    torch.testing.assert_close(trace, torch.full((3,), 2.0 * DIM).double(), rtol=1, atol=0)


def test_xtrace_does_not_see_the_order_of_the_probes(noise):
    matrix, draws = of_rank(DIM), probes(noise, 5, 200)
    found = estimates("xtrace", matrix, draws[torch.tensor([3, 0, 4, 2, 1])])
    torch.testing.assert_close(found, estimates("xtrace", matrix, draws), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("hidden", [False, True])
def test_rows_do_not_see_one_another_and_what_the_field_offers_does_not_matter(make_field, hide, name, hidden):
    """The sketch is of A v by any field: products from the other side would span another range."""
    inner, y, draws = make_field(DIM), normal(4, DIM, seed=5), probes("gaussian", PROBES[name], 4)
    found = DIVERGENCES[name](hide(inner) if hidden else inner, T, y, draws)[1]
    for row in range(4):
        matrix = torch.func.jacrev(lambda x: inner(T, x[None])[0])(y[row])
        torch.testing.assert_close(found[row], slowly(name, matrix, draws[:, row]), rtol=1e-9, atol=1e-9)


def test_gradients_of_any_order_are_those_with_the_sketch_held(name):
    field = Bilinear(normal(DIM, DIM, seed=1), normal(DIM, DIM, DIM, seed=2))
    y, draws = normal(2, DIM, seed=3).requires_grad_(), probes("gaussian", PROBES[name], 2)
    weights = normal(2, DIM, seed=4)

    def derivatives(traces):
        """By the state and the matrix, and of a directional derivative by the state."""
        first = torch.autograd.grad(traces.square().sum(), (y, field.matrix), create_graph=True)
        return *first, *torch.autograd.grad((first[0] * weights).sum(), (y, field.matrix))

    jacobians = field.jacobian(y)
    held = [slowly(name, a, draws[:, i], fixed=a.detach()) for i, a in enumerate(jacobians)]
    expected = derivatives(torch.stack(held))
    found = derivatives(DIVERGENCES[name](field, T, y, draws)[1])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rank", [0, 2, DIM])
def test_gradients_are_unbiased_also_where_the_estimate_has_none(name, noise, rank):
    """∂ tr A / ∂A = I, at rank 0 and 2 too, where a sketch loses rank and the realised estimate has a kink."""
    n = 20_000
    matrix = (of_rank(rank) if rank else torch.zeros(DIM, DIM).double()).expand(n, DIM, DIM).requires_grad_()
    draws = probes(noise, PROBES[name], n)
    start = torch.zeros(n, DIM).double()
    trace = DIVERGENCES[name](lambda t, y: torch.einsum("bij,bj->bi", matrix, y), T, start, draws)[1]
    (grads,) = torch.autograd.grad(trace.sum(), matrix)
    # 36 entries: a normal variable stays within 4.5 standard errors in all of them in 99.98% of cases
    assert ((grads.mean(0) - torch.eye(DIM)).abs() <= 4.5 * grads.std(0) / n**0.5 + 1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_last_layer_of_zeros_has_finite_gradients(make_field, hide, name, dtype, hidden):
    inner = make_field(3).to(dtype)
    with torch.no_grad():
        dict(inner.named_parameters())["layers.2.linear.weight"].zero_()
    y = torch.ones(4, 3, dtype=dtype, requires_grad=True)
    draws = probes("gaussian", FEWEST_PROBES[name], 4, 3).to(dtype)
    trace = DIVERGENCES[name](hide(inner) if hidden else inner, T.to(dtype), y, draws)[1]
    assert trace.dtype == dtype
    assert (trace == 0).all()
    grads = torch.autograd.grad(trace.sum(), [y, *inner.parameters()], allow_unused=True)
    assert all(torch.isfinite(g).all() for g in grads if g is not None)


@pytest.mark.parametrize("rank", [2, DIM])
def test_single_precision_is_close_to_double(name, rank):
    matrix, draws = of_rank(rank), probes("gaussian", PROBES[name], 200)
    found = estimates(name, matrix.float(), draws.float())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), estimates(name, matrix, draws), rtol=1e-3, atol=1e-3)


def test_log_densities_and_their_gradients_are_unbiased(make_field, name):
    field, n = make_field(3), 600
    x, solver = normal(1, 3, seed=5), Solver(rtol=1e-5, atol=1e-5)
    wanted = CNF(field, 3, 1.0, "closed_form", solver, "backprop").log_prob(x)
    start = x.expand(n, 3).clone().requires_grad_()
    flow = CNF(field, 3, 1.0, name, solver, "backprop", n_probes=FEWEST_PROBES[name])
    found = flow.log_prob(start, generator=torch.Generator().manual_seed(0))
    assert abs(found.mean() - wanted[0]) < 4 * found.std() / n**0.5 + 1e-4
    (grads,) = torch.autograd.grad(found.sum(), start)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(CNF(field, 3, 1.0, "closed_form", solver, "backprop").log_prob(x).sum(), x)
    assert ((grads.mean(0) - grad[0]).abs() < 4 * grads.std(0) / n**0.5 + 1e-4).all()


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("hidden", [False, True])
def test_the_compiled_engine_takes_the_same_steps_and_says_why_none_is_native(
    make_field, hide, name, gradient, hidden, caplog
):
    caplog.set_level("INFO")
    steppers._LOGGED.clear()
    found = {}
    for engine in ("torchdiffeq", "compiled"):
        field = hide(make_field(3)) if hidden else make_field(3)
        flow = CNF(field, 3, 1.0, name, Solver(rtol=1e-5, atol=1e-5, engine=engine), gradient, n_probes=3)
        value = flow.log_prob(normal(5, 3), probes("gaussian", 3, 5, 3))
        value.mean().backward()
        grads = [p.grad for p in field.parameters() if p.grad is not None]
        found[engine] = [value.detach(), *grads, torch.tensor(flow.stats.nfe_forward)]
    torch.testing.assert_close(found["compiled"], found["torchdiffeq"], rtol=1e-8, atol=1e-9)
    assert ("has no kernel" if hidden else f"no trace by '{name}'") in caplog.text or gradient == "backprop"


def test_a_state_that_is_not_finite_is_the_solvers_to_name(name):
    flow = CNF(lambda t, y: y.exp().exp() * 1e300, 3, 1.0, name, n_probes=3, solver=Solver("rk4", step_size=0.5))
    with pytest.raises(NonFiniteState):
        flow.log_prob(torch.ones(2, 3))


def test_the_wrong_number_of_probes_is_named(make_field, name):
    fewest = FEWEST_PROBES[name]
    with pytest.raises(ValueError, match=f"n_probes: divergence '{name}' needs at least {fewest} probes; got 1"):
        CNF(make_field(4), 4, divergence=name)
    few = probes("gaussian", fewest - 1, 2, 4)
    for call in (
        lambda: DIVERGENCES[name](make_field(4), T, normal(2, 4), few),
        lambda: CNF(make_field(4), 4, divergence=name, n_probes=fewest).log_prob(normal(2, 4), few),
    ):
        with pytest.raises(ValueError, match=f"noise: divergence '{name}' needs at least {fewest} probes"):
            call()


def test_xtrace_refuses_more_probes_than_dimensions(make_field):
    with pytest.raises(ValueError, match=r"n_probes: divergence 'xtrace' takes at most .* dimensions, 2"):
        CNF(make_field(2), 2, divergence="xtrace", n_probes=3)
    with pytest.raises(ValueError, match=r"noise: divergence 'xtrace' takes at most .* dimensions, 2"):
        DIVERGENCES["xtrace"](make_field(2), T, normal(3, 2), probes("gaussian", 3, 3, 2))
