"""Our own Runge-Kutta methods, over their register: order conditions, steps by hand, gradients."""

from dataclasses import replace
from itertools import pairwise
from math import factorial

import numpy as np
import pytest
import torch

from repro.ode import SOLVERS, UnsupportedCombination, compiled, solve
from repro.ode.meter import Meter
from repro.ode.problem import InitialValueProblem
from repro.ode.runge_kutta import RUNGE_KUTTA, RungeKutta
from repro.ode.tableau import FIXED_TABLEAUS, Tableau

every_method = pytest.mark.parametrize("name", RUNGE_KUTTA)
every_adaptive_method = pytest.mark.parametrize("name", [n for n, method in RUNGE_KUTTA.items() if method.is_adaptive])


def matrix(tableau):
    stages = len(tableau.alpha)
    return np.array([[*row, *[0.0] * (stages - len(row))] for row in tableau.beta]).reshape(stages, stages)


def trees(order):
    """All rooted trees of an order, each the sorted tuple of its root's children."""

    def forests(total, largest):
        if total == 0:
            yield ()
        for size in range(min(total, largest), 0, -1):
            for tree in trees(size):
                for rest in forests(total - size, size):
                    yield (tree, *rest)

    return sorted({tuple(sorted(forest)) for forest in forests(order - 1, order - 1)})


def size(tree):
    return 1 + sum(map(size, tree))


def density(tree):
    return size(tree) * np.prod([density(child) for child in tree])


def stage_values(tree, a):
    """Elementary weights of a tree at every stage."""
    return np.prod([a @ stage_values(child, a) for child in tree], axis=0) * np.ones(len(a))


def defects(weights, tableau, order, at=1.0):
    """How far weights are from the solution at a share of the step: Butcher, tree by tree up to an order."""
    a = matrix(tableau)
    return [
        abs(np.array(weights) @ stage_values(tree, a) - at ** size(tree) / density(tree))
        for order in range(1, order + 1)
        for tree in trees(order)
    ]


def test_there_are_as_many_trees_as_the_books_say():
    assert [len(trees(order)) for order in range(1, 7)] == [1, 1, 2, 4, 9, 20]
    chain = ((((),),),)
    assert density(chain) == factorial(4)


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("midpoint", 2), ("heun3", 3), ("rk4", 4)])
def test_the_conditions_tell_orders_of_known_methods(name, order):
    tableau = FIXED_TABLEAUS[name]
    assert max(defects(tableau.weights, tableau, order)) < 1e-14
    assert max(defects(tableau.weights, tableau, order + 1)) > 1e-3


@every_method
def test_a_method_has_its_order_and_no_higher(name):
    method = RUNGE_KUTTA[name]
    a = matrix(method.tableau)
    np.testing.assert_allclose(a.sum(1), method.tableau.alpha, atol=1e-14)
    assert max(defects(method.tableau.weights, method.tableau, method.order)) < 1e-13
    assert max(defects(method.tableau.weights, method.tableau, method.order + 1)) > 1e-6


@every_adaptive_method
def test_dense_output_and_embedded_method_are_one_order_lower(name):
    method, tableau = RUNGE_KUTTA[name], RUNGE_KUTTA[name].tableau
    assert max(defects(tableau.mid, tableau, min(method.order - 1, 4), at=0.5)) < 1e-13
    embedded = np.subtract(tableau.weights, tableau.error)
    assert max(defects(embedded, tableau, method.order - 1)) < 1e-13
    assert max(defects(embedded, tableau, method.order)) > 1e-6


@every_method
def test_steps_are_those_of_the_formula(name):
    method = RUNGE_KUTTA[name]
    y0, t = torch.tensor([0.3, -1.2], dtype=torch.float64), torch.tensor([0.2, 1.1], dtype=torch.float64)

    def field(t, y):
        return torch.stack([y[1] + t, -torch.sin(y[0])])

    steps = []
    solver = replace(SOLVERS[name], rtol=1e-4, atol=1e-4)
    problem = InitialValueProblem(field, y0, t, None, (), field)
    found = compiled.integrate(problem, solver, meter=Meter(None), record=lambda *step: steps.append(step))
    assert len(steps) > 1
    y, a = y0, matrix(method.tableau)
    for time, start, dt in steps:
        torch.testing.assert_close(start, y, rtol=1e-12, atol=1e-12)
        k = []
        for share, row in zip(method.tableau.alpha, a, strict=True):
            k.append(field(time + share * dt, y + dt * sum(c * slope for c, slope in zip(row, k, strict=False))))
        y = y + dt * sum(weight * slope for weight, slope in zip(method.tableau.weights, k, strict=True))
    if not method.is_adaptive:
        torch.testing.assert_close(found[-1], y, rtol=1e-12, atol=1e-12)
    assert all(float(a[0] + a[2]) == pytest.approx(float(b[0]), abs=1e-12) for a, b in pairwise(steps))


@every_method
def test_checkpoint_and_backprop_give_the_same_gradient_but_none_of_times_by_backprop(name):
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)).double()
    y0, t = torch.randn(5, 2, dtype=torch.float64), torch.tensor([0.0, 0.4, 1.0], dtype=torch.float64)
    solver = SOLVERS[name] if not RUNGE_KUTTA[name].is_adaptive else replace(SOLVERS[name], first_step=0.05)

    def field(t, y):
        return net(y)

    found = {}
    for gradient in ("backprop", "checkpoint"):
        start = y0.clone().requires_grad_()
        value = solve(field, start, t, solver, gradient, net.parameters()).y.square().sum()
        found[gradient] = torch.autograd.grad(value, [start, *net.parameters()])
    torch.testing.assert_close(found["backprop"], found["checkpoint"], rtol=1e-10, atol=1e-12)
    with pytest.raises(UnsupportedCombination, match=f"no '{name}'; use checkpoint or adjoint"):
        solve(field, y0, t.requires_grad_(), solver, "backprop", net.parameters())


def test_a_tableau_that_the_engine_could_not_use_is_refused():
    fixed, adaptive = FIXED_TABLEAUS["rk4"], RUNGE_KUTTA["tsit5"].tableau
    with pytest.raises(ValueError, match="half a step"):
        RungeKutta(5, replace(adaptive, mid=None))
    with pytest.raises(ValueError, match="first stage of the next"):
        RungeKutta(4, replace(fixed, mid=(0.25,) * 4, error=(0.0,) * 4))
    assert not RungeKutta(1, Tableau((0.0,), ((),), (1.0,))).is_adaptive
