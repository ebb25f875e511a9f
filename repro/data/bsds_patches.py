"""BSDS300's patches, drawn from its photographs: 8 x 8 grey pixels, dequantised, centred, 63 of 64 numbers.

The patches that MAF and FFJORD used are one file of 1.3 million (`bsds300`). These are of the same kind and as many,
but not the same, so that a likelihood on them compares with a published one only loosely. JPEG readers may differ by a
grey level between versions.

References:
    Uria, Murray, Larochelle 2013 (RNADE, arXiv 1306.0186), Section 5.2; grey as MATLAB's rgb2gray has it.
"""

import tarfile
from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from repro.data.files import DataFile, read_verified
from repro.data.splits import Dataset, Splits, Table, hashes
from repro.data.tabular import SIZES, Rows, finished, parsed

SIDE = 8
HELD_OUT = 20
"""Photographs of the 200 for training whose patches validate, so that no photograph is in two parts. So few are no fair
sample: they are smoother than the photographs for testing, and a Gaussian too has a lower NLL on them, by many nats."""
GREY = (0.2989, 0.5870, 0.1140)
SEED = 0

FILE = DataFile(
    "bsds300_patches/bsds300_images.tar",
    None,
    None,
    "tar of 200 JPEG files in BSDS300/images/train and 100 in test",
    "download https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/BSDS300-images.tgz, unpack it with gzip, "
    "and put it as bsds300_images.tar into the folder bsds300_patches/ of the folder in REPRO_DATA",
)

Photograph = UInt8[np.ndarray, "_ _"]
"""Upright or lying."""


def load() -> Splits[Table]:
    """Read the photographs and draw patches; the same ones each time.

    Raises:
        DataError: The file is absent, can't be read, or has another number of photographs.
    """
    raw = read_verified(FILE)
    known, unseen = parsed(FILE, raw, _photographs)
    streams = np.random.SeedSequence(SEED).spawn(4)
    order = np.random.default_rng(streams[0]).permutation(len(known))
    parts = ([known[i] for i in order[HELD_OUT:]], [known[i] for i in order[:HELD_OUT]], unseen)
    counts = SIZES["bsds300_patches"][1:]
    train, validation, test = (
        patches(photographs, n, np.random.default_rng(stream))
        for photographs, n, stream in zip(parts, counts, streams[1:], strict=True)
    )
    return finished("bsds300_patches", (train, validation, test), hashes([FILE], raw))


def patches(photographs: list[Photograph], n: int, stream: np.random.Generator) -> Rows:
    """Draw n patches from photographs, each as likely, at places, each as likely.

    Returns:
        [n, 63]: (grey + uniform noise) / 256 less the patch's mean, without the last pixel, which the others give.
    """
    which = stream.integers(len(photographs), size=n)
    drawn = np.empty((n, SIDE * SIDE))
    for index, photograph in enumerate(photographs):
        own = np.flatnonzero(which == index)
        windows = np.lib.stride_tricks.sliding_window_view(photograph, (SIDE, SIDE))
        top, left = (stream.integers(extent, size=len(own)) for extent in windows.shape[:2])
        drawn[own] = windows[top, left].reshape(len(own), SIDE * SIDE)
    drawn = (drawn + stream.random(drawn.shape)) / 256
    return (drawn - drawn.mean(1, keepdims=True))[:, :-1]


def _photographs(file: BytesIO) -> tuple[list[Photograph], list[Photograph]]:
    """Those for training and those for testing, by their names' order."""
    with tarfile.open(fileobj=file) as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".jpg"))
        found = {part: [name for name in names if f"/{part}/" in name] for part in ("train", "test")}
        if [len(part) for part in found.values()] != [200, 100]:
            raise ValueError(f"{len(found['train'])} photographs for training and {len(found['test'])} for testing")
        known, unseen = ([_grey(archive, name) for name in part] for part in found.values())
    return known, unseen


def _grey(archive: tarfile.TarFile, name: str) -> Photograph:
    member = archive.extractfile(name)
    if member is None:
        raise ValueError(f"{name} is no file")
    with Image.open(BytesIO(member.read())) as image:
        return np.rint(np.asarray(image.convert("RGB"), dtype=float) @ GREY).astype(np.uint8)


BSDS_PATCHES = Dataset(
    name="bsds300_patches",
    load=load,
    files=(FILE,),
    citation="D. Martin, C. Fowlkes, D. Tal, J. Malik (2001): A database of human segmented natural images, ICCV",
    licence="non-commercial research and education",
)
