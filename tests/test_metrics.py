"""Meters: bytes kept by autograd are exact, peaks are right in a fresh process, errors and likelihoods by hand."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from repro.metrics import are_correct, error_percent, nll_nats, saved_bytes, standard_error
from repro.ode import Solver, solve


def test_saved_bytes_of_known_operations():
    x = torch.ones(10, 7, requires_grad=True)
    with saved_bytes() as meter:
        kept = x.exp()  # keeps its result
    assert meter.total == 10 * 7 * 4
    with saved_bytes() as meter:
        kept = x.sum()  # keeps nothing
    assert meter.total == 0
    with saved_bytes() as meter:
        kept = x * torch.ones(10, 7, dtype=torch.float64)  # keeps both factors (x as float64) only as far as needed
    assert meter.total == 10 * 7 * 8, "the other factor alone: it is the only one whose partner needs a gradient"
    assert kept.requires_grad


def test_saved_bytes_counts_a_storage_once():
    x = torch.ones(100, requires_grad=True)
    with saved_bytes() as meter:
        y = x.exp()
        kept = y * y, y[:50] * y[50:]  # keep y, which exp keeps already, twice, and two views of it
    assert meter.total == 100 * 4
    assert len(kept) == 2


def test_saved_bytes_are_those_that_are_left():
    """As after a rejected step, whose graph is gone; its memory is given out again and must not pass for the same."""
    x = torch.ones(1000, requires_grad=True)
    with saved_bytes() as meter:
        for _ in range(5):
            x.exp()
        kept = [x.exp() for _ in range(3)]
    assert meter.total == len(kept) * 1000 * 4


def test_saved_bytes_of_backprop_do_not_count_rejected_steps():
    field, y0, t = nn.Tanh(), torch.ones(500, 1, requires_grad=True), torch.tensor([0.0, 3.0])
    kept = []
    for first_step in (0.05, 3.0):  # the second is rejected
        solver = Solver(rtol=1e-3, atol=1e-3, engine="compiled", first_step=first_step)
        with saved_bytes() as meter:
            solution = solve(lambda t, y: 30 * (field(3 * y) - y), y0, t, solver, "backprop")
        kept.append(meter.total / solution.stats.n_accepted)
        rejected = solution.stats.n_rejected
    assert rejected > 0
    assert kept[1] == pytest.approx(kept[0], rel=0.1)


def test_saved_bytes_leaves_out_what_lives_anyway():
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 3), torch.randn(2, 5, requires_grad=True)
    with saved_bytes() as meter:
        kept = layer(x)
    assert meter.total == (5 * 3 + 2 * 5) * 4
    with saved_bytes(exclude=layer.parameters()) as meter:
        kept = layer(x)
    assert meter.total == 2 * 5 * 4
    assert kept.requires_grad


def test_saved_bytes_does_not_change_the_gradient():
    x = torch.linspace(0, 1, 5, requires_grad=True)
    with saved_bytes():
        x.sin().exp().sum().backward()
    expected = (x.cos() * x.sin().exp()).detach()
    torch.testing.assert_close(x.grad, expected)


def test_saved_bytes_does_not_change_a_gradients_gradient():
    x = torch.linspace(0, 1, 5, dtype=torch.float64, requires_grad=True)
    with saved_bytes() as meter:
        (slope,) = torch.autograd.grad(x.exp().tanh().sum(), x, create_graph=True)
        loss = slope.square().sum()
    loss.backward()
    y = x.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(y.exp().tanh().sum(), y, create_graph=True)
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert meter.total > 0


PEAK = """
import json, sys
import torch
from repro.metrics import PeakMemory
torch.set_num_threads(1)
torch.ones(1 << 20).sum()
memory = PeakMemory(torch.device("cpu"))
idle = memory.read()
block = torch.ones(int(sys.argv[1]), dtype=torch.uint8)
block = None
print(json.dumps([idle, memory.read(), memory.unit]))
"""


def test_peak_memory_finds_a_known_allocation_even_below_a_big_parent():
    size = 80 * 2**20
    ours = torch.ones(3 * size, dtype=torch.uint8)  # Linux lets a child inherit its parent's ru_maxrss
    process = subprocess.run([sys.executable, "-c", PEAK, str(size)], capture_output=True, text=True, check=True)
    idle, peak, unit = json.loads(process.stdout)
    assert ours[-1] == 1
    assert idle < 0.05 * size
    assert peak == pytest.approx(size, rel=0.05)
    assert unit == "bytes (ru_maxrss over baseline)"


def test_errors_by_hand():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [0.0, 0.0, -1.0], [1.0, 2.0, 4.0]])
    assert are_correct(logits, torch.tensor([0, 1, 2, 0])).tolist() == [True, True, False, False]
    assert error_percent(2, 4) == 50.0
    assert error_percent(42, 10_000) == pytest.approx(0.42)
    with pytest.raises(ValueError, match="total must be at least 1, got 0"):
        error_percent(0, 0)


def test_a_means_standard_error_by_hand():
    assert standard_error([1.0, 2.0, 4.0]) == pytest.approx((7 / 3) ** 0.5 / 3**0.5)
    assert standard_error(torch.tensor([1.0, 2.0, 4.0])) == pytest.approx(standard_error([1.0, 2.0, 4.0]))
    with pytest.raises(ValueError, match="values must be at least 2"):
        standard_error([1.0])


def test_nll_is_in_nats_and_a_mean():
    uniform = torch.zeros(7, 10, dtype=torch.float64)
    assert nll_nats(uniform, torch.arange(7)).item() == pytest.approx(2.302585092994046)
    logits = torch.tensor([[0.3, -1.2], [2.0, 0.5]], dtype=torch.float64)
    by_hand = -(logits.exp() / logits.exp().sum(1, keepdim=True)).log()[[0, 1], [1, 0]].mean()
    assert nll_nats(logits, torch.tensor([1, 0])).item() == pytest.approx(by_hand.item())
