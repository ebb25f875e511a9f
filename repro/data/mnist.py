"""MNIST: 60,000 + 10,000 grey images of handwritten digits, 28 x 28 pixels, ten classes.

The four files are the canonical ones and ship with the package. The source knows a training and a test set only; a
validation set is carved from the training set here, so that no choice between models ever looks at the test set.

References:
    LeCun, Cortes and Burges, "The MNIST database of handwritten digits", http://yann.lecun.com/exdb/mnist/
    (which also defines the idx format). The Neural ODE paper's public code holds no training images out;
    `load(validation=False)` gives that protocol.
"""

import gzip
import math
import struct

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from repro.data.files import DataError, DataFile, read_verified
from repro.data.splits import Dataset, Labelled, Splits, hashes

SPLIT_SEED = 20180619
"""Seed of the permutation that carves out the validation set; a constant, because results depend on it."""

N_TRAIN, N_VALIDATION, N_TEST = 50_000, 10_000, 10_000

_MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_UINT8 = 0x08  # the idx format's code for unsigned bytes, the only type that MNIST uses


def _file(name: str, sha256: str, size: int, contents: str) -> DataFile:
    how_to_get = f"download {_MIRROR}{name} and put it into the folder mnist/ of the folder named by REPRO_DATA"
    return DataFile(f"mnist/{name}", sha256, size, contents, how_to_get)


TRAIN_IMAGES = _file(
    "train-images-idx3-ubyte.gz",
    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    9_912_422,
    "idx, 60000 x 28 x 28, uint8",
)
TRAIN_LABELS = _file(
    "train-labels-idx1-ubyte.gz",
    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    28_881,
    "idx, 60000, uint8",
)
TEST_IMAGES = _file(
    "t10k-images-idx3-ubyte.gz",
    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    1_648_877,
    "idx, 10000 x 28 x 28, uint8",
)
TEST_LABELS = _file(
    "t10k-labels-idx1-ubyte.gz",
    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    4_542,
    "idx, 10000, uint8",
)
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


def load(validation: bool = True) -> Splits[Labelled]:
    """Read, verify and split MNIST; takes well under a second.

    Args:
        validation: Whether to carve 10,000 validation images out of the 60,000. Without, the training set is all
            60,000 in the source's order and the validation set is empty: the protocol of the public code.

    Returns:
        50,000 / 10,000 / 10,000 images, or 60,000 / 0 / 10,000.

    Raises:
        DataError: If a file is missing or is not the canonical one.
    """
    everything = _read(TRAIN_IMAGES, TRAIN_LABELS, N_TRAIN + N_VALIDATION)
    train, held_out = everything, _select(everything, np.arange(0))
    if validation:
        chosen, left_out = split_indices()
        train, held_out = _select(everything, chosen), _select(everything, left_out)
    test = _read(TEST_IMAGES, TEST_LABELS, N_TEST)
    return Splits(train, held_out, test, sha256=hashes(FILES))


def split_indices() -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " validation"]]:
    """Give the fixed split of the 60,000: row numbers of the training and of the validation images.

    Both are in the permutation's order, hence the first k rows of either are a random subset.
    """
    order = np.random.default_rng(SPLIT_SEED).permutation(N_TRAIN + N_VALIDATION)
    return order[:N_TRAIN], order[N_TRAIN:]


def parse_idx(raw: bytes, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """Parse an idx file of unsigned bytes.

    The format: two zero bytes, a byte for the type, a byte for the number of axes, each axis' length as a big-endian
    32-bit integer, then the values in row-major order.

    Args:
        raw: The file's bytes, decompressed.
        shape: The shape that it must have.

    Returns:
        A writable copy of the values.

    Raises:
        DataError: If magic number, shape or length are not as they should be.
    """
    magic, header = struct.pack(">HBB", 0, _UINT8, len(shape)), 4 + 4 * len(shape)
    if raw[:4] != magic:
        raise DataError(f"idx magic number is {raw[:4].hex() or 'absent'}, expected {magic.hex()}")
    if len(raw) < header:
        raise DataError(f"idx header has {len(raw)} bytes, expected {header}")
    found = struct.unpack(f">{len(shape)}I", raw[4:header])
    if found != shape:
        raise DataError(f"idx shape is {found}, expected {shape}")
    if len(raw) != header + math.prod(shape):
        raise DataError(f"idx file has {len(raw) - header} values, expected {math.prod(shape)}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape).copy()


def _read(images: DataFile, labels: DataFile, n: int) -> Labelled:
    """Read one pair of files."""
    pixels = parse_idx(gzip.decompress(read_verified(images)), (n, 28, 28))
    classes = parse_idx(gzip.decompress(read_verified(labels)), (n,))
    return Labelled(torch.from_numpy(pixels), torch.from_numpy(classes.astype(np.int64)))


def _select(data: Labelled, rows: Int64[np.ndarray, " rows"]) -> Labelled:
    """Copy the given rows."""
    index = torch.from_numpy(rows)
    return Labelled(data.images[index], data.labels[index])


MNIST = Dataset(
    name="mnist",
    load=load,
    files=FILES,
    citation="Y. LeCun, C. Cortes, C. J. C. Burges: The MNIST database of handwritten digits",
    licence="usually given as CC BY-SA 3.0; copyright Yann LeCun and Corinna Cortes",
)
