"""Data sets, toy densities and energies: one family per file, each in its register; importing this reads no data."""

from repro.data.bsds_patches import BSDS_PATCHES
from repro.data.densities import DENSITIES, Density
from repro.data.energies import ENERGIES, Energy
from repro.data.files import DataError, DataFile, FileStatus, check, read_verified
from repro.data.mnist import MNIST
from repro.data.splits import Dataset, Labelled, Splits, Table
from repro.data.tabular_miniboone import MINIBOONE, MINIBOONE_PARTIAL
from repro.data.tabular_others import BSDS300, GAS, HEPMASS, load_gas
from repro.data.tabular_power import POWER

DATASETS: dict[str, Dataset] = {
    "mnist": MNIST,
    "power": POWER,
    "gas": GAS,
    "hepmass": HEPMASS,
    "miniboone": MINIBOONE,
    "miniboone_partial": MINIBOONE_PARTIAL,
    "bsds300": BSDS300,
    "bsds300_patches": BSDS_PATCHES,
}
"""Every data set by name."""


def check_all() -> list[tuple[str, DataFile, FileStatus]]:
    """Check every file of every data set, for the command `python -m repro data`.

    Returns:
        Name of the data set, file, and what was found, in the register's order.
    """
    return [(name, file, check(file)) for name, dataset in DATASETS.items() for file in dataset.files]


__all__ = [
    "DATASETS",
    "DENSITIES",
    "ENERGIES",
    "DataError",
    "DataFile",
    "Dataset",
    "Density",
    "Energy",
    "FileStatus",
    "Labelled",
    "Splits",
    "Table",
    "check",
    "check_all",
    "load_gas",
    "read_verified",
]
