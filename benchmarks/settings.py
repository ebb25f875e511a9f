"""How much is measured, and where: set once by `python -m benchmarks`, read by every benchmark and its processes."""

import os

import torch

QUICK = os.environ.get("REPRO_BENCH_QUICK") == "1"
"""Whether the grids are cut down to a pass of minutes."""
DEVICE = torch.device(os.environ.get("REPRO_BENCH_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
"""Where the tensors live."""


def grid(full, quick):
    """The values of an axis: all of them, or the few of the quick pass."""
    return quick if QUICK else full
