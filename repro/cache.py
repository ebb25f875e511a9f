"""Folders outside the repository: the user's cache, and the one that runs work in."""

import os
import stat
import tempfile
from pathlib import Path

from repro.errors import Failure

NAME = "neural-ode-ffjord-suite"
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class CacheError(Failure, PermissionError):
    """A folder that another user could have filled; the message names it and says what to do."""


def read_folder(variable: str) -> Path | None:
    """Read a folder from an environment variable; an empty one counts as not set."""
    text = os.environ.get(variable, "")
    return Path(text) if text else None


def user_cache() -> Path:
    """Give the suite's folder in the user's cache.

    A relative XDG_CACHE_HOME is ignored, as its specification says: it would make the current folder's files the cache.

    Raises:
        CacheError: The user has no home, and the folder in the system's temporary one is another user's.
    """
    cache = read_folder("XDG_CACHE_HOME")
    if cache is not None and cache.is_absolute():
        return cache / NAME
    home = _find_home()
    if home is not None:
        return home / ".cache" / NAME
    return make_private(Path(tempfile.gettempdir()) / f"{NAME}-{os.geteuid()}")


def _find_home() -> Path | None:
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home, as in a container
        return None
    return home if home.is_absolute() and os.environ.get("HOME") != "" else None


def cache_root() -> Path:
    """Give the folder of unfinished runs: $REPRO_CACHE, or the suite's folder in the user's cache."""
    return read_folder("REPRO_CACHE") or user_cache()


def make_private(folder: Path) -> Path:
    """Make a folder that nobody else can write into, or make sure that an existing one is so.

    Raises:
        CacheError: It is another user's, or a link that another user made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (_is_owned(folder.lstat()) and _is_owned(folder.stat())):
        raise CacheError(f"{folder} belongs to another user: set REPRO_CACHE and XDG_CACHE_HOME to folders of yours")
    if folder.stat().st_mode & WRITABLE_BY_OTHERS:
        folder.chmod(0o700)
    return folder


def is_private(file: Path) -> bool:
    """Tell whether a file is there that nobody else can have written."""
    try:
        status = file.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and _is_owned(status) and not status.st_mode & WRITABLE_BY_OTHERS


def _is_owned(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid()
