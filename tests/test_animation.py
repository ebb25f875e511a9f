"""GIFs show the frames they were made of, at the times asked for, and are compared by what they show."""

import io

import numpy as np
import pytest
from PIL import Image

from repro.animation import REST, Animation, gif_bytes, read_gif, same_pictures

RANDOM = np.random.default_rng(0)
FEW = RANDOM.integers(0, 256, (90, 3), dtype=np.uint8)[RANDOM.integers(0, 90, (6, 20, 31))]
"""Frames of 90 colours."""


def raw(data):
    """Frames, their times and the count of loops as an independent reader finds them."""
    with Image.open(io.BytesIO(data)) as image:
        frames, times = [], []
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
            times.append(image.info["duration"])
        return np.stack(frames), times, image.info.get("loop")


def local_palettes(data):
    """Count the frames with a palette of their own, walking through the blocks of the format (GIF89a, section 20)."""
    position, count = 13 + 3 * 2 ** ((data[10] & 7) + 1), 0
    while data[position] != 0x3B:
        if data[position] == 0x2C:
            flags = data[position + 9]
            count += flags >> 7
            position += 11 + (3 * 2 ** ((flags & 7) + 1) if flags >> 7 else 0)
        else:
            position += 2
        while data[position]:
            position += data[position] + 1
        position += 1
    return count


def test_few_colours_are_kept_exactly_and_it_loops_for_ever():
    frames, times, loop = raw(gif_bytes(Animation(FEW, 50)))
    assert np.array_equal(frames, FEW)
    assert times == [50] * 5 + [50 + REST]
    assert loop == 0


def test_each_frame_may_have_its_own_time():
    given = [20, 1000, 30, 40, 50, 2000]
    assert raw(gif_bytes(Animation(FEW, given)))[1] == given


def test_one_palette_serves_all_frames():
    smooth = np.linspace(0, 255, 5 * 20 * 30 * 3).reshape(5, 20, 30, 3).astype(np.uint8)
    for frames in (FEW, smooth, RANDOM.integers(0, 256, (5, 20, 31, 3), dtype=np.uint8)):
        assert local_palettes(gif_bytes(Animation(frames, 50))) == 0


def test_many_colours_become_near_ones_that_do_not_flicker():
    ramp = np.linspace(0, 255, 1200)
    picture = np.stack([ramp, ramp[::-1], np.roll(ramp, 300)], axis=-1).reshape(30, 40, 3).astype(np.uint8)
    frames = np.stack([picture] * 4)
    frames[:, :5, :5] = np.arange(4, dtype=np.uint8)[:, None, None, None] * 60  # something must move
    shown, _, _ = raw(gif_bytes(Animation(frames, 50)))
    assert np.abs(shown.astype(int) - frames).max() <= 24
    assert np.array_equal(shown[0, 5:], shown[3, 5:])


def test_the_same_frames_give_the_same_bytes():
    assert gif_bytes(Animation(FEW, 50)) == gif_bytes(Animation(FEW.copy(order="F"), [50] * 5 + [50 + REST]))


def test_one_frame_and_one_colour_are_enough():
    white = np.full((1, 4, 5, 3), 255, np.uint8)
    back = read_gif(gif_bytes(Animation(white, 100)))
    assert np.array_equal(back.frames, white)


def reencoded(animation, **options):
    """The same pictures by other ways: palettes per frame, no difference frames, colours in another order."""
    pictures = [Image.fromarray(frame).quantize(128, Image.Quantize.FASTOCTREE, dither=0) for frame in animation.frames]
    buffer = io.BytesIO()
    keys = {"save_all": True, "append_images": pictures[1:], "duration": animation.durations, "loop": 0}
    pictures[0].save(buffer, format="GIF", **keys | options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"disposal": 2}, {"interlace": 0}, {"comment": b"x"}])
def test_another_encoding_shows_the_same(options):
    few = Animation((FEW // 128) * 255, 50)  # eight colours, which any quantiser keeps
    data = gif_bytes(few)
    other = reencoded(few, **options)
    assert other != data
    assert same_pictures(other, data)


def test_a_frame_that_stays_equals_one_that_is_repeated():
    repeated = gif_bytes(Animation(FEW[[0, 0, 1]], [50, 70, 90]))
    assert same_pictures(repeated, gif_bytes(Animation(FEW[:2], [120, 90])))


def test_one_changed_pixel_time_or_size_is_seen():
    data = gif_bytes(Animation(FEW, 50))
    changed = FEW.copy()
    changed[3, 7, 7] = 255 - changed[3, 7, 7]
    assert not same_pictures(data, gif_bytes(Animation(changed, 50)))
    assert not same_pictures(data, gif_bytes(Animation(FEW, 60)))
    assert not same_pictures(data, gif_bytes(Animation(FEW[:, :-1], 50)))
    assert not same_pictures(data, gif_bytes(Animation(FEW[:-1], 50)))


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: d[:300], lambda d: b"", lambda d: b"x" * 99])
def test_a_damaged_file_shows_something_else(damage):
    data = gif_bytes(Animation(FEW, 50))
    assert not same_pictures(damage(data), data)


@pytest.mark.parametrize(
    ("frames", "milliseconds", "message"),
    [
        (FEW[:0], 50, "at least one frame"),
        (FEW, [50, 50], "6 frames need as many times; got 2"),
        (FEW, 10, "at least 20"),
        (FEW, 55, "multiples of 10"),
    ],
)
def test_what_a_gif_cannot_show_is_refused(frames, milliseconds, message):
    with pytest.raises(ValueError, match=message):
        Animation(frames, milliseconds)
