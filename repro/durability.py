"""Changes of folders that survive a kill and a power cut: flushed to the disk, moved in one rename, deleted unseen.

A file system commits a rename seconds before the contents of the renamed files: without a flush in between, a power cut
leaves a folder of empty files.
"""

import ctypes
import errno
import os
import shutil
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of Linux's fcntl.h and fs.h."""
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}
"""What a kernel or a file system says of a call that it does not know."""


def name_hidden_sibling(folder: Path, purpose: str) -> Path:
    """Name a folder beside another that no reader takes for a run: dotted, with its purpose as ending."""
    return folder.with_name(f".{folder.name}.{purpose}")


def flush_tree(folder: Path) -> None:
    """Flush every file below a folder to the disk, then every folder from the deepest up.

    Raises:
        OSError: if the disk refuses.
    """
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            _flush(Path(place, name))
        flush_folder(Path(place))


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries (what was renamed, made or deleted in it), where the file system knows how to.

    Raises:
        OSError: if the disk refuses.
    """
    try:
        _flush(folder)
    except OSError as error:  # some network file systems flush no folders
        if error.errno not in UNSUPPORTED:
            raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_folder(new: Path, place: Path) -> None:
    """Move a folder to its place; one that is there changes places with it, so that a reader always sees one of them.

    Where the system cannot exchange two names, two renames do, between which a reader sees neither.

    Args:
        new: the folder; where another was in its place, that one is here afterwards.
        place: its new name, in the same file system.

    Raises:
        OSError: if it cannot be moved; nothing has changed then.
    """
    if not place.exists():
        new.rename(place)
    elif not _exchange(new, place):
        old = name_hidden_sibling(place, "old")
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
        try:
            new.rename(place)
        except OSError:
            old.rename(place)
            raise
        old.rename(new)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two names in one step; False where kernel, C library or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(a), None, str(b))


def delete_folder(folder: Path) -> None:
    """Delete a folder out of sight: one rename takes it away whole, and what cannot be deleted then is left there.

    No error is raised: where even the rename fails, the folder stays whole, for a later try.
    """
    hidden = name_hidden_sibling(folder, "deleted")
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        folder.rename(hidden)
    except OSError:
        return
    shutil.rmtree(hidden, ignore_errors=True)
