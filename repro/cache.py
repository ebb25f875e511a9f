"""Folders outside the repository: the user's cache, and the one that runs work in."""

import os
from pathlib import Path


def user_cache() -> Path:
    """The suite's folder in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "neural-ode-ffjord-suite"


def cache_root() -> Path:
    """Where unfinished runs are kept: $REPRO_CACHE, or the suite's folder in the user's cache."""
    return Path(os.environ["REPRO_CACHE"]) if "REPRO_CACHE" in os.environ else user_cache()
