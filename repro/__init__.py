"""Benchmark and reproduction suite for "Neural Ordinary Differential Equations" and "FFJORD"."""

from typing import Any

__version__ = "0.1.0"


def load(experiment: str, cell: str, *, tier: Any = None, seed: int = 0) -> Any:  # noqa: ANN401 (torch is imported late)
    """Load a published model; see `repro.loading.load_model`."""
    from repro.loading import load_model

    return load_model(experiment, cell, tier=tier, seed=seed)
