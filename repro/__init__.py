"""Benchmark and reproduction suite for "Neural Ordinary Differential Equations" and "FFJORD"."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repro.loading import load_model as load
    from repro.measuring.measure import measure

__all__ = ["load", "measure"]
__version__ = "0.1.0"

_HOMES = {"load": ("repro.loading", "load_model"), "measure": ("repro.measuring.measure", "measure")}
"""What stands at the top, imported at first use: torch is slow to load, and `--help` shall not wait for it."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 (whatever is asked for)
    if name not in _HOMES:
        raise AttributeError(f"module 'repro' has no attribute {name!r}")
    home, inner = _HOMES[name]
    return getattr(importlib.import_module(home), inner)
