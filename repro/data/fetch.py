"""Download the tabular sets that do not ship: one archive, checked by its MD5, unpacked file by file.

A killed download or extraction leaves nothing that a loader would take: the archive gets its name after its MD5 was
compared, each file its own after the last byte is on the disk, and the note of its SHA-256 is there before.
"""

import hashlib
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

from repro.checks import check_name
from repro.data.files import DataError, fetched_root, note_of, noted

BLOCK = 2**20


@dataclass(frozen=True)
class Archive:
    """A tar file on the network.

    Attributes:
        url: where it is.
        md5: of the whole file; its publisher gives no SHA-256.
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
    wanted = {member: path for member, path in targets.items() if not _sound(path)}
    if wanted:
        _unpack(_downloaded(archive, progress), wanted)
    return list(targets.values())


def _sound(path: Path) -> bool:
    """Whether a file is there, with the bytes that its note says."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == noted(path)


def _downloaded(archive: Archive, progress: bool) -> Path:
    import pooch

    folder = fetched_root() / "archives"
    try:
        path = pooch.retrieve(
            archive.url, f"md5:{archive.md5}", fname=f"{archive.md5}.tar.gz", path=folder, progressbar=progress
        )
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
                content = archive.extractfile(entry) if target is not None else None
                if target is not None and isinstance(content, tarfile.ExFileObject):
                    _write(content, target)
                if not missing:
                    return
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} can't be read as a tar archive ({error})") from error
    raise DataError(f"{path} has no {', '.join(missing)}")


def _write(content: tarfile.ExFileObject, target: Path) -> None:
    """Copy a member to its place: beside it first, its SHA-256 noted, then renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, digest = target.with_name(target.name + ".partial"), hashlib.sha256()
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
