"""Results of each test point beside a run's final numbers, so that two models are compared point by point.

A run's folder holds one file: for a classifier a bit per test image, for a flow the log-densities of the first test
points, for a flow that was matched to an energy the log-ratios of its first draws.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from repro.arrays import ArraysError, read_arrays, save_arrays

PER_POINT = "per_point.npz"
"""The file in a run's folder."""
MAX_POINTS = 10_000
"""Points of a flow of which values are saved."""


def save_correct(folder: Path, correct: Bool[Tensor, " n"]) -> None:
    """Save a bit per test image, in the order of the test set: whether it was classified correctly."""
    bits = np.packbits(correct.cpu().numpy())
    save_arrays(folder / PER_POINT, {"correct": bits, "n": np.array(len(correct), dtype=np.int64)})


def save_log_density(folder: Path, log_density: Float[Tensor, " n"]) -> None:
    """Save log-densities (nats, float16) of the first `MAX_POINTS` test points."""
    save_arrays(folder / PER_POINT, {"log_density": _half(log_density)})


def save_log_ratio(folder: Path, log_ratio: Float[Tensor, " n"]) -> None:
    """Save log q − log p (nats, float16) at the first `MAX_POINTS` draws from q."""
    save_arrays(folder / PER_POINT, {"log_ratio": _half(log_ratio)})


def _half(values: Float[Tensor, " n"]) -> np.ndarray:
    return values[:MAX_POINTS].to(torch.float16).cpu().numpy()  # what is beyond 65,504 becomes inf


def load_correct(folder: Path) -> np.ndarray:
    """Read whether each test image was classified correctly, bool [n], from a run's folder.

    Raises:
        ArraysError: The file is damaged, or holds something else.
        OSError: There is no such file.
    """
    arrays = _load(folder, "correct")
    return np.unpackbits(arrays["correct"], count=int(arrays["n"])).astype(bool)


def load_log_density(folder: Path) -> np.ndarray:
    """Read the log-densities (nats, float16 [n]) of the first test points from a run's folder.

    Raises:
        ArraysError: The file is damaged, or holds something else.
        OSError: There is no such file.
    """
    return _load(folder, "log_density")["log_density"]


def load_log_ratio(folder: Path) -> np.ndarray:
    """Read log q − log p (nats, float16 [n]) at the first draws from a run's folder.

    Raises:
        ArraysError: The file is damaged, or holds something else.
        OSError: There is no such file.
    """
    return _load(folder, "log_ratio")["log_ratio"]


def _load(folder: Path, name: str) -> Mapping[str, np.ndarray]:
    arrays = read_arrays(folder / PER_POINT)
    if name not in arrays:
        raise ArraysError(f"{folder / PER_POINT} holds {', '.join(sorted(arrays)) or 'nothing'}, no {name}")
    return arrays
