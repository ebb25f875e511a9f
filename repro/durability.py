"""Changes of files and folders that survive a kill and a power cut: flushed, moved in one rename, deleted unseen.

A file system commits a rename seconds before the contents of the renamed files: without a flush in between, a power cut
leaves a folder of empty files.
"""

import ctypes
import errno
import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of Linux's fcntl.h and fs.h."""
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}
"""What a kernel or a file system says of a call that it does not know."""


PARTIAL = ".partial"
"""Ending of the name of a file that is not whole yet."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write bytes beside a file, flush them to the disk, then rename: a reader sees the old file or the new one.

    The file beside it has a name of this process alone, so that two that write at once do not meet; what killed ones
    left there is deleted.

    Raises:
        OSError: with the file's name; the old file, if any, is untouched.
    """
    delete_stale_partials(path)
    temporary = name_partial(path)
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:  # a failed write does not say of which file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def name_partial(path: Path) -> Path:
    """Name a file beside another for this process alone."""
    return path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")


def delete_stale_partials(path: Path) -> None:
    """Delete the unfinished files beside a file whose processes have ended; no error is raised."""
    for partial in path.parent.glob(f"{glob.escape(path.name)}*{PARTIAL}"):
        process = partial.name.removeprefix(f"{path.name}.").partition("-")[0]
        if not (process.isdecimal() and _is_running(int(process))):
            with suppress(OSError):
                partial.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold a lock file, once every other process has let go of it; the system does so for one that dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
