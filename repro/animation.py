"""Animations of a few colours as GIF files: one palette for all frames, so that nothing flickers."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageSequence

Frames = UInt8[np.ndarray, "time height width 3"]

REST = 1500
"""Milliseconds that the last frame stays longer than the others, before the loop starts again."""

COLOURS = 256
"""What one palette of a GIF can hold."""


@dataclass(frozen=True, eq=False)
class Animation:
    """Pictures in time, shown in an endless loop.

    Attributes:
        frames: RGB.
        milliseconds: how long each frame stays; one number is that of all frames, and the last one then rests `REST`
            longer. A GIF counts in hundredths of a second, and viewers slow down what is faster than 20 ms.

    Raises:
        ValueError: there is no frame, or a frame's time is missing, below 20 ms or no multiple of 10 ms.
    """

    frames: Frames
    milliseconds: int | Sequence[int]

    def __post_init__(self) -> None:
        if len(self.frames) == 0:
            raise ValueError("an animation needs at least one frame")
        if len(self.durations) != len(self.frames):
            raise ValueError(f"{len(self.frames)} frames need as many times; got {len(self.durations)}")
        if any(time < 20 or time % 10 for time in self.durations):
            raise ValueError(f"milliseconds must be multiples of 10, at least 20; got {self.milliseconds}")

    @property
    def durations(self) -> list[int]:
        """Milliseconds of every frame."""
        if isinstance(self.milliseconds, int):
            return [self.milliseconds] * (len(self.frames) - 1) + [self.milliseconds + REST]
        return list(self.milliseconds)


def gif_bytes(animation: Animation) -> bytes:
    """The animation as an endless GIF; the same frames give the same bytes with the same version of Pillow.

    Up to `COLOURS` colours in all are kept exactly; of more, that many are chosen by median cut over all frames. There
    is no dithering: its noise would flicker and cost most of the file.
    """
    frames = animation.frames
    stacked = Image.fromarray(np.ascontiguousarray(frames).reshape(-1, frames.shape[2], 3))  # one below the other
    indexed = stacked.quantize(COLOURS, Image.Quantize.MEDIANCUT)  # it never dithers
    palette = bytes(indexed.getpalette() or ())
    pictures = [Image.fromarray(picture) for picture in np.asarray(indexed).reshape(frames.shape[:3])]
    for picture in pictures:
        picture.putpalette(palette)
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        palette=palette,  # written once for all frames
        duration=animation.durations,
        loop=0,
    )
    return buffer.getvalue()


def read_gif(data: bytes) -> Animation:
    """What a viewer shows of a GIF; frames that show the same one after another become one that stays longer.

    Raises:
        ValueError: if the bytes are no GIF or a damaged one.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["GIF"]) as image:
            shown = [
                (np.asarray(frame.convert("RGB")), int(frame.info.get("duration", 0)))
                for frame in ImageSequence.Iterator(image)
            ]
    except (OSError, SyntaxError, EOFError, IndexError) as error:
        raise ValueError(f"no readable GIF: {error}") from None
    frames, times = [shown[0][0]], [shown[0][1]]
    for frame, time in shown[1:]:
        if np.array_equal(frame, frames[-1]):
            times[-1] += time
        else:
            frames.append(frame)
            times.append(time)
    return Animation(np.stack(frames), times)


def same_pictures(one: bytes, other: bytes) -> bool:
    """Whether two GIFs show the same pixels at the same times, however they are encoded; a damaged one never does."""
    try:
        first, second = read_gif(one), read_gif(other)
    except ValueError:
        return False
    return first.durations == second.durations and np.array_equal(first.frames, second.frames)
