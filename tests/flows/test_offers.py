"""Density and samples belong to one flow: what a field offers beside its value counts only where it is of that."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from repro.flows import CNF
from repro.flows.divergence import DIVERGENCES, NEEDS_NOISE
from repro.flows.planar_field import PlanarField
from repro.flows.products import offered
from repro.nets.fields import ConcatField, ConcatSquashField
from repro.ode import Solver

X = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


class Twice(ConcatSquashField):
    def forward(self, t, y):
        return 2 * super().forward(t, y)


class Refined(ConcatSquashField):
    """Its layers' maps are others than its parent's, and so are all of its methods."""

    def _maps(self, t, layers=slice(None)):
        return [(2 * weight, bias) for weight, bias in super()._maps(t, layers)]


class PlanarTwice(PlanarField):
    def forward(self, t, y):
        return 2 * super().forward(t, y)


class Delegating(nn.Module):
    """Gives whatever another object has."""

    def __init__(self, field):
        super().__init__()
        self.held = field

    def forward(self, t, y):
        return 3 * self.held(t, y)

    def __getattr__(self, name):
        return super().__getattr__(name) if name in ("held", "_modules") else getattr(super().__getattr__("held"), name)


class Plain(nn.Module):
    """The same function, nothing else to call."""

    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, t, y):
        return self.field(t, y)


def hooked():
    field = ConcatSquashField(2, 8, 2)
    field.register_forward_hook(lambda module, given, value: 2 * value)
    return field


def with_a_forward():
    field = ConcatField(2, 8, 2)
    field.forward = lambda t, y: torch.tanh(ConcatField.forward(field, t, y))
    return field


CHANGED = {
    "subclass": lambda: Twice(2, 8, 2),
    "subclass of a part": lambda: Refined(2, 8, 2),
    "planar subclass": lambda: PlanarTwice(2, 8),
    "hook": hooked,
    "forward of an object": with_a_forward,
    "another object's methods": lambda: Delegating(ConcatSquashField(2, 8, 2)),
}


def make(name):
    torch.manual_seed(0)
    return CHANGED[name]().double()


@pytest.mark.parametrize("engine", ["torchdiffeq", "compiled"])
@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("divergence", [name for name in DIVERGENCES if name != "bottleneck"])
def test_the_density_is_that_of_the_function_that_samples_follow(divergence, name, engine):
    if divergence == "closed_form" and name == "subclass of a part":
        pytest.skip("it has no divergence of its own; see the next test")
    field = make(name)
    solver = Solver("dopri5", rtol=1e-7, atol=1e-7, engine=engine)
    settings = {"divergence": divergence, "n_probes": {"hutchpp": 6, "xtrace": 2}.get(divergence, 1), "solver": solver}
    noise = torch.randn(settings["n_probes"], 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    noise = noise if divergence in NEEDS_NOISE else None
    other = "exact" if divergence == "closed_form" else divergence
    flow, reference = CNF(field, 2, **settings), CNF(Plain(field), 2, **settings | {"divergence": other})
    torch.testing.assert_close(flow.log_prob(X, noise), reference.log_prob(X, noise), rtol=1e-5, atol=1e-5)
    assert flow.reversibility_error(X) < 1e-5


def test_a_method_counts_where_nothing_beneath_its_class_is_changed():
    for method in ("push", "divergence", "encode", "decode"):
        assert offered(ConcatSquashField(2, 8, 2), method) is not None
        assert offered(torch.compile(ConcatSquashField(2, 8, 2)), method) is not None
        for name in ("subclass", "subclass of a part", "hook", "forward of an object", "another object's methods"):
            assert offered(make(name), method) is None


def test_a_bottleneck_of_a_changed_field_is_refused():
    with pytest.raises(TypeError, match="needs a field with encode and decode"):
        CNF(make("subclass"), 2, divergence="bottleneck").log_prob(X)


@pytest.mark.parametrize("make_field", [lambda: ConcatSquashField(2, 8, 2), lambda: PlanarField(2, 8)])
def test_weights_are_not_read_past_a_hook(make_field):
    field = make_field().double()
    linear = next(part for part in field.modules() if isinstance(part, nn.Linear))
    handle = linear.register_forward_hook(lambda module, given, value: 2 * value)
    flow = CNF(field, 2, divergence="closed_form")
    with pytest.raises(RuntimeError, match="Linear has a hook, and this field reads its weights without calling it"):
        flow.log_prob(X)
    handle.remove()
    assert torch.isfinite(flow.log_prob(X)).all()


@pytest.mark.parametrize("engine", ["torchdiffeq", "compiled"])
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_a_hook_computes_are_refused(norm, engine):
    field = ConcatSquashField(2, 8, 2).double()
    norm(field.layers[0].linear)
    with pytest.raises(RuntimeError, match=r"use torch\.nn\.utils\.parametrizations"):
        CNF(field, 2, solver=Solver(engine=engine)).log_prob(X)


def test_a_hook_of_all_modules_counts_and_torchs_counter_of_operations_does_not():
    field = ConcatSquashField(2, 8, 2)
    with FlopCounterMode(display=False):
        assert offered(field, "push") is not None
    handle = nn.modules.module.register_module_forward_hook(lambda module, given, value: None)
    assert offered(field, "push") is None
    handle.remove()
    assert offered(field, "push") is not None
