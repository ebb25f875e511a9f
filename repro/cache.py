"""Folders outside the repository: the user's cache, and the one that runs work in."""

import os
import tempfile
from pathlib import Path


def user_cache() -> Path:
    """The suite's folder in the user's cache."""
    return _cache() / "neural-ode-ffjord-suite"


def _cache() -> Path:
    if "XDG_CACHE_HOME" in os.environ:
        return Path(os.environ["XDG_CACHE_HOME"])
    try:
        return Path.home() / ".cache"
    except RuntimeError:  # a user without a home, as in a container
        return Path(tempfile.gettempdir())


def cache_root() -> Path:
    """Where unfinished runs are kept: $REPRO_CACHE, or the suite's folder in the user's cache."""
    return Path(os.environ["REPRO_CACHE"]) if "REPRO_CACHE" in os.environ else user_cache()
