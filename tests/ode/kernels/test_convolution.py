"""The native kernel of images against the same steps by autograd."""

import gc

import pytest
import torch

from repro.nets.odenet import ConvField
from repro.ode import Solver, solve
from repro.ode.kernels import ConvolutionKernel, Cotangents, build, memory, native
from repro.ode.torchdiffeq_backend import runge_kutta_tableau
from tests.ode.kernels.by_autograd import AT, BACK, error, reference
from tests.ode.kernels.image_field import ImageField

built, reason = build.library()
pytestmark = pytest.mark.skipif(built is None, reason=f"no native kernel: {reason}")

BOUNDS = {torch.float64: 1e-12, torch.float32: 3e-5}


def make(dtype=torch.float64, batch=20, image=(6, 6), channels=(4, 6, 4), groups=2):
    torch.manual_seed(3)
    field = ImageField(channels, groups).to(dtype)
    y = torch.randn(batch, channels[0], *image, dtype=dtype)
    return field, y, field.step_kernel(y)


def assert_a_step_is_autograds(field, y, kernel, method, at):
    assert isinstance(kernel, ConvolutionKernel)
    tableau, start, bound = runge_kutta_tableau(method), y.clone().requires_grad_(), BOUNDS[y.dtype]
    end, last, _ = reference(field, at, start, tableau)
    found = kernel.step(tableau, at, y, kernel.evaluate(at.start, y), (1e-5, 1e-5))
    assert error(found.end, end) < bound
    assert error(found.last, last) < bound
    vectors = torch.randn_like(y), torch.randn_like(y)
    expected = torch.autograd.grad((end, last), [start, *field.parameters()], vectors)
    gy = kernel.pull(tableau, at, len(tableau.alpha), y, Cotangents(vectors[0], last=vectors[1]))
    assert error(gy, expected[0]) < bound
    scale = max(grad.abs().max().item() for grad in expected)  # before a norm of all channels a bias has no gradient
    found = list(kernel.gradients(tuple(field.parameters())))
    torch.testing.assert_close(found, list(expected[1:]), rtol=10 * bound, atol=10 * bound * scale)
    kept = kernel.step(tableau, at, y, None, (1e-5, 1e-5), keep=True).kept
    again = kernel.pull(tableau, at, len(tableau.alpha), y, Cotangents(vectors[0], last=vectors[1]), kept)
    torch.testing.assert_close(again, gy, rtol=bound, atol=bound * scale)
    again = list(kernel.gradients(tuple(field.parameters())))
    torch.testing.assert_close(again, found, rtol=10 * bound, atol=10 * bound * scale)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
@pytest.mark.parametrize("at", [AT, BACK])
def test_a_step_of_the_ode_net_and_its_gradient_are_autograds(dtype, method, at):
    torch.manual_seed(3)
    field, y = ConvField().to(dtype), torch.randn(19, 64, 6, 6, dtype=dtype)
    assert_a_step_is_autograds(field, y, field.step_kernel(y), method, at)


@pytest.mark.parametrize("image", [(1, 2), (2, 5), (3, 3), (7, 7), (6, 11)])
@pytest.mark.parametrize("batch", [1, 7, 16, 33])
@pytest.mark.parametrize(("channels", "groups"), [((4, 6, 4), 2), ((3, 3), 1), ((18, 34, 2, 18), 2), ((2,), 1)])
def test_every_size(image, batch, channels, groups):
    field, y, kernel = make(batch=batch, image=image, channels=channels, groups=groups)
    assert_a_step_is_autograds(field, y, kernel, "bosh3", AT)


def test_it_rounds_about_as_torch():
    torch.manual_seed(3)
    field, y, t = ConvField(), torch.randn(32, 64, 6, 6), torch.tensor(0.3)
    found, torchs = field.step_kernel(y).evaluate(0.3, y), field(t, y)
    exact = field.double()(t.double(), y.double())
    assert error(found.double(), exact) < 5 * error(torchs.double(), exact)


@pytest.mark.parametrize("frozen", [(), (0, 5), (4,)])
@pytest.mark.parametrize("settings", [{"rtol": 1e-4, "atol": 1e-4}, {"method": "rk4", "step_size": 0.23}], ids=str)
@pytest.mark.parametrize("gradient", ["adjoint", "adjoint_seminorm", "checkpoint", "backprop"])
def test_a_solve_is_torchdiffeqs(gradient, settings, frozen):
    times = torch.tensor([0.0, 0.3, 0.31, 1.0], dtype=torch.float64)
    if gradient == "backprop":
        settings = settings if "method" in settings else settings | {"first_step": 0.2}
    found = []
    for engine in ("torchdiffeq", "compiled"):
        field, y, _ = make(batch=35)
        for index in frozen:
            list(field.parameters())[index].requires_grad_(False)
        y.requires_grad_()
        solution = solve(field, y, times, Solver(**settings, engine=engine), gradient)
        torch.sin(solution.y * torch.arange(4.0).view(4, 1, 1, 1, 1)).sum().backward()
        grads = [p.grad for p in field.parameters() if p.requires_grad]
        assert all(p.grad is None for p in field.parameters() if not p.requires_grad)
        found.append(([solution.y.detach(), y.grad, *grads], solution.stats))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-9, atol=1e-9)
    assert found[1][1] == found[0][1]


@pytest.mark.parametrize("openmp", [True, False])
def test_threads_only_split_the_images(openmp, monkeypatch):
    if not openmp:
        monkeypatch.setattr(native, "_on_parts", lambda: None)
    elif native._on_parts() is None:
        pytest.skip("torch's OpenMP is not the compiler's")
    results, tableau = [], runge_kutta_tableau("dopri5")
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        field, y, kernel = make(batch=49)
        found = kernel.step(tableau, AT, y, None, (1e-5, 1e-5), keep=True)
        gy = kernel.pull(tableau, AT, 7, y, Cotangents(torch.ones_like(y)), found.kept)
        results.append([found.end, gy, *kernel.gradients(tuple(field.parameters()))])
        assert found.kept.parts == threads
    torch.set_num_threads(1)
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        torch.testing.assert_close(other, results[0], rtol=1e-12, atol=1e-12)


def test_what_is_no_number_stays_none_in_its_image():
    _, y, kernel = make(torch.float32)
    y[3, 1, 2, 2] = torch.nan
    f = kernel.evaluate(0.0, y)
    assert not f[3].isfinite().any()
    assert f[[i for i in range(20) if i != 3]].isfinite().all()


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (torch.zeros(2, 64, 6, 6, dtype=torch.float64), "takes torch.float32 images of 64 channels"),
        (torch.zeros(2, 63, 6, 6), "(2, 63, 6, 6)"),
        (torch.zeros(2, 64), "(2, 64)"),
    ],
)
def test_what_it_does_not_do_is_said(y, words):
    assert words in ConvolutionKernel.why_not(torch.zeros(1), 64, y)


def test_memory_of_large_results_goes_round_and_is_nobody_elses():
    gc.collect()
    like = torch.zeros(1)
    large = [memory.room(like, 3, 1 << 19).fill_(n) for n in range(3)]
    places = {x.data_ptr() for x in large}
    kept = large.pop(0)[1]  # a part keeps the whole
    large.clear()
    again = [memory.room(like, 2, 3 << 18).fill_(7.0) for _ in range(2)]
    assert {x.data_ptr() for x in again} < places
    assert (kept == 0).all()
    del again
    assert len(memory.waiting()) == 2
    other = memory.room(like, 1 << 23)
    assert memory.waiting() == []  # the work has changed
    del other
    small = memory.room(like, 10)
    assert memory.waiting() == [(1 << 23) * 4]
    assert small.shape == (10,)
    memory.empty_cache()
    assert memory.waiting() == []


def test_no_more_waits_than_the_limit(monkeypatch):
    monkeypatch.setattr(memory, "LIMIT", 3 << 20)
    parts = [memory.room(torch.zeros(1), 1 << 18) for _ in range(5)]
    del parts
    assert sum(memory.waiting()) <= 3 << 20
