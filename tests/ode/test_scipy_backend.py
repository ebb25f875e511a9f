from dataclasses import replace

import pytest
import torch

from repro.ode import PROBLEMS, SOLVERS, solve

VODE = replace(SOLVERS["vode_adams"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("reverse", [False, True])
def test_vode_matches_the_closed_form(problem, reverse):
    t = problem.times(5)
    t = t.flip(0) if reverse else t
    y0 = problem.solution(t)[0]
    solution = solve(problem.field, y0, t, VODE)
    torch.testing.assert_close(solution.y, problem.solution(t), rtol=1e-6, atol=1e-6)
    assert 5 < solution.stats.n_accepted <= solution.stats.nfe_forward
    assert solution.stats.n_rejected is None


def test_steps_of_the_backward_intervals_are_added(net, y0):
    def steps(n_times):
        t = torch.linspace(0, 1, n_times, dtype=torch.float64)
        solution = solve(net, y0, t, VODE)
        solution.y.sum().backward()
        assert solution.stats.n_rejected_backward is None
        return solution.stats.n_accepted_backward

    # Adams starts at order 1 in each interval: a restart costs more steps than it saves.
    assert steps(9) > 2 * steps(2)


def test_the_field_sees_its_own_dtype():
    seen = set()

    def field(t, y):
        seen.add((t.dtype, y.dtype, y.shape))
        return -y

    y0 = torch.ones(2, 3)
    y = solve(field, y0, torch.tensor([0.0, 1.0]), VODE).y
    assert seen == {(torch.float32, torch.float32, (2, 3))}
    assert y.dtype == torch.float32


def test_an_identity_field_does_not_alias_the_state():
    y = solve(lambda t, y: y, torch.ones(1, dtype=torch.float64), torch.tensor([0.0, 1.0]).double(), VODE).y
    assert y[-1].item() == pytest.approx(torch.e, rel=1e-7)


def test_no_norm_can_be_given(net, y0):
    with pytest.raises(ValueError, match="norm must be None"):
        solve(net, y0, torch.tensor([0.0, 1.0]).double(), VODE, norm=torch.linalg.vector_norm)
