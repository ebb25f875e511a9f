"""Energies: their formulas, their integrals, the soft wall, and gradients that a flow can train on."""

import math

import pytest
import torch

from repro.data import ENERGIES
from repro.data.energies import WALL_START, WALL_WIDTH

every_energy = pytest.mark.parametrize("energy", ENERGIES.values(), ids=ENERGIES)

ROOT = math.sqrt(2 * math.pi)


def published(name, x, y):
    """U(z) as papers.md A.6 writes it, by scalars."""
    w1 = math.sin(2 * math.pi * x / 4)
    w2 = 3 * math.exp(-0.5 * ((x - 1) / 0.6) ** 2)
    w3 = 3 / (1 + math.exp(-(x - 1) / 0.3))

    def bell(distance, width):
        return math.exp(-0.5 * (distance / width) ** 2)

    return {
        "u1": lambda: 0.5 * ((math.hypot(x, y) - 2) / 0.4) ** 2 - math.log(bell(x - 2, 0.6) + bell(x + 2, 0.6)),
        "u2": lambda: 0.5 * ((y - w1) / 0.4) ** 2,
        "u3": lambda: -math.log(bell(y - w1, 0.35) + bell(y - w1 + w2, 0.35)),
        "u4": lambda: -math.log(bell(y - w1, 0.4) + bell(y - w1 + w3, 0.35)),
    }[name]()


def log_integral(energy, half_width, n=500):
    axis = ((torch.arange(n, dtype=torch.float64) + 0.5) * 2 / n - 1) * half_width
    values = energy.log_unnormalised(torch.cartesian_prod(axis, axis))
    return values.logsumexp(0).item() + 2 * math.log(2 * half_width / n)


def points(n, half_width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1) * half_width


@every_energy
def test_it_is_registered_under_its_name_and_says_in_a_line_where_it_comes_from(energy):
    assert ENERGIES[energy.name] is energy
    assert energy.source
    assert "\n" not in energy.source
    assert ("wall" in energy.source) == (energy.name != "u1")


@every_energy
def test_inside_the_wall_it_is_the_published_energy(energy):
    z = points(200, WALL_START)
    expected = torch.tensor([-published(energy.name, *row) for row in z.tolist()], dtype=torch.float64)
    torch.testing.assert_close(energy.log_unnormalised(z), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["u2", "u3", "u4"])
def test_beyond_it_the_wall_adds_half_the_square_of_the_distance_in_widths(name):
    for x, y, widths in ((4.2, 3.0, 1), (-4.6, -1.0, 9), (1.0, 4.4, 4), (4.2, -4.4, 5)):
        wall = published(name, x, y) + 0.5 * widths
        value = ENERGIES[name].log_unnormalised(torch.tensor([[x, y]], dtype=torch.float64))
        assert -value.item() == pytest.approx(wall, rel=1e-9)
    assert WALL_WIDTH == 0.2


# papers.md A.6, by other code, to the 7e-4 by which its grid, edges included, is longer than the box
@pytest.mark.parametrize(("name", "expected"), [("u2", 2.08259), ("u3", 2.64221), ("u4", 2.68524)])
def test_integral_over_the_box_without_wall_is_the_known_one(name, expected):
    assert log_integral(ENERGIES[name], WALL_START) == pytest.approx(expected, abs=7e-4)
    width = {"u2": 0.4, "u3": 0.7}.get(name)
    if width:  # a wave of constant profile
        assert log_integral(ENERGIES[name], WALL_START) == pytest.approx(math.log(8 * width * ROOT), abs=1e-5)


def test_the_first_energys_integral_is_the_known_one():
    assert ENERGIES["u1"].log_normaliser() == pytest.approx(1.87750, abs=1e-5)


def test_the_wall_lengthens_the_box_by_its_own_integral():
    # the wave is (8 + WALL_WIDTH √2π) long, away from the wall in z2
    length = 8 + WALL_WIDTH * ROOT
    assert ENERGIES["u2"].log_normaliser() == pytest.approx(math.log(length * 0.4 * ROOT), abs=1e-5)
    assert ENERGIES["u3"].log_normaliser() == pytest.approx(math.log(length * 0.7 * ROOT), abs=1e-4)
    # the fourth touches the wall in z2 as well: more than the box, less than a wave of full profile
    assert (
        log_integral(ENERGIES["u4"], WALL_START) + 0.05
        < ENERGIES["u4"].log_normaliser()
        < math.log(length * 0.75 * ROOT)
    )


@every_energy
def test_the_window_holds_the_integral(energy):
    assert log_integral(energy, 1.5 * energy.window, n=600) == pytest.approx(energy.log_normaliser(), abs=1e-5)


@every_energy
def test_gradients_are_right(energy):
    assert torch.autograd.gradcheck(energy.log_unnormalised, points(20, 6.0, seed=1).requires_grad_())


@every_energy
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_stay_finite_far_away_and_at_the_origin(energy, dtype):
    z = torch.cat([torch.zeros(1, 2), points(200, 100.0), points(50, 1e6)]).to(dtype).requires_grad_()
    value = energy.log_unnormalised(z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert value.dtype == dtype
    assert value.shape == (251,)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()


@every_energy
def test_wrong_arguments_are_named(energy):
    for shape in ((5, 3), (2,), (1, 1, 2)):
        with pytest.raises(ValueError, match="z must have shape"):
            energy.log_unnormalised(torch.zeros(shape))
    with pytest.raises(TypeError, match="z must be a floating"):
        energy.log_unnormalised(torch.zeros(5, 2, dtype=torch.int64))
