"""Pictures of densities and samples: right way up, of a stated scale, with the same bytes twice, and small."""

import re

import numpy as np
import pytest

from repro import panels, pixels, plotting
from repro.animation import Animation, gif_bytes, read_gif
from repro.pixels import LEVELS, colours, count_levels, density_levels, full_scale, point_counts

WINDOW = 4.0


def normal(n, spread=1.0, centre=(0.0, 0.0)):
    """A normal density on n x n pixels' centres of [-4, 4]^2, [row = y, column = x]."""
    x = ((np.arange(n) + 0.5) / n * 2 - 1) * WINDOW
    return np.exp(-((x[None] - centre[0]) ** 2 + (x[:, None] - centre[1]) ** 2) / (2 * spread**2)) / (
        2 * np.pi * spread**2
    )


def sample(n, spread=1.0, centre=(0.0, 0.0), seed=0):
    return np.random.default_rng(seed).standard_normal((n, 2)) * spread + np.array(centre)


def lightness(rgb):
    """L* of CIELAB."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ np.array([0.2126, 0.7152, 0.0722])) - 16


def test_colours_fall_from_white_to_dark_evenly():
    light = lightness(colours().astype(float))
    assert len(np.unique(colours(), axis=0)) == LEVELS
    assert colours()[0].tolist() == [255, 255, 255]
    assert light[-1] < 20
    steps = -np.diff(light)
    assert steps.min() > 0.4 * steps.mean()
    assert steps.max() < 1.7 * steps.mean()


@pytest.mark.parametrize("spread", [0.3, 1.0])
def test_a_tenth_of_the_mass_is_above_full_scale(spread):
    # of a normal density, the mass where it exceeds c times its peak is 1 - c
    assert full_scale(normal(400, spread)) == pytest.approx(0.9 / (2 * np.pi * spread**2), rel=0.01)


def test_one_extreme_pixel_changes_no_other():
    density = normal(200)
    spoilt = density.copy()
    spoilt[5, 5] = density.max() * 100
    difference = np.abs(density_levels(spoilt) - density_levels(density))
    difference[5, 5] = 0
    assert difference.max() <= LEVELS // 12


def test_levels_do_not_depend_on_the_unit():
    assert np.array_equal(density_levels(normal(50)), density_levels(normal(50) * 2.0**-40))


def test_an_empty_or_broken_density_is_white():
    assert density_levels(np.zeros((4, 5))).tolist() == [[0] * 5] * 4
    broken = normal(20)
    broken[3, 4], broken[5, 6] = np.nan, np.inf
    levels = density_levels(broken)
    assert levels[3, 4] == levels[5, 6] == 0
    assert levels.max() == LEVELS - 1


def test_finer_pixels_are_where_the_coarse_ones_are():
    uneven = normal(21, 1.0, (0.3, -1.2)) + 0.5 * normal(21, 0.6, (-2.0, 1.0))
    finer = density_levels(uneven, 3)
    assert finer.shape == (63, 63)
    assert np.abs(finer[1::3, 1::3] - density_levels(uneven)).max() <= 2, "their centres are the coarse pixels'"
    assert np.array_equal(density_levels(uneven[::-1, ::-1], 2), density_levels(uneven, 2)[::-1, ::-1])
    assert np.array_equal(density_levels(uneven.T, 2), density_levels(uneven, 2).T)


def test_finer_pixels_lie_on_a_line_between_the_coarse_ones():
    plane = np.ones((9, 1)) + np.arange(9.0) / 9
    inner = density_levels(plane, 5)[:, 2:-2]
    falling = np.diff(inner.astype(float), axis=1)[inner[:, 1:] < LEVELS - 1]
    assert falling.min() >= 0
    assert falling.max() <= 1.5 * LEVELS / inner.shape[1]


def test_every_point_inside_the_window_is_counted_in_its_pixel():
    points = np.array([[-3.9, -3.9], [3.9, -3.9], [3.9, -3.9], [0.1, 3.9], [4.1, 0.0], [np.nan, 0.0], [np.inf, 0.0]])
    counts = point_counts(points, WINDOW, 8)
    assert counts.sum() == 4
    assert (counts[0, 0], counts[0, 7], counts[7, 4]) == (1, 2, 1)
    many = sample(5000)
    assert point_counts(many, WINDOW, 30).sum() == (np.abs(many) < WINDOW).all(axis=1).sum()


def test_a_lone_point_is_seen_and_more_are_darker():
    levels = count_levels(np.array([0.0, 1.0, 2.0, 4.0]))
    assert levels[0] == 0
    assert LEVELS // 3 < levels[1] < levels[2] < levels[3] == LEVELS - 1


def test_a_lone_point_looks_the_same_in_every_small_sample():
    alone = [count_levels(point_counts(sample(300, spread), WINDOW, 128)) for spread in (0.7, 1.0, 1.4)]
    assert len({int(levels[levels > 0].min()) for levels in alone}) == 1


# --- figures ---------------------------------------------------------------------------------------------------------


def pixels_of(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def dark_place(image, box):
    """Centre of the dark pixels in a box of the picture, as shares from the left and from the bottom."""
    left, bottom, right, top = (int(v) for v in box)
    part = lightness(image[::-1][bottom:top, left:right].astype(float)) < 60
    rows, columns = np.nonzero(part)
    return columns.mean() / part.shape[1], rows.mean() / part.shape[0]


@pytest.mark.parametrize("kind", ["density", "points"])
def test_panels_show_x_to_the_right_and_y_upwards(kind):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure, ((axis,),) = panels.grid_figure(1, 1, ["row"], ["column"], panel_size=2.0)
    canvas = FigureCanvasAgg(figure)
    if kind == "density":
        panels.density_panel(axis, normal(100, 0.4, (2.0, -1.0)), WINDOW)
    else:
        panels.points_panel(axis, sample(4000, 0.3, (2.0, -1.0)), WINDOW)
    image = pixels_of(figure)
    assert canvas is figure.canvas
    across, up = dark_place(image, axis.get_window_extent().extents)
    assert across == pytest.approx((2.0 + WINDOW) / (2 * WINDOW), abs=0.02)
    assert up == pytest.approx((-1.0 + WINDOW) / (2 * WINDOW), abs=0.02)


def twelve(show):
    """The figure of a table's worth of pictures: 2 x 6 panels."""
    figure, axes = panels.grid_figure(2, 6, ["target", "two\nlines"], [f"t = {k / 5:g}" for k in range(6)])
    for index, axis in enumerate(axis for row in axes for axis in row):
        show(axis, index)
    return figure


def show_density(axis, index):
    panels.density_panel(axis, normal(100, 0.5 + 0.1 * index), WINDOW)


def show_points(axis, index):
    panels.points_panel(axis, sample(5000, 0.5 + 0.1 * index, seed=index), WINDOW)


@pytest.mark.parametrize("show", [show_density, show_points])
def test_twelve_panels_are_a_small_svg_with_the_same_bytes_twice(show):
    first, second = (plotting.svg_bytes(twelve(show)) for _ in range(2))
    assert first == second
    assert len(re.findall(rb"<image ", first)) == 12
    assert len(first) <= 150_000
    pixels = b"100" if show is show_density else str(panels.SAMPLE_PIXELS).encode()
    assert set(re.findall(rb'<image [^>]* width="(\d+)" height="(\d+)"', first)) == {(pixels, pixels)}


def test_a_grid_has_equal_squares_and_titles_at_the_left_and_on_top():
    figure = twelve(show_density)
    plotting.png_bytes(figure)  # lays it out
    boxes = np.array([axis.get_window_extent().bounds for axis in figure.axes])
    np.testing.assert_allclose(boxes[:, 2:], boxes[0, 2], rtol=0.01)
    assert [axis.get_ylabel() for axis in figure.axes if axis.get_ylabel()] == ["target", "two\nlines"]
    assert [axis.get_title() for axis in figure.axes[:6]] == [
        "t = 0",
        "t = 0.2",
        "t = 0.4",
        "t = 0.6",
        "t = 0.8",
        "t = 1",
    ]
    assert not any(axis.get_title() for axis in figure.axes[6:])
    inches = boxes[0, 2] / figure.dpi
    assert inches == pytest.approx(1.1, rel=0.12), "the room for titles is as large as they need"


def test_captions_get_room_of_their_own():
    figure, axes = panels.grid_figure(3, 2, ["a", "b", "c"], ["one", "two"], caption_lines=2)
    for row in axes:
        for axis in row:
            panels.caption(axis, "NLL 1.234", "NFE 56")
    figure.draw_without_rendering()  # lays it out
    boxes = [axis.get_window_extent() for row in axes for axis in row]
    assert all(box.width / figure.dpi == pytest.approx(1.1, rel=0.12) for box in boxes)
    below = [axis.xaxis.label.get_window_extent() for row in axes for axis in row]
    for (upper, text), lower in zip(zip(boxes, below, strict=True), boxes[2:], strict=False):
        assert lower.y1 < text.y0 < text.y1 < upper.y0
    assert below[-1].y0 > 0


@pytest.mark.parametrize(("rows", "columns"), [(["one"], ["a", "b"]), (["one", "two"], ["a"])])
def test_titles_that_do_not_fit_the_grid_are_refused(rows, columns):
    with pytest.raises(ValueError, match=r"shorter|longer"):
        panels.grid_figure(2, 2, rows, columns)


# --- frames ----------------------------------------------------------------------------------------------------------

SPREADS = np.linspace(1.0, 0.5, 5)


def frames_of(n_points, spreads=SPREADS, centre=(2.0, -1.0), scale=2):
    densities = np.stack([normal(60, spread, centre) for spread in spreads])
    points = [sample(n_points, spread, centre) for spread in spreads] if n_points else None
    return panels.density_frames(densities, points, WINDOW, scale)


def test_frames_hold_density_and_sample_side_by_side():
    frames = frames_of(2000)
    assert frames.dtype == np.uint8
    assert frames.shape == (5, 120, 240 + panels.GAP, 3)
    assert (frames[:, :, 120 : 120 + panels.GAP] == 255).all()
    alone = frames_of(0)
    assert alone.shape == (5, 120, 120, 3)
    assert np.array_equal(alone, frames[:, :, :120])


def test_frames_are_the_right_way_up_on_both_sides():
    frames = frames_of(4000)
    for part in (frames[-1, :, :120], frames[-1, :, -120:]):
        across, up = dark_place(part, (1, 1, 119, 119))
        assert across == pytest.approx(0.75, abs=0.02)
        assert up == pytest.approx(0.375, abs=0.02)


def test_frames_are_drawn_in_the_colours_of_the_panels_and_a_gif_keeps_them():
    frames = frames_of(2000)
    found = {tuple(colour) for colour in np.unique(frames.reshape(-1, 3), axis=0).tolist()}
    allowed = {tuple(colour) for colour in colours().tolist()} | {(panels.EDGE,) * 3}
    assert found <= allowed
    assert tuple(colours()[-1].tolist()) in found
    assert np.array_equal(read_gif(gif_bytes(Animation(frames, 50))).frames, frames)


def test_a_point_that_does_not_move_keeps_its_colour():
    still = np.array([[-2.97, 2.97]])
    clouds = [np.concatenate([still, sample(20_000, spread, (2.0, -1.0))]) for spread in SPREADS]
    frames = panels.density_frames([normal(60)] * len(SPREADS), clouds, WINDOW, 2)
    place = frames[:, 15, 120 + panels.GAP + 15]  # 120 pixels show [-4, 4]
    assert (place == place[0]).all()
    assert lightness(place[0].astype(float)) < 95


@pytest.mark.parametrize(("densities", "points"), [([], None), ([normal(8)] * 2, [sample(5)])])
def test_frames_that_do_not_match_are_refused(densities, points):
    with pytest.raises(ValueError, match=r"at least one density|shorter"):
        panels.density_frames(densities, points, WINDOW, 1)


def test_twenty_frames_are_a_small_gif():
    spreads = np.linspace(1.5, 0.4, 20)
    densities = [normal(120, spread) for spread in spreads]
    points = [sample(2000, spread) for spread in spreads]
    frames = panels.density_frames(densities, points, WINDOW, 2)
    assert len(gif_bytes(Animation(frames, 50))) <= 20 / 60 * 1_000_000


def test_a_byte_a_cell_shows_the_same_picture():
    images = np.abs(np.random.default_rng(0).normal(size=(2, 5, 5))) * [[[1e-3]], [[1e3]]]
    back = pixels.restored(pixels.quantised(images))
    np.testing.assert_allclose(back, images / images.max(axis=(1, 2), keepdims=True), atol=1 / 255)
    assert (pixels.quantised(np.zeros((3, 3))) == 0).all()
