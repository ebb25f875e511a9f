"""Counts are those of a plain counter in torchdiffeq's own solve, and a law that fails is seen."""

import pytest
import torch
from torchdiffeq import odeint

from benchmarks.bench_nfe import _cells, counted, identity, toy, visited
from benchmarks.toys import points, toy_flow
from repro.measuring.step import flow_step
from repro.ode import GRADIENTS, Solver

SOLVER = Solver("dopri5", rtol=1e-6, atol=1e-6)
UNTRAINED = "at initialisation"


class Counter:
    """A field that counts its calls."""

    def __init__(self, field):
        self.field, self.calls = field, 0

    def __call__(self, t, y):
        self.calls += 1
        return self.field(t, y)


def backward_calls(field, x, t, loss):
    """Evaluations of the augmented system of Algorithm 1, written out anew: one solve by torchdiffeq an interval."""
    parameters = tuple(field.parameters())
    calls = 0

    def system(time, state):
        nonlocal calls
        calls += 1
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            dy = field(time, y)
            return dy.detach(), *torch.autograd.grad(dy, (y, *parameters), -state[1])

    with torch.no_grad():
        path = odeint(field, x, t, rtol=SOLVER.rtol, atol=SOLVER.atol)
    (grad,) = torch.autograd.grad(loss(path.requires_grad_()), path)
    a, sums = grad[-1], [torch.zeros_like(p) for p in parameters]
    path = path.detach()
    for i in range(len(t) - 1, 0, -1):
        ends = odeint(system, (path[i], a, *sums), t[[i, i - 1]], rtol=SOLVER.rtol, atol=SOLVER.atol)
        a, sums = ends[1][-1] + grad[i - 1], [part[-1] for part in ends[2:]]
    return calls


@pytest.mark.parametrize("times", [2, 4])
def test_counts_are_those_of_torchdiffeq_with_a_counter(times):
    found = counted(lambda: visited(UNTRAINED, SOLVER, "adjoint", times))
    flow = toy_flow("8gaussians", UNTRAINED, SOLVER, "adjoint")
    x, t = points("8gaussians", 128), torch.linspace(0, flow.t1, times, dtype=torch.float64)
    field = Counter(flow.field)
    with torch.no_grad():
        odeint(field, x, t, rtol=SOLVER.rtol, atol=SOLVER.atol)
    assert found["nfe_forward"] == field.calls
    assert found["nfe_backward"] == backward_calls(flow.field, x, t, lambda y: 0.5 * y.square().mean())


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_the_identity_holds_where_it_applies(gradient):
    found = counted(lambda: toy(UNTRAINED, SOLVER, gradient))
    assert found["status"] == "ok"
    laws = identity(found, SOLVER, gradient)
    assert laws["identity"] is True
    assert laws["identity_backward"] == (True if gradient.startswith("adjoint") else "n/a")
    assert (found["nfe_backward"] is None) == (gradient == "backprop")


def test_an_identity_that_fails_is_false_and_other_methods_have_none():
    found = counted(lambda: toy(UNTRAINED, SOLVER, "adjoint"))
    wrong = found | {"nfe_backward": found["nfe_backward"] + 1}
    assert identity(wrong, SOLVER, "adjoint") == {"identity": True, "identity_backward": False}
    assert identity(found, SOLVER, "adjoint", intervals=2)["identity_backward"] is False
    for solver in (Solver("bosh3"), Solver("dopri5", first_step=0.1)):
        assert set(identity(found, solver, "adjoint").values()) == {"n/a"}


def test_what_cannot_be_done_has_a_status():
    found = counted(lambda: toy(UNTRAINED, Solver("adams", engine="scipy"), "backprop"))
    assert found["status"].startswith("not supported: ")
    assert set(identity(found, SOLVER, "backprop").values()) == {"n/a"}
    absent = counted(lambda: toy("trained", SOLVER, "adjoint"))  # tests have no published runs
    assert absent["status"].startswith("NotPublished: no published run")


def test_a_first_step_saves_one_evaluation():
    def given(solver):
        flow = toy_flow("8gaussians", UNTRAINED, solver, "adjoint")
        return counted(lambda: flow_step(flow, points("8gaussians", 8)))

    found = given(Solver("dopri5", first_step=0.1))
    assert found["nfe_forward"] == 1 + 6 * (found["n_accepted"] + found["n_rejected"])


def test_every_cell_has_a_name_of_its_own():
    names = [cell[:5] for cell in _cells()]
    assert len(set(names)) == len(names)
