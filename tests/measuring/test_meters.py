"""Counts, kept bytes and errors of single steps; times in turn; failures as statuses."""

import pytest
import torch
from torch import nn

from repro.flows import CNF
from repro.measuring.meters import Cell, counted, interleave, relative_error, start
from repro.measuring.step import Step, flow_step, mean_energy, solve_step
from repro.nets.fields import ConcatSquashField
from repro.ode import GRADIENTS, Solver

CPU = torch.device("cpu")
T = torch.tensor([0.0, 1.0], dtype=torch.float64)


class Counting(nn.Module):
    """Counts its own calls, independently of the suite's meter."""

    def __init__(self, dim=3):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.calls = nn.Linear(dim, dim, dtype=torch.float64), 0

    def forward(self, t, y):
        self.calls += 1
        return torch.tanh(self.linear(y)) * torch.cos(t)


MIDDLING = Solver(rtol=1e-6, atol=1e-6)


def step_of(gradient, solver=MIDDLING):
    field = Counting()
    y0 = torch.ones(2, 3, dtype=torch.float64)
    return field, solve_step(field, y0, T, solver, gradient)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_evaluations_are_those_that_the_field_saw(gradient):
    field, step = step_of(gradient)
    before = field.calls  # one, by which what the field learns is collected
    found = counted(step)
    assert field.calls - before == found["nfe_forward"] + (found["nfe_backward"] or 0)
    assert (found["nfe_backward"] is None) == (gradient == "backprop")  # n/a, never 0
    assert found["nfe_forward"] == 2 + 6 * (found["n_accepted"] + found["n_rejected"])
    if gradient.startswith("adjoint"):
        assert found["nfe_backward"] == 2 + 6 * (found["n_accepted_backward"] + found["n_rejected_backward"])


def test_the_error_of_a_gradient_that_is_zero_is_a_number():
    zero, one = torch.zeros(3), torch.ones(3)
    assert (relative_error(zero, zero), relative_error(one, zero)) == (0.0, float("inf"))
    assert relative_error(zero, one) == 1.0


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_measured_step_gives_the_gradient_of_the_loss(gradient):
    field, step = step_of(gradient, solver=Solver(rtol=1e-10, atol=1e-10))
    loss = step.take()
    start, *parameters = step.leaves
    assert parameters == list(field.parameters())
    shift = torch.zeros_like(start)
    shift[0, 1] = 1e-5
    with torch.no_grad():
        start += shift
        above = step.loss()
        start -= 2 * shift
        below = step.loss()
    assert float((above - below) / 2e-5) == pytest.approx(float(step.gradient()[1]), rel=1e-6)
    assert float(loss) == pytest.approx(float((above + below) / 2), rel=1e-8)


def test_taking_a_step_twice_changes_nothing():
    _, step = step_of("adjoint")
    first = step.take(), step.gradient()
    torch.testing.assert_close((step.take(), step.gradient()), first, rtol=0, atol=0)


def test_a_warm_up_leaves_the_solver_as_it_was():
    torch.manual_seed(0)
    flow = CNF(ConcatSquashField(2, 8, 1), 2, divergence="hutchinson")
    before = flow.solver, flow.gradient
    step = flow_step(flow, torch.randn(4, 2), torch.randn(1, 4, 2))
    assert step.warm is not None
    step.warm()
    assert (flow.solver, flow.gradient) == before
    assert counted(step)["nfe_forward"] > 2


def test_kept_bytes_do_not_count_the_leaves():
    weight = torch.ones(1000, requires_grad=True)
    assert counted(Step(lambda: weight.square().sum(), (weight,)))["saved_bytes"] == 0
    assert counted(Step(lambda: weight.exp().sum(), (weight,)))["saved_bytes"] == 4000


def test_the_default_loss_is_half_the_mean_square_of_the_end():
    y = torch.stack([torch.ones(2, 3), 2 * torch.ones(2, 3)])
    assert mean_energy(y) == 2


@pytest.mark.parametrize(
    ("loss", "status"),
    [
        (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda: torch.tensor(float("nan"), requires_grad=True) * 1, "not finite: loss or gradient"),
        (lambda: torch.empty(2**60), "out of memory"),
    ],
)
def test_what_fails_becomes_a_status(loss, status):
    assert start(lambda: Step(loss, (torch.ones(1, requires_grad=True),)), CPU).status == status


def test_a_solve_that_fails_says_so():
    _, step = step_of("adjoint", solver=Solver(rtol=1e-9, atol=1e-9, max_nfe=10))
    assert start(lambda: step, CPU).status.startswith("failed: reached max_nfe = 10")
    _, step = step_of("checkpoint", solver=Solver("adams", engine="scipy"))
    assert start(lambda: step, CPU).status.startswith("not supported: ")


def test_cells_take_turns():
    order = []
    steps = {key: Step(lambda key=key: order.append(key) or torch.ones((), requires_grad=True) * 1, ()) for key in "ab"}
    cells = {key: Cell(step=step) for key, step in steps.items()} | {"failed": Cell("no")}
    interleave(cells, 3, CPU)
    assert "".join(order) == "ababab"
    assert [len(cell.seconds) for cell in cells.values()] == [3, 3, 0]
    assert cells["a"].iqr >= 0


def test_relative_error():
    assert relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)
