"""Download the tabular sets that do not ship: one archive, checked by its MD5, unpacked file by file.

A killed download or extraction leaves nothing that a loader would take: the archive gets its name after its MD5 was
compared, each file its own after the last byte is on the disk, and the note of its SHA-256 is there before.
"""

import hashlib
import os
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from repro.checks import check_name
from repro.data.files import DataError, fetched_root, note_of, noted
from repro.durability import PARTIAL, wait_for_lock

BLOCK = 2**20
ARCHIVE_NAME = re.compile(r"[0-9a-f]{32}\.tar\.gz")


@dataclass(frozen=True)
class Archive:
    """A tar file on the network.

    Attributes:
        url: where it is.
        md5: of the whole file. Its publisher gives no SHA-256, and nobody here has had the file to compute one; MD5
            guards against damage, not against somebody who makes another file of the same MD5. So what is unpacked is
            read without trust: no pickle of it runs code.
    """

    url: str
    md5: str


ZENODO = Archive("https://zenodo.org/records/1161203/files/data.tar.gz", "9b9c9b0375315ad270eba4ce80c093ab")
"""MAF's preprocessed data."""

MEMBERS: dict[str, tuple[str, ...]] = {
    "gas": ("data/gas/ethylene_CO.pickle",),
    "hepmass": ("data/hepmass/1000_train.csv", "data/hepmass/1000_test.csv"),
    "miniboone": ("data/miniboone/data.npy",),
    "bsds300": ("data/BSDS300/BSDS300.hdf5",),
}
"""Files of each data set in the archive."""


def fetch(name: str, archive: Archive = ZENODO, *, progress: bool = True) -> list[Path]:
    """Download and unpack a data set; a file that is there already is left alone if it is as it was unpacked.

    Args:
        name: one of `MEMBERS`.
        archive: where from.
        progress: whether to show a bar.

    Returns:
        The files of the set.

    Raises:
        ValueError: No such set can be fetched; the message names those that can.
        DataError: The archive can't be had, is another one, or lacks a file.
    """
    check_name("name", name, MEMBERS)
    targets = {member: fetched_root() / name / Path(member).name for member in MEMBERS[name]}
    with wait_for_lock(fetched_root().with_name("data.lock")):
        _delete_leftovers(targets.values())
        wanted = {member: path for member, path in targets.items() if not _sound(path)}
        if wanted:
            _unpack(_downloaded(archive, progress), wanted)
    return list(targets.values())


def _archives() -> Path:
    return fetched_root() / "archives"


def _delete_leftovers(targets: Iterable[Path]) -> None:
    """Delete what a killed fetch left: nobody else downloads or unpacks while the lock is held."""
    for target in targets:
        target.with_name(target.name + PARTIAL).unlink(missing_ok=True)
    for path in _archives().glob("*"):
        if ARCHIVE_NAME.fullmatch(path.name) is None and path.is_file():
            path.unlink()


def _sound(path: Path) -> bool:
    """Whether a file is there, with the bytes that its note says."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == noted(path)


def _downloaded(archive: Archive, progress: bool) -> Path:
    import pooch

    name = f"{archive.md5}.tar.gz"
    try:
        path = pooch.retrieve(archive.url, f"md5:{archive.md5}", fname=name, path=_archives(), progressbar=progress)
    except (OSError, ValueError) as error:  # no network, or another MD5
        reason = str(error).splitlines()[0]
        raise DataError(f"can't download {archive.url} ({reason})") from error
    return Path(path)


def _unpack(path: Path, wanted: dict[str, Path]) -> None:
    """Take the wanted members out of an archive in one pass."""
    missing = dict(wanted)
    try:
        with tarfile.open(path, "r:*") as archive:
            for entry in archive:
                target = missing.pop(entry.name.removeprefix("./"), None)
                if target is not None:
                    _write(_open_member(archive, entry, path), target)
                if not missing:
                    return
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} can't be read as a tar archive ({error})") from error
    raise DataError(f"{path} has no {', '.join(missing)}")


def _open_member(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> tarfile.ExFileObject:
    """Open a member of an archive.

    Raises:
        DataError: It is no file: links, pipes and folders have no place in a data set.
    """
    content = archive.extractfile(entry) if entry.isreg() else None
    if not isinstance(content, tarfile.ExFileObject):
        raise DataError(f"{path}: its member {entry.name} must be a file; it is {_describe_kind(entry)}")
    return content


def _describe_kind(entry: tarfile.TarInfo) -> str:
    if entry.issym() or entry.islnk():
        return f"a link to {entry.linkname}"
    return "a folder" if entry.isdir() else "a pipe" if entry.isfifo() else f"of type {entry.type!r}"


def _write(content: tarfile.ExFileObject, target: Path) -> None:
    """Copy a member to its place: beside it first, its SHA-256 noted, then renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, digest = target.with_name(target.name + PARTIAL), hashlib.sha256()
    try:
        with partial.open("wb") as file:
            while block := content.read(BLOCK):
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        note_of(target).write_text(digest.hexdigest() + "\n")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
