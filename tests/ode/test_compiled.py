"""The compiled engine takes torchdiffeq's steps: the same counts, the same values, the same gradients."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from repro.flows import CNF
from repro.flows.planar_field import PlanarField
from repro.nets.fields import FIELDS
from repro.ode import PROBLEMS, SOLVERS, MaxNFEExceeded, Solver, solve, steppers
from repro.ode.kernels.adjoint import AdjointKernel
from repro.ode.runge_kutta import RUNGE_KUTTA

NAMES = [name for name in SOLVERS if SOLVERS[name].engine == "compiled" and SOLVERS[name].method not in RUNGE_KUTTA]
MAKE = {layer: partial(make, 2, 16, 3) for layer, make in FIELDS.items()}
MAKE |= {
    "planar": partial(PlanarField, 2, 16),
    "planar, public": partial(PlanarField, 2, 16, gate="coordinate", reduction="mean"),
}
ESTIMATORS = [("closed_form", 1), ("exact", 1), ("hutchinson", 3)]
TIMES = torch.tensor([0.0, 0.3, 0.31, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("direction", [1, -1])
def test_same_steps_on_every_problem(name, problem, direction):
    start, t = problem.y0, problem.t0 + direction * TIMES
    solver = replace(SOLVERS[name], step_size=0.07) if SOLVERS[name].is_fixed_step else SOLVERS[name]
    for tolerance in (1e-3, 1e-6, 1e-9):
        ours = replace(solver, rtol=tolerance, atol=tolerance)
        found = solve(problem.field, start, t, ours)
        expected = solve(problem.field, start, t, replace(ours, engine="torchdiffeq"))
        assert found.stats == expected.stats
        torch.testing.assert_close(found.y, expected.y, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("first_step", [None, 0.3])
@pytest.mark.parametrize("gradient", ["adjoint", "adjoint_seminorm", "checkpoint"])
@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(("divergence", "probes"), ESTIMATORS)
def test_a_flow_is_the_same_by_both_engines(gradient, name, divergence, probes, first_step):
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(probes, 20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = {}
    for engine in ("torchdiffeq", "compiled"):
        torch.manual_seed(2)
        field = MAKE[name]().double()
        solver = Solver(rtol=1e-6, atol=1e-6, engine=engine, first_step=first_step)
        flow = CNF(field, 2, 0.8, divergence, solver, gradient, n_probes=probes)
        value = flow.log_prob(x, noise if divergence == "hutchinson" else None)
        value.mean().backward()
        found[engine] = [value.detach(), *[p.grad for p in field.parameters()]]
        found[engine, "stats"] = flow.stats
    torch.testing.assert_close(found["compiled"], found["torchdiffeq"], rtol=1e-8, atol=1e-9)
    assert found["compiled", "stats"] == found["torchdiffeq", "stats"]


def differentiated(gradient, settings, name="concatsquash", frozen=(), n_rows=301):
    """States at several times by both engines: values, gradients of the start and the parameters, counts."""
    found = []
    for engine in ("torchdiffeq", "compiled"):
        torch.manual_seed(2)
        field = MAKE[name]().double()
        for index in frozen:
            list(field.parameters())[index].requires_grad_(False)
        x = torch.randn(n_rows, 2, dtype=torch.float64).requires_grad_()
        solution = solve(field, x, TIMES, Solver(**settings, engine=engine), gradient)
        torch.sin(solution.y * torch.arange(8.0).view(4, 1, 2)).sum().backward()
        parameters = list(field.parameters())
        found.append(([solution.y.detach(), x.grad, *[p.grad for p in parameters if p.requires_grad]], solution.stats))
        assert all(p.grad is None for p in parameters if not p.requires_grad)
    return found


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("gradient", ["adjoint", "adjoint_seminorm"])
@pytest.mark.parametrize(
    "settings",
    [
        {"rtol": 1e-5, "atol": 1e-5},
        {"rtol": 1e-5, "atol": 1e-5, "first_step": 0.3},  # rejected at first
        {"method": "bosh3", "rtol": 1e-4, "atol": 1e-4},
        {"rtol": 1e-7, "atol": 1e-7, "adjoint_rtol": 1e-3, "adjoint_atol": 1e-3},
        {"method": "rk4", "step_size": 0.17},
        {"method": "euler", "step_size": 0.05},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["concatsquash", "planar", "planar, public"])
def test_the_adjoint_s_native_steps_are_those_of_autograd(gradient, settings, threads, name):
    torch.set_num_threads(threads)
    (values, stats), (ours, our_stats) = differentiated(gradient, settings, name)
    torch.testing.assert_close(ours, values, rtol=1e-10, atol=1e-10)
    assert our_stats == stats


@pytest.mark.parametrize("gradient", ["adjoint", "adjoint_seminorm", "checkpoint"])
@pytest.mark.parametrize("name", [*FIELDS, "planar"])
@pytest.mark.parametrize("frozen", [[0], [1, 3], [-1]])
def test_frozen_parameters_get_no_gradient_and_change_no_step(gradient, name, frozen):
    settings = {"rtol": 1e-6, "atol": 1e-6}
    (values, stats), (ours, our_stats) = differentiated(gradient, settings, name, frozen, n_rows=9)
    torch.testing.assert_close(ours, values, rtol=1e-9, atol=1e-9)
    assert our_stats == stats


def test_the_adjoint_of_a_field_with_a_kernel_runs_native_steps_and_others_say_why_not(monkeypatch, caplog):
    """What the two tests above compare would be autograd twice, were the kernel not asked."""
    called = []
    native = AdjointKernel.step
    monkeypatch.setattr(AdjointKernel, "step", lambda *given, **keep: called.append(given) or native(*given, **keep))
    caplog.set_level("INFO")
    steppers._LOGGED.clear()
    monkeypatch.setitem(MAKE, "none", lambda: AtTime(torch.nn.Linear(2, 2)))
    for name, expected in (("concatsquash", True), ("planar", True), ("none", False)):
        called.clear()
        differentiated("adjoint", {"rtol": 1e-4, "atol": 1e-4}, name)
        assert bool(called) == expected
    assert "has no kernel" in caplog.text


class AtTime(torch.nn.Module):
    """A module of the state alone as a field."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, t, y):
        return self.module(y)


@pytest.mark.parametrize("name", MAKE)
def test_a_second_backward_pass_starts_from_zero(name):
    flow = CNF(MAKE[name]().double(), 2, 0.8, "closed_form", Solver(engine="compiled"), "checkpoint")
    value = flow.log_prob(torch.randn(20, 2, dtype=torch.float64)).mean()
    first, second = (torch.autograd.grad(value, list(flow.parameters()), retain_graph=True) for _ in range(2))
    torch.testing.assert_close(second, first)


@pytest.mark.parametrize("width", [16, 400])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("method", [{"rtol": 1e-3, "atol": 1e-3}, {"method": "rk4", "step_size": 0.3}])
@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize(("divergence", "probes"), ESTIMATORS)
def test_what_stages_leave_gives_the_gradient_of_their_replay(name, method, divergence, probes, threads, width):
    if width > 16 and (name, divergence) != ("concatsquash", "hutchinson"):
        pytest.skip("wide weights, which no cache holds, are tried on one field")
    torch.set_num_threads(threads)
    x = torch.randn(301, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(probes, 301, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    field = (FIELDS[name](2, width, 3) if width > 16 else MAKE[name]()).double()
    grads = {}
    for gradient in ("checkpoint", "backprop"):
        flow = CNF(field, 2, 0.8, divergence, Solver(**method, engine="compiled"), gradient, n_probes=probes)
        value = flow.log_prob(x, noise if divergence == "hutchinson" else None).mean()
        torch.set_num_threads(1)  # the parts that the forward pass chose hold
        first, second = (torch.autograd.grad(value, list(field.parameters()), retain_graph=True) for _ in range(2))
        torch.set_num_threads(threads)
        torch.testing.assert_close(second, first)
        grads[gradient] = first
        assert flow.stats.nfe_backward is None if gradient == "backprop" else flow.stats.nfe_backward
    torch.testing.assert_close(grads["backprop"], grads["checkpoint"], rtol=1e-11, atol=1e-13)


def test_outputs_inside_steps_carry_their_gradients():
    field = FIELDS["concatsquash"](2, 16, 2).double()
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 5, 2, dtype=torch.float64)
    for method in ({"method": "dopri5", "first_step": 0.4}, {"method": "rk4", "step_size": 0.17}):
        grads = []
        for engine, gradient in (("torchdiffeq", "checkpoint"), ("compiled", "checkpoint"), ("compiled", "backprop")):
            y = solve(field, x, TIMES, Solver(**method, engine=engine), gradient).y
            grads.append(torch.autograd.grad((weights * y).sum(), [x, *field.parameters()]))
        torch.testing.assert_close(grads[1], grads[0], rtol=1e-10, atol=1e-11)
        torch.testing.assert_close(grads[2], grads[0], rtol=1e-10, atol=1e-11)


def test_a_gradient_of_the_times_falls_back_to_autograd():
    field = FIELDS["concatsquash"](2, 8, 1).double()
    x = torch.randn(5, 2, dtype=torch.float64)
    grads = []
    for engine in ("torchdiffeq", "compiled"):
        t = TIMES.clone().requires_grad_()
        y = solve(field, x, t, Solver(engine=engine, first_step=0.2), "checkpoint").y
        grads.append(torch.autograd.grad(y[-1].sum(), t)[0])
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-10, atol=1e-12)


def test_the_budget_holds_for_whole_native_steps():
    field = FIELDS["concatsquash"](2, 8, 1)
    with pytest.raises(MaxNFEExceeded, match="max_nfe = 9") as caught, torch.no_grad():
        solve(field, torch.ones(4, 2), torch.tensor([0.0, 1.0]), Solver(engine="compiled", max_nfe=9, first_step=0.01))
    assert caught.value.nfe == 9
    assert len(caught.value.history) == 1


def test_a_field_without_a_kernel_says_so_once(caplog):
    class Strange:
        def __call__(self, t, y):
            return -y

    caplog.set_level("INFO")
    steppers._LOGGED.clear()
    for _ in range(2):
        solve(Strange(), torch.ones(2), torch.tensor([0.0, 1.0]), Solver(engine="compiled"))
    assert caplog.text.count("Strange has no kernel") == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("t", [TIMES, -TIMES])
def test_backprop_through_the_kept_steps_is_checkpoints_gradient(name, t, net, y0):
    solver = replace(SOLVERS[name], step_size=0.07) if SOLVERS[name].is_fixed_step else SOLVERS[name]
    weights, y0 = torch.randn(4, 3, 2, dtype=torch.float64), y0.requires_grad_()
    found = {}
    for gradient in ("checkpoint", "backprop"):
        solution = solve(net, y0, t, solver, gradient)
        found[gradient] = torch.autograd.grad((weights * solution.y).sum(), [y0, *net.parameters()])
        found[gradient, "nfe"] = solution.stats.nfe_forward
    torch.testing.assert_close(found["backprop"], found["checkpoint"], rtol=1e-10, atol=1e-12)
    assert found["backprop", "nfe"] == found["checkpoint", "nfe"]


def test_rejected_steps_leave_no_graph(net, y0):
    nodes, rejected = [], []
    for first_step in (0.02, 20.0):  # the second is rejected several times
        solver = Solver(rtol=1e-8, atol=1e-8, engine="compiled", first_step=first_step)
        solution = solve(net, y0, TIMES[[0, 3]], solver, "backprop")
        nodes.append(_nodes(solution.y.grad_fn) / solution.stats.n_accepted)
        rejected.append(solution.stats.n_rejected)
    assert rejected[1] > rejected[0] + 2
    assert nodes[1] == pytest.approx(nodes[0], rel=0.1)


def _nodes(root):
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [after for after, _ in node.next_functions]
    return len(seen)


def test_a_parameter_changed_before_backward_is_noticed():
    field = FIELDS["concatsquash"](2, 8, 1)
    y = solve(field, torch.ones(4, 2), torch.tensor([0.0, 1.0]), Solver(engine="compiled"), "checkpoint").y
    with torch.no_grad():
        field.layers[0].linear.weight.add_(1)
    with pytest.raises(RuntimeError, match="is not what it was in the forward pass"):
        y.sum().backward()
