"""GAS, HEPMASS and BSDS300: tabular sets that do not ship, out of MAF's archive or a folder of the user's.

None of these loaders was tested on the original files, which nobody here had: only on small files of the same format.

References:
    UCI data sets 322 (GAS) and 347 (HEPMASS); Martin, Fowlkes, Tal and Malik 2001 (BSDS300).
"""

from io import BytesIO
from typing import Any

import pandas as pd

from repro.data.files import DataError, read_verified
from repro.data.splits import Dataset, Splits, Table, hashes
from repro.data.tabular import MAF_CITATION, Rows, external, finished, parsed, tenths
from repro.data.unpickling import unpickle_table

GAS_FILE = external("gas/ethylene_CO.pickle", "pickled pandas table with columns Meth, Eth, Time")
HEPMASS_TRAIN = external("hepmass/1000_train.csv", "csv with a header, the label first")
HEPMASS_TEST = external("hepmass/1000_test.csv", "csv with a header, the label first, one column too many")
BSDS300_FILE = external("bsds300/BSDS300.hdf5", "HDF5 with arrays train, validation, test")

CORRELATED = 0.98
"""GAS loses columns that correlate more than this with a later one."""
REPEATED = 5
"""HEPMASS loses columns whose smallest value occurs more often than this."""


def load_gas() -> Splits[Table]:
    """Read GAS; of its pickle only what a table is made of, so that it runs no code, wherever it comes from.

    Raises:
        DataError: The file is absent, can't be read, or has another shape.
    """
    raw = read_verified(GAS_FILE)
    rows = gas_rows(parsed(GAS_FILE, raw, _pickled))
    return finished("gas", tenths(rows), hashes([GAS_FILE], raw))


def _pickled(file: BytesIO) -> pd.DataFrame:
    return unpickle_table(file).astype(float)


def gas_rows(table: pd.DataFrame) -> Rows:
    """Drop what is no sensor, then sensors that repeat others; standardise by all rows (ddof 1), test rows included.

    One at a time, the first column goes that correlates above `CORRELATED` with another.

    Raises:
        DataError: A column is missing.
    """
    if missing := {"Meth", "Eth", "Time"} - set(table.columns):
        raise DataError(f"data file {GAS_FILE.path} has no column {', '.join(sorted(missing))}")
    table = table.drop(columns=["Meth", "Eth", "Time"])
    while (related := (table.corr() > CORRELATED).sum() > 1).any():
        table = table.drop(columns=related.idxmax())
    return ((table - table.mean()) / table.std()).to_numpy(float)


def load_hepmass() -> Splits[Table]:
    """Read HEPMASS.

    Raises:
        DataError: A file is absent, can't be read, or has another shape.
    """
    files = (HEPMASS_TRAIN, HEPMASS_TEST)
    raw = [read_verified(file) for file in files]
    tables = [parsed(file, each, _csv) for file, each in zip(files, raw, strict=True)]
    return finished("hepmass", hepmass_parts(*tables), hashes(files, *raw))


def _csv(file: BytesIO) -> pd.DataFrame:
    return pd.read_csv(file, index_col=False).astype(float)


def hepmass_parts(train: pd.DataFrame, test: pd.DataFrame) -> tuple[Rows, Rows, Rows]:
    """Keep the signal, drop label and broken column, standardise by the training file (ddof 1), drop repeated values.

    Validation is the last tenth of the training file.
    """
    known = train[train.iloc[:, 0] == 1].iloc[:, 1:].to_numpy(float)
    unseen = test[test.iloc[:, 0] == 1].iloc[:, 1:-1].to_numpy(float)
    if known.shape[1] != unseen.shape[1]:
        raise DataError(
            f"data set hepmass has {known.shape[1]} columns in {HEPMASS_TRAIN.path}, {unseen.shape[1]} in "
            f"{HEPMASS_TEST.path}, label and last test column not counted; expected as many"
        )
    mean, deviation = known.mean(0), known.std(0, ddof=1)
    known, unseen = (known - mean) / deviation, (unseen - mean) / deviation
    kept = (known == known.min(0)).sum(0) <= REPEATED
    known, unseen = known[:, kept], unseen[:, kept]
    n_train = len(known) - len(known) // 10
    return known[:n_train], known[n_train:], unseen


def load_bsds300() -> Splits[Table]:
    """Read BSDS300's patches, which are as they should be already: 8 x 8, dequantised, centred, 63 of 64 pixels.

    Raises:
        DataError: The file is absent, can't be read, or has another shape; or h5py, which reads it, is not installed.
    """
    raw = read_verified(BSDS300_FILE)
    return finished("bsds300", parsed(BSDS300_FILE, raw, _patches), hashes([BSDS300_FILE], raw))


def _patches(file: BytesIO) -> tuple[Any, Any, Any]:
    try:
        import h5py  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DataError("it takes `pip install h5py` to read HDF5") from None
    with h5py.File(file, "r") as arrays:
        train, validation, test = (arrays[name][()] for name in ("train", "validation", "test"))
        return train, validation, test


GAS = Dataset(
    name="gas",
    load=load_gas,
    files=(GAS_FILE,),
    citation="J. Fonollosa (2015): Gas sensor array under dynamic gas mixtures, UCI data set 322, "
    f"https://doi.org/10.24432/C5WP4C; {MAF_CITATION}",
    licence="CC BY 4.0 (UCI)",
)
HEPMASS = Dataset(
    name="hepmass",
    load=load_hepmass,
    files=(HEPMASS_TRAIN, HEPMASS_TEST),
    citation=f"D. Whiteson (2016): HEPMASS, UCI data set 347, https://doi.org/10.24432/C5PP5W; {MAF_CITATION}",
    licence="CC BY 4.0 (UCI)",
)
BSDS300 = Dataset(
    name="bsds300",
    load=load_bsds300,
    files=(BSDS300_FILE,),
    citation="D. Martin, C. Fowlkes, D. Tal, J. Malik (2001): A database of human segmented natural images, ICCV; "
    f"{MAF_CITATION}",
    licence="non-commercial research and education",
)
