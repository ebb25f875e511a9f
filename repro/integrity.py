"""Hashes of a run's files: run.json lists them, and a file that was changed, lost or added later is noticed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORD = "run.json"
"""The file that lists the hashes, and so cannot hold one of itself."""


def hash_files(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of every file below a run's folder, run.json and unfinished files left out.

    Args:
        folder: the run's folder.

    Returns:
        Hex digests by the files' names relative to the folder (posix, sorted).

    Raises:
        OSError: if a file cannot be read.
    """
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file() or path.is_symlink()}
    names = {name.as_posix(): path for name, path in paths.items() if _is_published(name)}
    return {name: hashlib.sha256(names[name].read_bytes()).hexdigest() for name in sorted(names)}


def _is_published(name: Path) -> bool:
    hidden = any(part.startswith(".") for part in name.parts)
    return not hidden and name.suffix != ".partial" and name.as_posix() != RECORD


def verify_files(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """Compare a run's files with the hashes in its record.

    Args:
        folder: the run's folder.
        record: the content of its run.json.

    Returns:
        One sentence per problem, sorted by the files' names; empty where every file is as it was recorded.
    """
    recorded = record.get("files")
    if not isinstance(recorded, Mapping):
        return [f"run.json (schema {record.get('schema', 1)}) lists no hashes"]
    try:
        present = hash_files(folder)
    except OSError as error:
        return [f"a file cannot be read ({error})"]
    return [
        _describe_problem(name, name in present, name in recorded)
        for name in sorted({*present, *map(str, recorded)})
        if present.get(name) != recorded.get(name)
    ]


def _describe_problem(name: str, present: bool, recorded: bool) -> str:
    if not present:
        return f"{name} is missing"
    return f"{name} was changed after the run" if recorded else f"{name} is not listed in run.json"
