"""Data files on disk: where they lie, and whether they hold what they should.

A data file is trusted only for the bytes just read: `read_verified` reads a file once, compares size and SHA-256 of
those bytes with what is written down here, and returns the same bytes. So no half-copied, exchanged or bit-rotten file,
and none that changes between check and use, ever reaches an experiment.

Files that do not ship have no SHA-256 here: what `repro.data.fetch` takes out of a verified archive gets a note of it
beside the file, and is compared with that; what a user puts into REPRO_DATA is taken as it is, and its SHA-256 goes
into the run's record.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from repro.cache import cache_root, read_folder
from repro.errors import Failure

EMBEDDED = Path(__file__).parent / "embedded"
"""What ships with the package."""

ENVIRONMENT_VARIABLE = "REPRO_DATA"
"""Names a folder whose files, under the same relative paths, take precedence over the embedded ones."""


class DataError(Failure):
    """A data file is missing or is not the file that it should be; one line says which, what, and how to get it."""


@dataclass(frozen=True)
class DataFile:
    """A file that a data set is read from.

    Attributes:
        path: Relative path with forward slashes, such as `mnist/train-images-idx3-ubyte.gz`.
        sha256: SHA-256 of the whole file, 64 lower-case hexadecimal digits; None for a file that does not ship.
        size: Size in bytes; None likewise.
        contents: Format, shape and dtype, for people.
        how_to_get: One line that says where the file can be had.
    """

    path: str
    sha256: str | None
    size: int | None
    contents: str
    how_to_get: str

    @property
    def ships(self) -> bool:
        """Whether the package brings the file along."""
        return self.sha256 is not None


@dataclass(frozen=True)
class FileStatus:
    """What a look at a file found.

    Attributes:
        status: `ok`, `missing` (no such file, though it ships), `absent` (no such file, and it does not ship) or
            `corrupt` (there is something, but not the right bytes).
        detail: Where it lies if all is well, otherwise what is wrong; one line.
    """

    status: Literal["ok", "missing", "absent", "corrupt"]
    detail: str

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong: the file is right, or it is not there and need not be."""
        return self.status in ("ok", "absent")


def fetched_root() -> Path:
    """The folder that downloaded data sets are unpacked into."""
    return cache_root() / "data"


def note_of(path: Path) -> Path:
    """The note of a fetched file's SHA-256, beside it."""
    return path.with_name(path.name + ".sha256")


def noted(path: Path) -> str | None:
    """The SHA-256 that a fetched file should have; None without a note."""
    note = note_of(path)
    return note.read_text().strip() if note.exists() else None


def _override() -> Path | None:
    """The folder in REPRO_DATA, if it is set."""
    folder = read_folder(ENVIRONMENT_VARIABLE)
    return folder.expanduser() if folder else None


def search_path(file: DataFile, root: Path | None = None) -> tuple[Path, ...]:
    """List the places where a file may lie, the first taking precedence.

    Args:
        file: The file.
        root: The only folder to look in; by default the folder in REPRO_DATA, if set, and then the embedded one, or
            that of downloads for a file that does not ship.
    """
    if root is not None:
        return (root / file.path,)
    override, own = _override(), EMBEDDED if file.ships else fetched_root()
    roots = (override, own) if override else (own,)
    return tuple(folder / file.path for folder in roots)


def check(file: DataFile, root: Path | None = None) -> FileStatus:
    """Say whether a file is there and has the right bytes; reads the whole file.

    Args:
        file: The file.
        root: The only folder to look in; by default the folder in REPRO_DATA, if set, and then the embedded one.
    """
    return _examine(file, root)[1]


def read_verified(file: DataFile, root: Path | None = None) -> bytes:
    """Read a file once and return its bytes if they are the right ones.

    A wrong file in REPRO_DATA is an error even where the embedded one is sound: whoever put it there wants it used.

    Args:
        file: The file.
        root: The only folder to look in; by default the folder in REPRO_DATA, if set, and then the embedded one.

    Returns:
        The bytes over which size and SHA-256 were verified.

    Raises:
        DataError: If the file is missing, cannot be read or has other bytes.
    """
    raw, found = _examine(file, root)
    if found.status != "ok":
        expected = f"; expected {file.size} bytes with sha256 {file.sha256}" if file.ships else ""
        raise DataError(
            f"data file {file.path} is {found.status}: {found.detail}{expected}; to get it: {file.how_to_get}"
        )
    return raw


def _examine(file: DataFile, root: Path | None) -> tuple[bytes, FileStatus]:
    """Read a file and judge the bytes read; the bytes mean something only if the status is `ok`."""
    override = _override()
    if root is None and override and not override.is_dir():
        return b"", FileStatus("missing", f"{ENVIRONMENT_VARIABLE} names {override}, which is no folder")
    for path in search_path(file, root):
        try:
            raw = path.read_bytes()
            break
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # something is there: a folder, or a file that may not be read
            return b"", FileStatus("corrupt", f"{path} cannot be read ({error.strerror})")
    else:
        status = "missing" if file.ships else "absent"
        return b"", FileStatus(status, f"not found as {' or '.join(map(str, search_path(file, root)))}")
    digest = hashlib.sha256(raw).hexdigest()
    if (len(raw), digest) != ((file.size, file.sha256) if file.ships else (len(raw), noted(path) or digest)):
        return raw, FileStatus("corrupt", f"found {len(raw)} bytes with sha256 {digest} in {path}")
    return raw, FileStatus("ok", str(path))
