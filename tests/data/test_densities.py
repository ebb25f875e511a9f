"""Toy densities: samplers and densities agree with each other, with the published floors and with brute force."""

import functools
import math

import pytest
import torch
from scipy import stats

from repro.data import DENSITIES, Density
from repro.data.densities import midpoints
from repro.data.toy2d import Blobs, Rings

every_density = pytest.mark.parametrize("density", DENSITIES.values(), ids=DENSITIES)

# papers.md C.9 (derived there by other code), circles_node: A.7.2; nobody states one for moons_node
FLOORS = {
    "8gaussians": 2.832,
    "checkerboard": math.log(32),
    "2spirals": 2.645,
    "circles": 3.268,
    "rings": 2.623,
    "moons": 2.394,
    "swissroll": 2.670,
    "pinwheel": 2.320,
    "mixture_1d": 1.929,
    "circles_node": 0.788,
}
CELLS, FINE = 20, 160  # per axis; the second differs from the implementation's own grid


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@functools.cache
def drawn(name):
    """20,000 draws and their log-densities."""
    x = DENSITIES[name].sample(20_000, seeded())
    return x, DENSITIES[name].log_density(x)


@functools.cache
def masses(name):
    """Mass of each of a fine grid's cells over the window, by the midpoint rule."""
    density = DENSITIES[name]
    axis = ((torch.arange(FINE, dtype=torch.float64) + 0.5) * 2 / FINE - 1) * density.window
    points = torch.cartesian_prod(*[axis] * density.dim).view(-1, density.dim)
    return density.log_density(points).exp().view([FINE] * density.dim) * (2 * density.window / FINE) ** density.dim


@every_density
def test_it_is_registered_under_its_name_and_says_in_a_line_where_it_comes_from(density):
    assert DENSITIES[density.name] is density
    assert density.source
    assert "\n" not in density.source


def test_the_registers_names():
    assert set(DENSITIES) == {*FLOORS, "moons_node"}
    assert [name for name, density in DENSITIES.items() if density.released] == ["rings"]


@every_density
@pytest.mark.parametrize("n", [1, 3, 50])
def test_the_generator_alone_decides_the_sample(density, n):
    for draw in filter(None, (density.sample, density.released)):
        x = draw(n, seeded())
        assert x.dtype == torch.float32
        assert x.shape == (n, density.dim)
        assert torch.isfinite(x).all()
        torch.manual_seed(n)
        assert torch.equal(draw(n, seeded()), x)
        assert not torch.equal(draw(n, seeded(1)), x)


@every_density
def test_the_window_holds_the_mass(density):
    assert masses(density.name).sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", FLOORS)
def test_entropy_is_the_floor_that_others_computed(name):
    assert DENSITIES[name].entropy() == pytest.approx(FLOORS[name], abs=0.003)


@every_density
def test_entropy_is_the_mean_of_the_draws_negative_log_density(density):
    _, log_p = drawn(density.name)
    assert torch.isfinite(log_p).all()
    error = 4 * log_p.std().item() / math.sqrt(len(log_p))
    assert -log_p.mean().item() == pytest.approx(density.entropy(), abs=error + 1e-9)


@every_density
def test_draws_fill_the_plane_as_the_density_says(density):
    x, _ = drawn(density.name)
    width = FINE // CELLS
    expected = masses(density.name)
    for axis in range(density.dim):
        expected = expected.unflatten(axis, (CELLS, width)).sum(axis + 1)
    expected = len(x) * torch.cat([expected.flatten(), (1 - expected.sum()).clamp(min=0).view(1)])
    cell = ((x.double() / density.window + 1) / 2 * CELLS).floor().long().clamp(-1, CELLS)
    inside = ((cell >= 0) & (cell < CELLS)).all(1)
    number = (cell * torch.tensor([CELLS, 1])[-density.dim :]).sum(1).where(inside, torch.tensor(CELLS**density.dim))
    counts = torch.bincount(number, minlength=len(expected)).double()
    rare = expected < 5
    counts = torch.cat([counts[~rare], counts[rare].sum().view(1)])
    expected = torch.cat([expected[~rare], expected[rare].sum().view(1)])
    kept = expected > 1e-6  # the checkerboard has no rare cells
    assert counts[~kept].sum() == 0
    statistic = ((counts - expected)[kept].square() / expected[kept]).sum().item()
    assert stats.chi2.sf(statistic, int(kept.sum()) - 1) > 1e-3


@every_density
def test_far_away_nothing_is_nan(density):
    far = torch.tensor([[1.0, -1.0], [1.0, 0.0], [-2.0, 1.0]], dtype=torch.float64)[:, : density.dim]
    for distance in (20, 1e3, 1e6, 1e100):
        log_p = density.log_density(distance * far)
        assert (log_p < -50).all()  # false for NaN


@every_density
def test_rows_are_independent_and_any_float_does(density):
    x = density.sample(1100, seeded(2))
    log_p = density.log_density(x)
    assert log_p.dtype == torch.float64
    assert log_p.shape == (1100,)
    assert torch.equal(density.log_density(x.double()), log_p)
    torch.testing.assert_close(density.log_density(x[500:530]), log_p[500:530], rtol=1e-12, atol=1e-12)
    assert density.log_density(x[:0]).shape == (0,)


@every_density
def test_wrong_arguments_are_named(density):
    for shape in ((5, density.dim + 1), (density.dim,), (1, 1, density.dim)):
        with pytest.raises(ValueError, match="x must have shape"):
            density.log_density(torch.zeros(shape, dtype=torch.float64))
    with pytest.raises(ValueError, match="x must be finite; 1 of"):
        density.log_density(torch.tensor([[math.nan, 0.0], [0.0, 0.0]])[:, : density.dim])
    with pytest.raises(TypeError, match="x must be a floating"):
        density.log_density(torch.zeros(2, density.dim, dtype=torch.int64))
    with pytest.raises(ValueError, match="n must be at least 1"):
        density.sample(0, seeded())


def test_midpoints_are_the_cells_middles_last_axis_fastest():
    points, cell = midpoints(2.0, 2, 2)
    assert points.tolist() == [[-1, -1], [-1, 1], [1, -1], [1, 1]]
    assert cell == 4
    assert midpoints(2.0, 1, 4)[0].tolist() == [[-1.5], [-0.5], [0.5], [1.5]]


def gauss(x, centre, sigma):
    return (-0.5 * ((x - centre) / sigma).square().sum(-1)).exp() / (2 * math.pi * sigma**2)


def by_brute_force(name, x):
    """p(x) of one point as the mean over very many positions on the curves, written from papers.md C.9."""
    s = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    if name.startswith("moons"):
        scale, shift, sigma = (2, (-1, -0.2), 0.2) if name == "moons" else (1, (0, 0), 0.06)
        cos, sin = (math.pi * s).cos(), (math.pi * s).sin()
        curve = torch.cat([torch.stack([cos, sin], 1), torch.stack([1 - cos, 0.5 - sin], 1)])
        return gauss(x, curve * scale + s.new_tensor(shift), sigma).mean()
    if name == "swissroll":
        t = 1.5 * math.pi * (1 + 2 * s)
        return gauss(x, torch.stack([t * t.cos(), t * t.sin()], 1) / 5, 0.2).mean()
    t = 3 * math.pi * s.sqrt()
    low = torch.stack([-t * t.cos(), t * t.sin()], 1) / 3
    normal = torch.special.ndtr
    arms = [(normal((y - low) / 0.1) - normal((y - low - 1 / 6) / 0.1)).prod(1) * 36 for y in (x, -x)]
    return (arms[0] + arms[1]).mean() / 2


@pytest.mark.parametrize("name", ["moons", "moons_node", "swissroll", "2spirals"])
def test_the_quadrature_along_curves_is_that_of_very_many_nodes(name):
    density = DENSITIES[name]
    x = torch.cat(
        [density.sample(12, seeded(3)), 0.5 * density.window * torch.randn(8, 2, generator=seeded(4))]
    ).double()
    expected = torch.stack([by_brute_force(name, row) for row in x]).log()
    seen = expected > -25  # normal cdfs cancel further out: brute force's own limit
    assert seen.sum() > 12
    torch.testing.assert_close(density.log_density(x)[seen], expected[seen], rtol=0, atol=1e-4)


def test_the_pinwheels_density_weighs_test_functions_as_its_features_do():
    # expectations of bumps by a grid over the features: that needs no inverse, x is the features times the rotation
    normal = torch.linspace(-8, 8, 200, dtype=torch.float64)
    weight = (-0.5 * torch.cartesian_prod(normal, normal).square().sum(1)).exp()
    weight /= 5 * weight.sum()
    a, b = torch.cartesian_prod(1 + 0.3 * normal, 0.1 * normal).unbind(1)
    points, density = [], DENSITIES["pinwheel"]
    for arm in range(5):
        angle = 2 * math.pi * arm / 5 + 0.25 * a.exp()
        rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
        points.append(2 * (torch.stack([a, b], 1).unsqueeze(1) @ rotation).squeeze(1))
    grid, cell = midpoints(density.window, 2, FINE)
    p = density.log_density(grid).exp() * cell
    for centre in torch.tensor([[2.0, 0.5], [0.3, -1.9], [-1.5, 1.5], [0.0, 0.0], [3.2, -1.0]], dtype=torch.float64):
        expected = sum((gauss(x, centre, 0.25) * weight).sum() for x in points)
        torch.testing.assert_close((p * gauss(grid, centre, 0.25)).sum(), expected, rtol=0, atol=2e-9)


def test_the_released_rings_are_n_over_4_fixed_angles_each_and_the_innermost_takes_the_rest():
    counts = [25, 25, 25, 27]
    sharp = Rings((3.0, 2.25, 1.5, 0.75), sigma=1e-6).sample_equally_spaced(102, seeded()).double()
    for radius, count in zip((3.0, 2.25, 1.5, 0.75), counts, strict=True):
        ring = sharp[(sharp.norm(dim=1) - radius).abs() < 1e-4]
        assert len(ring) == count
        turns = torch.atan2(ring[:, 1], ring[:, 0]) / (2 * math.pi) * count
        assert (turns - turns.round()).abs().max() < 1e-4
        assert sorted(turns.round().long().remainder(count).tolist()) == list(range(count))
    assert sharp[:25].norm(dim=1).std() > 0.5  # shuffled
    radii = DENSITIES["rings"].released(102, seeded()).norm(dim=1)
    assert torch.bincount((radii / 0.75).round().long()).tolist() == [0, *reversed(counts)]
    assert (radii / 0.75 - (radii / 0.75).round()).std().item() == pytest.approx(0.08 / 0.75, rel=0.25)


def test_a_batch_of_100_released_rings_has_the_entropy_of_100_blobs():
    # papers.md C.9, the trap: 2.237 where continuous angles have 2.623
    centres = Rings((3.0, 2.25, 1.5, 0.75), sigma=0.0).sample_equally_spaced(100, seeded())
    blobs = Blobs(tuple(map(tuple, centres.tolist())), sigma=0.08)
    density = Density(
        name="blobs", dim=2, sample=blobs.sample, log_density=blobs.log_density, window=3.4, source="this test"
    )
    assert density.entropy() == pytest.approx(2.237, abs=0.002)
