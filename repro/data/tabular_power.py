"""POWER: one household's electric power, minute by minute over four years; 2,049,280 rows of 6 numbers.

The columns are active power (kW), voltage (V), three sub-meters (Wh) and the minute of the day. MAF's preprocessing:
shuffle, add uniform noise as wide as the measurement's grid, cut, standardise.

Deviation: MAF's file has noise in its time column already; the table that ships here has whole minutes. A continuous
density on 1,440 atoms has no bound, so U[0, 1) is added here too, from a stream of its own, which leaves all other
draws as they are in MAF's loader. The splits agree with MAF's in distribution, not bit for bit.
"""

import numpy as np
from jaxtyping import Float, Int64

from repro.data.files import DataFile, read_verified
from repro.data.splits import Dataset, Splits, Table, hashes
from repro.data.tabular import Rows, finished, parsed, standardised, tenths

MAF_SEED = 42
"""Seed of MAF's shuffle and noise."""
TIME_SEED = 235
"""Seed of the time column's noise; a constant, because results depend on it."""
MINUTES_A_DAY = 1440

FILE = DataFile(
    "power/household_power_complete.npz",
    "329da01945b780218e4f66607d0c8bfc03d4af92524adf1c91643ba1bad1b450",
    8_085_169,
    "npz, 7 columns of 2049280 integers and the gaps between them",
    "reinstall the package, which brings it along; the table itself is UCI's data set 235",
)


def load() -> Splits[Table]:
    """Read, verify, shuffle, dequantise, cut and standardise POWER; takes about a second.

    Raises:
        DataError: The file is missing or is not the one that ships.
    """
    parts = standardised(*tenths(preprocessed(parsed(FILE, read_verified(FILE), measurements))))
    return finished("power", parts, hashes([FILE]))


def measurements(file: object) -> Rows:
    """The table in time order: active power, voltage, three sub-meters, minute of the day; nothing random yet."""
    with np.load(file, allow_pickle=False) as columns:  # pyright: ignore[reportArgumentType]
        kilowatts, volts = columns["global_active_power_W"] / 1000, columns["voltage_cV"] / 100
        meters = [columns[f"sub_metering_{number}"].astype(float) for number in (1, 2, 3)]
        gaps = (int(columns["first_minute"]), columns["missing_start"], columns["missing_length"])
        return np.column_stack([kilowatts, volts, *meters, minute_of_day(*gaps, n=len(volts))])


def minute_of_day(
    first: int, missing_start: np.ndarray, missing_length: np.ndarray, *, n: int
) -> Float[np.ndarray, " n"]:
    """The minute of the day of every row.

    Args:
        first: minutes from the epoch to the first row.
        missing_start: first minute of each gap, counted from `first`.
        missing_length: minutes of each gap.
        n: rows, gaps not counted.
    """
    present = np.ones(n + int(missing_length.sum()), dtype=bool)
    for start, length in zip(missing_start.tolist(), missing_length.tolist(), strict=True):
        present[start : start + length] = False
    return ((first + np.flatnonzero(present)) % MINUTES_A_DAY).astype(float)


def shuffled_order(n: int, generator: np.random.RandomState) -> Int64[np.ndarray, " n"]:
    """Where MAF's shuffle of n rows takes each row from; a shuffle of row numbers draws what one of rows draws."""
    order = np.arange(n)
    generator.shuffle(order)
    return order


def preprocessed(rows: Rows) -> Rows:
    """Shuffle and dequantise.

    The draws come in the order of MAF's loader: shuffle, voltage, active power, sub-meters. Each number gets noise as
    wide as the grid that it was measured on: 0.01 V, 0.001 kW, 1 Wh, and one minute.
    """
    generator = np.random.RandomState(MAF_SEED)
    rows = rows[shuffled_order(len(rows), generator)]
    rows[:, 1] += 0.01 * generator.rand(len(rows))
    rows[:, 0] += 0.001 * generator.rand(len(rows))
    rows[:, 2:5] += generator.rand(len(rows), 3)
    rows[:, 5] += np.random.default_rng(TIME_SEED).random(len(rows))
    return rows


POWER = Dataset(
    name="power",
    load=load,
    files=(FILE,),
    citation="G. Hebrail, A. Berard (2006): Individual Household Electric Power Consumption, UCI data set 235, "
    "https://doi.org/10.24432/C58K54",
    licence="CC BY 4.0",
)
