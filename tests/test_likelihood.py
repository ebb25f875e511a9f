"""Maximum likelihood on known densities: grids, gaps, resumable trainings, films."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from repro.data import DENSITIES
from repro.flows import CNF, Stack
from repro.flows.planar import PlanarFlow
from repro.likelihood import (
    Recipe,
    costs,
    density_image,
    evaluate_log_prob,
    film,
    grid,
    judged,
    likelihood_rows,
    mass_rows,
    maximum_likelihood,
    there_and_back_rows,
    true_image,
)
from repro.nets.fields import FIELDS
from repro.ode import Solver

GAUSSIANS = DENSITIES["8gaussians"]


class Known(nn.Module):
    """A model that is the data's own density."""

    def __init__(self, density):
        super().__init__()
        self.density, self.weight = density, nn.Parameter(torch.zeros(1))

    def log_prob(self, x):
        return self.density.log_density(x.double())


def values(rows):
    return {row.metric: row.value for row in rows}


@pytest.fixture
def flow(make_field):
    return CNF(make_field(2).float(), 2, 0.5, "closed_form", Solver(rtol=1e-4, atol=1e-4), "checkpoint")


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_grid_is_the_midpoint_rule(dim):
    points, cell = grid(2.0, 10, dim)
    assert points.shape == (10**dim, dim)
    assert points[:, 0].unique().numel() == 10
    assert math.isclose(len(points) * cell, 4.0**dim)
    assert (points[1] - points[0])[0] > 0  # the first coordinate is the fastest
    assert (points.square().sum(1) * cell).sum() == pytest.approx(dim * 4.0**dim * 4 / 3, rel=0.02)


def test_the_ways_there_and_back_are_counted_alike(flow):
    """Same points, both without density: each count is that of the way alone."""
    x = GAUSSIANS.sample(50, torch.Generator().manual_seed(0))
    found = values(there_and_back_rows(flow, x))
    assert found["reversibility_error"] == flow.reversibility_error(x)
    z = flow.trajectory(x, [0.0, flow.t1])[-1]
    assert found["nfe_there"] == flow.stats.nfe_forward
    flow.inverse(z)
    assert found["nfe_back"] == flow.stats.nfe_forward


@pytest.mark.parametrize("name", DENSITIES)
def test_the_data_themselves_have_no_gap_and_reach_the_floor(name):
    found = values(likelihood_rows(Known(DENSITIES[name]), DENSITIES[name], 2_000))
    assert found["test_gap"] == found["test_gap_error"] == 0
    assert abs(found["test_nll"] - found["nll_floor"]) < 4 * found["test_nll_error"] + 1e-3


def test_mass_counts_what_lies_where_there_are_no_data(flow):
    own = values(mass_rows(Known(GAUSSIANS), GAUSSIANS, 100))
    assert own["integral"] == pytest.approx(1, abs=2e-3)
    assert own["empty_mass"] == pytest.approx(own["empty_mass_data"], rel=1e-4)
    assert 1e-4 < own["empty_mass_data"] < 1e-3, "a blob alone has a thousandth; its neighbours fill half of that space"
    found = values(mass_rows(flow, GAUSSIANS, 100))
    assert found["empty_mass"] > 0.3
    assert found["empty_mass_data"] == own["empty_mass_data"]


class Shifted(Known):
    """The data's own density, moved along the first coordinate."""

    def __init__(self, density, by):
        super().__init__(density)
        self.by = by

    def log_prob(self, x):
        return super().log_prob(x - torch.tensor([self.by, 0.0]))


@pytest.mark.parametrize(("by", "integral", "empty"), [(2.0, 1.0, 1.0), (4.0, 1.0, 0.5), (8.0, 0.5, 0.5)])
def test_mass_beside_the_window_is_seen(by, integral, empty):
    """A checkerboard of four columns moved by one, two or four: it fits the data's squares at every second one."""
    board = DENSITIES["checkerboard"]
    found = values(mass_rows(Shifted(board, by), board, 40))
    assert found["integral"] == pytest.approx(integral, abs=1e-6)
    assert found["empty_mass"] == pytest.approx(empty, abs=1e-6)
    assert found["empty_mass_data"] == 0


def test_a_flow_that_overflows_far_out_has_no_mass_there():
    class Overflowing(Known):
        def log_prob(self, x):
            return torch.where(x[:, 0] > 5, torch.nan, super().log_prob(x))

    assert values(mass_rows(Overflowing(GAUSSIANS), GAUSSIANS, 60))["integral"] == pytest.approx(1, abs=1e-3)


def test_a_gap_is_a_divergence_and_the_same_points_serve_every_model(flow):
    first, second = (values(likelihood_rows(flow, GAUSSIANS, 500)) for _ in range(2))
    assert first == second
    assert first["test_gap"] > 3 * first["test_gap_error"] > 0


def training(flow, seed=0):
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    recipe = Recipe(iterations=30, batch=64, validation_every=10, validation_points=100)
    return maximum_likelihood(flow, flow, GAUSSIANS.sample, optimizer, recipe, seed)


@pytest.mark.parametrize("kind", ["cnf", "nf"])
def test_updates_learn_and_follow_the_seed(make_field, kind):
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        flow = (
            CNF(make_field(2).float(), 2, 0.5, "closed_form", Solver(rtol=1e-3, atol=1e-3), "checkpoint")
            if kind == "cnf"
            else PlanarFlow(2, 4, direction="to_base")
        )
        run = training(flow, seed)
        before = run.evaluate()[0].value
        losses.append([run.update(step)["train_nll"] for step in range(30)])
        assert run.evaluate()[0].value < before - 0.1
    assert losses[0] == losses[1] != losses[2]


def test_costs_are_those_of_continuous_flows(flow):
    flow.log_prob(torch.zeros(3, 2)).sum().backward()
    assert set(costs(flow)) == {"nfe_forward", "nfe_backward"}
    assert costs(PlanarFlow(2, 2, direction="to_base")) == {}
    assert set(costs(Stack([CNF(flow.field, 2, gradient="backprop")]))) == {"nfe_forward"}


def test_many_points_are_evaluated_in_float64(flow, monkeypatch):
    monkeypatch.setattr("repro.likelihood.CHUNK", 7)
    x = torch.randn(20, 2)
    found = evaluate_log_prob(flow, x)
    assert found.dtype == torch.float64
    assert not found.requires_grad
    torch.testing.assert_close(found.float(), flow.log_prob(x), atol=1e-3, rtol=1e-3)


def test_pictures_have_the_second_coordinate_upwards():
    image = true_image(DENSITIES["moons"], 40)
    x = DENSITIES["moons"].sample(4000, torch.Generator().manual_seed(0)).numpy()
    window = DENSITIES["moons"].window
    counts, _, _ = np.histogram2d(x[:, 1], x[:, 0], bins=40, range=[[-window, window]] * 2, density=True)
    assert np.corrcoef(image.ravel(), counts.ravel())[0, 1] > 0.9
    assert density_image(Known(GAUSSIANS), GAUSSIANS.window, 20).shape == (20, 20)


def test_a_film_runs_from_noise_to_data(flow):
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    images, paths = film(flow, 4.0, 30, [0.0, 0.5, 1.0], points)
    assert images.shape == (3, 30, 30)
    assert paths.shape == (3, 50, 2)
    np.testing.assert_array_equal(paths[0], points.numpy())
    noise = torch.distributions.Normal(0.0, 1.0).log_prob(grid(4.0, 30)[0]).sum(1).exp().view(30, 30)
    np.testing.assert_allclose(images[0], noise.numpy(), atol=1e-6)
    np.testing.assert_allclose(images[-1], density_image(flow, 4.0, 30), atol=1e-3)
    np.testing.assert_allclose(paths[-1], flow.inverse(points).detach().numpy(), atol=1e-3)
    later, rest = film(flow, 4.0, 30, [0.5, 1.0], points)
    np.testing.assert_allclose(later, images[1:], atol=1e-3)
    np.testing.assert_allclose(rest, paths[1:], atol=1e-3)


def test_every_flow_is_judged_by_the_reference_engine():
    field = FIELDS["concatsquash"](2, 8, 1)
    base = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(2), torch.ones(2)), 1)
    solver = Solver("bosh3", rtol=1e-3, atol=1e-4, engine="compiled")
    flow = CNF(field, 2, 0.4, "hutchinson", solver, "checkpoint", base)
    found = judged(flow, "exact")
    assert found.solver == replace(solver, engine="torchdiffeq")
    assert (found.field, found.t1, found.divergence, found.base) == (field, 0.4, "exact", base)
    assert judged(flow).divergence == "hutchinson"
    assert judged(CNF(field, 2, 0.4, "hutchpp", n_probes=4)).n_probes == 4
    discrete = PlanarFlow(2, 2, direction="to_base")
    assert judged(discrete) is discrete
