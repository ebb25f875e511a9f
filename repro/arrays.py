"""Arrays that a run publishes beside its rows: densities on a grid, samples, trajectories, for pictures drawn later.

A measurement writes `context.artefacts / ARRAYS`; a drawing finds them again by experiment and cell.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from repro.durability import write_atomically
from repro.results import results_root

ARRAYS = "arrays.npz"
"""Their file in a run's folder."""


class ArraysError(OSError):
    """A file of arrays that can't be read; the message names it."""


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a compressed .npz, whole or not at all; equal arrays give equal bytes.

    The bytes depend neither on the clock, nor on the order of the names, nor on the arrays' layout in memory; on the
    zlib in use they do.

    Args:
        path: the file; its folder must exist.
        arrays: numbers or text by name, no objects.

    Raises:
        ValueError: for an array of objects.
        OSError: with the file's name; the old file, if any, is untouched.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, whatever the clock says
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(arrays[name], order="C"), allow_pickle=False)
    write_atomically(path, buffer.getvalue())


def load_arrays(
    rows: pd.DataFrame, experiment: str, cell: str, seed: int | None = None
) -> dict[str, np.ndarray] | None:
    """Read the arrays of a cell's successful run.

    Args:
        rows: what `repro.results.load` gives.
        experiment: its name.
        cell: its cell.
        seed: the run's; None takes the smallest that succeeded. Of several machines the first by name counts.

    Returns:
        Arrays by name; None where there is no such run or it published no arrays.

    Raises:
        ArraysError: if the file is damaged.
    """
    chosen = rows[(rows["experiment"] == experiment) & (rows["cell"] == cell) & (rows["status"] == "ok")]
    if seed is not None:
        chosen = chosen[chosen["seed"] == seed]
    if chosen.empty:
        return None
    run = chosen.sort_values(["seed", "machine", "source", "run"]).iloc[0]
    path = results_root() / run["source"] / run["run"] / ARRAYS
    return read_arrays(path) if path.exists() else None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of one file by their names.

    Raises:
        ArraysError: if the file is damaged.
        OSError: if there is none.
    """
    data = path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zip, zlib and npy headers each have several ways to say so
        words = " ".join(str(error).split())
        raise ArraysError(f"{path} is damaged ({type(error).__name__}: {words}); restore it or run it again") from None
