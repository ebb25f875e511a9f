"""The native kernel against the same steps by autograd; its builder under faults."""

import copy
import os

import pytest
import torch

from repro.flows.augmented import Augmented
from repro.nets.fields import FIELDS
from repro.ode.kernels import Cotangents, PerceptronKernel, build
from repro.ode.torchdiffeq_backend import runge_kutta_tableau
from tests.ode.kernels.by_autograd import AT, BACK, error, reference

built, reason = build.library()
pytestmark = pytest.mark.skipif(built is None, reason=f"no native kernel: {reason}")


def make(layer, activation, dtype, *, dim=3, width=37, depth=2, batch=50, probes=2):
    """A field, the system that it is solved in, its kernel, and a state."""
    torch.manual_seed(3)
    field = FIELDS[layer](dim, width, depth, activation).to(dtype)
    noise = torch.randn(probes, batch, dim, dtype=dtype) if probes else None
    system = Augmented(field, dim, "hutchinson", (), noise) if probes else field
    y = torch.randn(batch, dim + (probes > 0), dtype=dtype)
    kernel = system.step_kernel(y)
    assert isinstance(kernel, PerceptronKernel)
    return field, system, kernel, y


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
@pytest.mark.parametrize("activation", ["tanh", "softplus"])
@pytest.mark.parametrize("layer", FIELDS)
@pytest.mark.parametrize("probes", [0, 1, 2])
@pytest.mark.parametrize("at", [AT, BACK])
def test_a_step_and_its_gradient_are_autograds(layer, activation, dtype, bound, probes, at):
    field, system, kernel, y = make(layer, activation, dtype, probes=probes)
    tableau, start = runge_kutta_tableau("dopri5"), y.clone().requires_grad_()
    end, last, _ = reference(system, at, start, tableau)
    f = kernel.evaluate(at.start, y)
    found = kernel.step(tableau, at, y, f, (1e-5, 1e-5))
    assert error(found.end, end) < bound
    assert error(found.last, last) < bound
    vectors = torch.randn_like(y), torch.randn_like(y)
    expected = torch.autograd.grad((end, last), [start, *field.parameters()], vectors)
    gy = kernel.pull(tableau, at, 7, y, Cotangents(vectors[0], last=vectors[1]))
    assert error(gy, expected[0]) < bound
    for grad, wanted in zip(kernel.gradients(tuple(field.parameters())), expected[1:], strict=True):
        assert error(grad, wanted) < 10 * bound


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 64, 3), (5, 130, 1), (17, 16, 4)])
@pytest.mark.parametrize("batch", [1, 7, 301])
def test_every_size(shape, batch):
    dim, width, depth = shape
    sizes = {"dim": dim, "width": width, "depth": depth, "batch": batch, "probes": 1}
    field, system, kernel, y = make("concatsquash", "tanh", torch.float64, **sizes)
    tableau, start = runge_kutta_tableau("bosh3"), y.clone().requires_grad_()
    end, _, _ = reference(system, AT, start, tableau)
    found = kernel.step(tableau, AT, y, kernel.evaluate(AT.start, y), (1e-5, 1e-5))
    torch.testing.assert_close(found.end, end.detach(), rtol=1e-12, atol=1e-12)
    vector = torch.randn_like(y)
    expected = torch.autograd.grad(end, [start, *field.parameters()], vector)
    gy = kernel.pull(tableau, AT, 4, y, Cotangents(vector))
    torch.testing.assert_close(gy, expected[0], rtol=1e-11, atol=1e-11)
    found = kernel.gradients(tuple(field.parameters()))
    torch.testing.assert_close(list(found), list(expected[1:]), rtol=1e-10, atol=1e-10)


def test_sums_over_a_wide_layer_round_about_as_torchs():
    # at tight tolerances float32's rounding is most of a step's error estimate, and sets the number of steps
    torch.manual_seed(3)
    field = FIELDS["concatsquash"](43, 860, 2, "softplus")
    noise, y, t = torch.randn(1, 64, 43), torch.randn(64, 44), torch.tensor(0.1)
    system = Augmented(field, 43, "hutchinson", (), noise)
    wide = Augmented(copy.deepcopy(field).double(), 43, "hutchinson", (), noise.double())
    exact = wide(t.double(), y.double())
    found = system.step_kernel(y).evaluate(t.item(), y)
    assert error(found.double(), exact) < 1.5 * error(system(t, y).double(), exact)


def test_middle_and_error_are_torchs():
    _, system, kernel, y = make("concatsquash", "tanh", torch.float64)
    tableau = runge_kutta_tableau("dopri5")
    end, _, (middle,) = reference(system, AT, y, tableau)
    f = kernel.evaluate(AT.start, y)
    found = kernel.step(tableau, AT, y, f, (1e-3, 1e-4))
    torch.testing.assert_close(found.mid, middle.detach(), rtol=1e-12, atol=1e-12)
    # an error estimate is linear in the stages: that of the next lower order differs from the solution by it
    k, total = [f], AT.size * tableau.error[0] * f
    for alpha, row, weight in zip(tableau.alpha[1:], tableau.beta[1:], tableau.error[1:], strict=True):
        at = y + AT.size * sum(w * slope for w, slope in zip(row, k, strict=True))
        k.append(kernel.evaluate(AT.start + alpha * AT.size, at))
        total = total + AT.size * weight * k[-1]
    expected = total / (1e-4 + 1e-3 * torch.maximum(y.abs(), end.detach().abs()))
    torch.testing.assert_close(found.error, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_a_kept_end_holds_one_state(method):
    _, _, kernel, y = make("concatsquash", "tanh", torch.float32)
    tolerances = (1e-5, 1e-5) if method == "dopri5" else None
    end = kernel.step(runge_kutta_tableau(method), AT, y, None, tolerances).end
    assert end.untyped_storage().nbytes() == y.nbytes


def test_threads_only_split_the_rows():
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        field, _, kernel, y = make("concatsquash", "tanh", torch.float64, batch=1000, probes=1)
        found = kernel.step(runge_kutta_tableau("dopri5"), AT, y, kernel.evaluate(AT.start, y), (1e-5, 1e-5))
        gy = kernel.pull(runge_kutta_tableau("dopri5"), AT, 6, y, Cotangents(torch.ones_like(y)))
        results.append([found.end, gy, *kernel.gradients(tuple(field.parameters()))])
    torch.set_num_threads(1)
    for other in results[1:]:
        assert torch.equal(other[0], results[0][0])
        torch.testing.assert_close(other, results[0], rtol=1e-12, atol=1e-12)


def test_extreme_inputs():
    """Saturated units, and numbers that are none: as torch, not as an accident of the approximation."""
    field, _, kernel, y = make("ignore", "softplus", torch.float32, probes=0)
    for scale in (1e3, 1e6):
        with torch.no_grad():
            expected = field(torch.tensor(0.0), scale * y)
        torch.testing.assert_close(kernel.evaluate(0.0, scale * y), expected, rtol=1e-4, atol=1e-4)
    assert torch.isnan(kernel.evaluate(0.0, torch.full_like(y, torch.nan))).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": torch.zeros(5, 3, dtype=torch.float64)}, "takes torch.float32 states of 3"),
        ({"y": torch.zeros(5, 4)}, "states of 3 numbers a row"),
        ({"probes": torch.zeros(1, 5, 3, requires_grad=True), "y": torch.zeros(5, 4)}, "no gradient for the probes"),
    ],
)
def test_what_it_does_not_do_is_said(change, words):
    field = FIELDS["concatsquash"](3)
    assert words in field.step_kernel(**{"y": torch.zeros(5, 3)} | change)


def test_no_compiler_is_a_reason(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found, reason = build.library.__wrapped__()
    assert found is None
    assert "none" in reason
    assert "steps eagerly" in caplog.text


def test_a_compiler_that_fails_leaves_nothing(monkeypatch, tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && echo broken 1.0 || { echo no such flag >&2; exit 1; }\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found, reason = build.library.__wrapped__()
    assert found is None
    assert "no such flag" in reason
    assert list((tmp_path / "cache").rglob("*.so")) == []


@pytest.fixture
def copying_compiler(monkeypatch, tmp_path):
    """A compiler with an option, that copies the library of this process and counts; gives the count and the cache."""
    script, count = tmp_path / "cc", tmp_path / "count"
    script.write_text(
        f"""#!/bin/sh
[ "$2" = --version ] && echo copying 1.0 && exit 0
echo >> {count}
while [ "$1" != -o ]; do shift; done
cp {built._name} "$2"
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", f"{script} -O1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "neural-ode-ffjord-suite" / "kernels"

    def build_again():
        assert build.library.__wrapped__()[0] is not None
        return count.read_text().count("\n"), {path.suffix: path for path in folder.iterdir()}

    return build_again


@pytest.mark.skipif(built is None, reason=str(reason))
def test_a_library_that_somebody_else_can_have_written_is_built_again(copying_compiler):
    before = os.umask(0o002)
    try:
        count, files = copying_compiler()
    finally:
        os.umask(before)
    assert count == 1
    assert copying_compiler()[0] == 1, "the second time it is loaded"
    for path in (*files.values(), files[".so"].parent, files[".so"].parent.parent):
        assert not path.stat().st_mode & 0o022, "whatever the umask"
    changes = [
        lambda: files[".so"].chmod(0o775),
        lambda: files[".sha256"].chmod(0o664),
        lambda: files[".sha256"].write_bytes(b"\xff no text"),
        lambda: files[".so"].write_bytes(b""),
        *([lambda: os.chown(files[".so"], 12345, 12345)] if os.geteuid() == 0 else []),
    ]
    for number, change in enumerate(changes, 2):
        change()
        assert copying_compiler()[0] == number
        assert copying_compiler()[0] == number


@pytest.mark.skipif(built is None or os.geteuid() != 0, reason="giving a folder away needs root")
def test_another_users_folder_of_kernels_is_refused(copying_compiler):
    _, files = copying_compiler()
    os.chown(files[".so"].parent, 12345, 12345)
    found, reason = build.library.__wrapped__()
    assert found is None
    assert "belongs to another user" in reason


def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("REPRO_KERNELS", "0")
    assert build.library.__wrapped__()[0] is None
