"""MINIBOONE: signal events of a neutrino experiment; 36,488 rows of 43 numbers.

MAF's file has outliers and degenerate columns removed already; what is left is to cut it in file order and to
standardise. `miniboone_partial` ships: all validation and test rows, but only the first 1,523 training rows. A model
trained on it is never to be compared with a published number, hence the name of its own.
"""

from io import BytesIO

import numpy as np

from repro.data.files import DataFile, read_verified
from repro.data.splits import Dataset, Splits, Table, hashes
from repro.data.tabular import MAF_CITATION, Rows, external, finished, parsed, standardised, tenths

FULL = external("miniboone/data.npy", "npy, 36488 rows of 43 columns")
PARTIAL = DataFile(
    "miniboone_partial/miniboone_maf_partial.npz",
    "7fe9abd80ea15b3f22fc570d71519410176b32bf80af2d7335fe728a8fb02c07",
    2_226_630,
    "npz, train_head 1523, val 3284, test 3648 rows of 43 float64, and mu, sigma",
    "reinstall the package, which brings it along",
)


def load() -> Splits[Table]:
    """Read, cut and standardise MINIBOONE; not tested on the original file, which nobody here had.

    Raises:
        DataError: The file is absent, can't be read, or has another shape.
    """
    raw = read_verified(FULL)
    rows = parsed(FULL, raw, lambda file: np.load(file, allow_pickle=False).astype(float))
    return finished("miniboone", standardised(*tenths(rows)), hashes([FULL], raw))


def load_partial() -> Splits[Table]:
    """Read and standardise what ships of MINIBOONE, by mean and deviation of the whole training and validation part.

    Raises:
        DataError: The file is missing or is not the one that ships.
    """
    parts = parsed(PARTIAL, read_verified(PARTIAL), _parts)
    return finished("miniboone_partial", parts, hashes([PARTIAL]))


def _parts(file: BytesIO) -> tuple[Rows, Rows, Rows]:
    with np.load(file, allow_pickle=False) as arrays:
        train, validation, test = (
            (arrays[name] - arrays["mu"]) / arrays["sigma"] for name in ("train_head", "val", "test")
        )
        return train, validation, test


_ROE = "B. Roe (2005): MiniBooNE particle identification, UCI data set 199, https://doi.org/10.24432/C5QC87; "

MINIBOONE = Dataset(name="miniboone", load=load, files=(FULL,), citation=_ROE + MAF_CITATION, licence="CC BY 4.0 (UCI)")
MINIBOONE_PARTIAL = Dataset(
    name="miniboone_partial", load=load_partial, files=(PARTIAL,), citation=_ROE + MAF_CITATION, licence="CC BY 4.0"
)
