"""What the five tabular sets of MAF and FFJORD share: their sizes, their files, and the way to the splits.

References:
    Papamakarios, Pavlakou and Murray 2017 (arXiv 1705.07057), Appendix D, and its public preprocessing, which FFJORD
    took over (datasets/*.py). Preprocessed files: Zenodo record 1161203.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from repro.data.files import DataError, DataFile
from repro.data.splits import Splits, Table

Sizes = tuple[int, int, int, int]
"""Columns, and rows for training, validation and test."""

SIZES: dict[str, Sizes] = {
    "power": (6, 1_659_917, 184_435, 204_928),
    "gas": (8, 852_174, 94_685, 105_206),
    "hepmass": (21, 315_123, 35_013, 174_987),
    "miniboone": (43, 29_556, 3_284, 3_648),
    "miniboone_partial": (43, 1_523, 3_284, 3_648),
    "bsds300": (63, 1_000_000, 50_000, 250_000),
    "bsds300_patches": (63, 1_000_000, 50_000, 250_000),
}

MAF_CITATION = (
    "G. Papamakarios (2018): Preprocessed datasets for MAF experiments, Zenodo, https://doi.org/10.5281/zenodo.1161203"
)

Rows = Float[np.ndarray, "_ _"]


def external(path: str, contents: str) -> DataFile:
    """A file that does not ship: out of MAF's archive, or from the user's own folder."""
    name, file = path.split("/")
    how = f"`python -m repro data fetch {name}`, or put {file} into the folder {name}/ of the folder in REPRO_DATA"
    return DataFile(path, None, None, contents, how)


def tenths(rows: Rows) -> tuple[Rows, Rows, Rows]:
    """Cut off the last tenth for testing, and the last tenth of what is left for validation, both rounded down."""
    n_test = len(rows) // 10
    n_validation = (len(rows) - n_test) // 10
    n_train = len(rows) - n_test - n_validation
    return rows[:n_train], rows[n_train : n_train + n_validation], rows[n_train + n_validation :]


def standardised(train: Rows, validation: Rows, test: Rows) -> tuple[Rows, Rows, Rows]:
    """Shift and scale all parts by mean and standard deviation of training and validation rows together."""
    known = np.concatenate([train, validation])
    mean, deviation = known.mean(0), known.std(0)
    return (train - mean) / deviation, (validation - mean) / deviation, (test - mean) / deviation


def finished(name: str, parts: tuple[Rows, Rows, Rows], sha256: dict[str, str]) -> Splits[Table]:
    """Check the parts of a set of the literature and make float32 tensors of them.

    Raises:
        DataError: A part has other sizes than the literature's, or numbers that are not finite.
    """
    dim, *expected = SIZES[name]
    found = [part.shape for part in parts]
    if found != [(n, dim) for n in expected]:
        raise DataError(f"data set {name} has parts of shapes {found}; expected {expected} rows of {dim} columns")
    return tables(name, parts, sha256)


def tables(name: str, parts: tuple[Rows, Rows, Rows], sha256: dict[str, str]) -> Splits[Table]:
    """Make float32 tensors of the parts for training, validation and test.

    Raises:
        DataError: A part has numbers that are not finite.
    """
    for part, label in zip(parts, ("training", "validation", "test"), strict=True):
        if bad := int((~np.isfinite(part)).any(1).sum()):
            raise DataError(f"data set {name}: {bad} of {len(part)} {label} rows hold numbers that are not finite")
    train, validation, test = (torch.from_numpy(part.astype(np.float32)) for part in parts)
    return Splits(train, validation, test, sha256)


def parsed(file: DataFile, raw: bytes, parse: Callable[[BytesIO], Any]) -> Any:  # noqa: ANN401 (what the parser gives)
    """Parse a file's bytes; whatever a parser says of bytes that it can't read becomes one line that names the file.

    Raises:
        DataError: The parser failed.
    """
    try:
        return parse(BytesIO(raw))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DataError(f"data file {file.path} can't be read as {file.contents} ({reason})") from error
