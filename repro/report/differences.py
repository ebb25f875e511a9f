"""Which generated files are not as they are on disk, whatever an image library made of the same pixels."""

import base64
import hashlib
import io
import re
from pathlib import Path

from PIL import Image

from repro.animation import same_pictures


def changed(files: dict[Path, bytes]) -> list[Path]:
    """The files that are not as generated; a PNG follows its SVG, since its bytes depend on the image library."""
    text = [path for path, content in files.items() if path.suffix != ".png" and _differs(path, content)]
    images = [path for path in files if path.suffix == ".png"]
    return text + [path for path in images if path.with_suffix(".svg") in text or not path.exists()]


def _differs(path: Path, content: bytes) -> bool:
    """Whether a file shows something else; how its images are compressed depends on the machine and does not count."""
    if not path.exists():
        return True
    there = path.read_bytes()
    if path.suffix == ".gif":
        return not same_pictures(there, content)
    return there != content and (path.suffix != ".svg" or _decoded(there) != _decoded(content))


def _decoded(svg: bytes) -> bytes:
    """An SVG with a digest of the pixels in place of every embedded image and its name, which is one of its bytes."""
    return re.sub(rb'data:image/png;base64,\s*([^"]*)" id="image\w+"', _digest, svg)


def _digest(match: re.Match[bytes]) -> bytes:
    try:
        pixels = Image.open(io.BytesIO(base64.b64decode(match[1]))).convert("RGBA")
    except (OSError, SyntaxError, ValueError):  # edited by hand
        return match[0]
    return f"{pixels.size} {hashlib.sha256(pixels.tobytes()).hexdigest()}".encode()
