"""A kernel computes what a class does: whatever else an object does is computed by torch, or refused in words."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from repro.flows import CNF
from repro.flows.augmented import Augmented
from repro.flows.planar_field import PlanarField
from repro.nets.fields import ConcatField, ConcatSquashField, IgnoreField, PerceptronField
from repro.nets.odenet import ConvField
from repro.ode import Solver, UnsupportedCombination, solve
from repro.ode.kernels import ConvolutionKernel, PerceptronKernel, choose_kernel, library
from repro.ode.kernels.plain import changed, hooked

pytestmark = pytest.mark.skipif(library()[0] is None, reason="no native kernel")
TIMES = torch.tensor([0.0, 0.5], dtype=torch.float64)
FIXED = {"method": "rk4", "step_size": 0.25}


def rows(n=5):
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def images(n=3):
    return torch.randn(n, 64, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Half(IgnoreField):
    def forward(self, t, y):
        return 0.5 * super().forward(t, y)


class HalfImages(ConvField):
    def forward(self, t, y):
        return 0.5 * super().forward(t, y)


class Own(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.linear = nn.Linear(n_in, n_out)

    def at(self, t):
        return self.linear.weight * (1 + t), self.linear.bias


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return 0.1 * g


class ByTenth(nn.Module):
    def forward(self, x):
        return Scaled.apply(x)


def perceptron(change=lambda field: None, make=IgnoreField):
    torch.manual_seed(0)
    field = make(3, 8, 2).double()
    change(field)
    return field


def network(change=lambda field: None, make=ConvField):
    torch.manual_seed(0)
    field = make().double()
    change(field)
    return field.double()


def to(place, value):
    """A change of a field: put a value at a place."""

    def change(field):
        *path, name = place.split(".")
        for part in path:
            field = field[int(part)] if part.isdigit() else getattr(field, part)
        setattr(field, name, value() if callable(value) and not isinstance(value, nn.Module) else value)

    return change


def own_weight(field):
    linear = field.layers[1].linear
    weight = linear.weight.detach().clone()
    del linear.weight
    linear.weight = weight.requires_grad_()


UNKNOWN = {
    "subclass": lambda: (perceptron(make=Half), rows()),
    "subclass of images": lambda: (network(make=HalfImages), images()),
    "hook": lambda: (perceptron(lambda f: f.register_forward_hook(lambda m, x, y: 0.5 * y)), rows()),
    "hook of a part": lambda: (network(lambda f: f.conv1.register_forward_hook(lambda m, x, y: 0.5 * y)), images()),
    "forward of an object": lambda: (perceptron(to("forward", lambda: lambda t, y: 2 * y)), rows()),
    "activation": lambda: (perceptron(to("_act", lambda: torch.sin)), rows()),
    "layer": lambda: (PerceptronField(Own, 3, 8, 2, "tanh").double(), rows()),
    "no bias": lambda: (perceptron(to("layers.0.linear.bias", None)), rows()),
    "weight that is no parameter": lambda: (perceptron(own_weight), rows()),
    "groups": lambda: (network(to("norm1", lambda: nn.GroupNorm(16, 64))), images()),
    "eps": lambda: (network(to("norm1.eps", 0.5)), images()),
    "norm": lambda: (network(to("norm1", lambda: nn.BatchNorm2d(64))), images()),
    "no gain": lambda: (network(to("norm1", lambda: nn.GroupNorm(32, 64, affine=False))), images()),
    "no bias of a convolution": lambda: (network(to("conv1.bias", None)), images()),
    "hypernetwork": lambda: (PlanarHalf(3, 6).double(), rows()),
}


class PlanarHalf(PlanarField):
    def _at(self, times):
        w, v, b = super()._at(times)
        return w, 0.5 * v, b


def outcome(field, y, engine, gradient="checkpoint", **settings):
    """A solve's end, and the gradients of the state and of all parameters, zero where there is none."""
    field.zero_grad()
    y = y.clone().requires_grad_()
    solver = Solver(engine=engine, **(FIXED | settings))
    end = solve(field, y, TIMES.to(y.dtype), solver, gradient=gradient).y[-1]
    end.sin().sum().backward()
    return [
        end.detach(),
        *(torch.zeros_like(x) if x.grad is None else x.grad.clone() for x in (y, *field.parameters())),
    ]


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint", "backprop"])
@pytest.mark.parametrize("name", UNKNOWN)
def test_what_the_kernel_does_not_know_is_left_to_torch(name, gradient):
    torch.manual_seed(0)
    field, y = UNKNOWN[name]()
    assert isinstance(choose_kernel(field, y), str)
    expected, found = (outcome(field, y, engine, gradient) for engine in ("torchdiffeq", "compiled"))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_what_it_knows_is_not_left():
    weighted = perceptron(lambda f: nn.utils.parametrizations.weight_norm(f.layers[1].linear), ConcatSquashField)
    for field, y in ((perceptron(), rows()), (network(), images()), (weighted, rows())):
        assert not isinstance(choose_kernel(field, y), str)


def test_layers_of_two_dtypes_are_torchs_error():
    field = perceptron()
    field.layers[1].float()
    with pytest.raises(RuntimeError, match="dtype"):
        outcome(field, rows(), "compiled")


def test_a_custom_gradient_of_a_view_counts():
    field = perceptron(lambda f: nn.utils.parametrize.register_parametrization(f.layers[0].linear, "weight", ByTenth()))
    expected, found = (outcome(field, rows(), engine, "adjoint") for engine in ("torchdiffeq", "compiled"))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_parameters_hook_runs_once():
    field = perceptron()
    handle = field.layers[0].linear.weight.register_hook(lambda g: 2 * g)
    expected, found = (outcome(field, rows(), engine, "backprop") for engine in ("torchdiffeq", "compiled"))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    handle.remove()
    assert changed(field) is None


def test_a_hook_of_one_object_is_not_lost_in_anothers_graph(monkeypatch):
    monkeypatch.setenv("REPRO_KERNELS", "1")
    plain = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).double()

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = plain

        def forward(self, t, y):
            return self.net(y)

    hooking = Field()
    hooking.register_forward_hook(lambda m, x, y: 0.5 * y)
    outcome(Field(), rows(), "compiled")
    expected, found = (outcome(hooking, rows(), engine) for engine in ("torchdiffeq", "compiled"))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_hook_of_all_modules_counts():
    handle = nn.modules.module.register_module_forward_hook(lambda m, x, y: None)
    try:
        assert hooked(perceptron()) == "all modules have a hook"
    finally:
        handle.remove()
    assert hooked(perceptron()) is None


@pytest.mark.parametrize("make", [lambda: perceptron(make=ConcatField), network], ids=["perceptron", "images"])
def test_weights_of_functional_call_get_gradients_by_backprop(make):
    field, y = make(), (rows() if make is not network else images())
    given = {name: (1.1 * p.detach()).requires_grad_() for name, p in field.named_parameters()}

    class Solved(nn.Module):
        def __init__(self, engine):
            super().__init__()
            self.field, self.solver = field, Solver(engine=engine, **FIXED)

        def forward(self, y):
            return solve(self.field, y, TIMES, self.solver, gradient="backprop").y[-1].sin().sum()

    grads = []
    for engine in ("torchdiffeq", "compiled"):
        loss = torch.func.functional_call(Solved(engine), {f"field.{name}": p for name, p in given.items()}, (y,))
        grads.append(torch.autograd.grad(loss, list(given.values())))
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint", "backprop"])
def test_parameters_that_were_exchanged_are_refused(gradient):
    field = perceptron()
    solver = Solver(engine="compiled", **FIXED)
    end = solve(field, rows(), TIMES, solver, gradient=gradient, parameters=tuple(field.parameters())).y[-1]
    field.layers[0].linear.weight = nn.Parameter(field.layers[0].linear.weight.detach().clone())
    with pytest.raises(RuntimeError, match="is not what it was in the forward pass"):
        end.sum().backward()


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint", "backprop"])
def test_a_gradient_of_the_gradient_is_refused(gradient):
    field, y = perceptron(), rows().requires_grad_()
    solver = Solver(engine="compiled", **FIXED)
    end = solve(field, y, TIMES, solver, gradient=gradient, parameters=tuple(field.parameters())).y[-1]
    with pytest.raises(UnsupportedCombination, match="create_graph"):
        torch.autograd.grad(end.sum(), y, create_graph=True)


@pytest.mark.parametrize("of", ["frozen weight", "noise"])
def test_constants_changed_before_the_backward_pass_are_noticed(of):
    field = perceptron(lambda f: f.layers[0].linear.weight.requires_grad_(False))
    noise = torch.randn(1, 5, 3, dtype=torch.float64)
    flow = CNF(field, 3, 0.5, "hutchinson", Solver(engine="compiled", **FIXED), "backprop")
    loss = flow.log_prob(rows(), noise=noise).sum()
    with torch.no_grad():
        (field.layers[0].linear.weight if of == "frozen weight" else noise).mul_(2)
    with pytest.raises(RuntimeError, match="is not what it was in the forward pass"):
        loss.backward()


@pytest.mark.parametrize("gradient", ["adjoint", "checkpoint"])
@pytest.mark.parametrize("make", [perceptron, network, lambda: PlanarField(3, 6).double()])
def test_a_field_without_trained_parameters_gives_the_states_gradient(make, gradient):
    torch.manual_seed(0)
    field = make().requires_grad_(False)
    y = images() if make is network else rows()
    expected, found = (outcome(field, y, engine, gradient) for engine in ("torchdiffeq", "compiled"))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("batch", [1, 3, 11])
def test_lanes_without_a_row_do_not_reach_the_gradient(batch):
    field = network()
    for part in (field.norm1, field.norm2, field.norm3):
        part.eps = 0.0
    expected, found = (outcome(field, images(batch), engine) for engine in ("torchdiffeq", "compiled"))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_more_threads_than_rows():
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        field = perceptron(make=lambda *_: IgnoreField(300, 8, 2))
        flow = CNF(field, 300, 0.5, "exact", Solver(engine="compiled", **FIXED))
        x = torch.randn(2, 300, dtype=torch.float64)
        expected = CNF(field, 300, 0.5, "exact", Solver(**FIXED)).log_prob(x)
        torch.testing.assert_close(flow.log_prob(x), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("n", [5, 4])
def test_a_systems_kernel_evaluates_the_system(n):
    field = perceptron(make=ConcatField)
    state = torch.cat([rows(n), rows(n)[:, :1]], 1)
    system = Augmented(field, 3, "hutchinson", (), torch.randn(2, n, 3, dtype=torch.float64))
    kernel = choose_kernel(system, state)
    assert isinstance(kernel, PerceptronKernel)
    torch.testing.assert_close(kernel.evaluate(0.3, state), system(TIMES[1] - 0.2, state))


def test_probes_that_do_not_fit_are_refused_in_words():
    field, state = perceptron(make=ConcatField), rows()
    weight = field.layers[0].affine().weight
    for probes in (torch.zeros(2, 1, 3).double(), torch.zeros(2, 5, 3)):
        assert "probes" in PerceptronKernel.why_not(weight, "tanh", torch.cat([state, state[:, :1]], 1), probes)


def test_under_autocast_torch_computes():
    field = network().float()
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast" in choose_kernel(field, images().float())
        expected, found = (
            outcome(field, images().float(), engine, "backprop") for engine in ("torchdiffeq", "compiled")
        )
    torch.testing.assert_close(found[0], expected[0], rtol=0.02, atol=0.02)
    assert isinstance(choose_kernel(field, images().float()), ConvolutionKernel)


def test_a_backward_pass_that_was_interrupted_leaves_nothing(monkeypatch):
    field = perceptron()
    flow = CNF(field, 3, 0.5, "exact", Solver(engine="compiled", **FIXED), "checkpoint")
    loss = -flow.log_prob(rows()).mean()
    expected = torch.autograd.grad(loss, tuple(field.parameters()), retain_graph=True)
    pull, calls = PerceptronKernel.pull, []

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return pull(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(PerceptronKernel, "pull", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loss.backward(retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, tuple(field.parameters())), expected)


FORKED = """
import multiprocessing, torch
from repro.nets.fields import IgnoreField
from repro.ode import Solver, solve

torch.set_num_threads(1)
torch.manual_seed(0)
field, times = IgnoreField(64, 8, 2).double(), torch.tensor([0.0, 0.5], dtype=torch.float64)
solver = Solver("rk4", step_size=0.1, engine="compiled")


def end(seed):
    y = torch.randn(4000, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return [float(solve(field, y, times, solver).y[-1].sum()) for _ in range(3)]


expected = [end(seed) for seed in range(4)]
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(end, range(4), chunksize=1) == expected
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_processes_do_not_share_memory():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_a_field_is_copied_and_pickled():
    field = perceptron()
    outcome(field, rows(), "compiled")
    for other in (copy.deepcopy(field), pickle.loads(pickle.dumps(field))):
        assert not isinstance(choose_kernel(other, rows()), str)
        torch.testing.assert_close(other(TIMES[0], rows()), field(TIMES[0], rows()))
