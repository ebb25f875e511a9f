"""The list of generated files: a report deletes what an earlier one made, and nothing of anybody else's."""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

NAME = ".generated.json"
"""The list's name in the folder that holds tables/, figures/ and report/."""
FOLDERS = ("tables", "figures", "pages", "report")
"""Folders whose generated files come and go; files elsewhere are never deleted."""


def read_list(target: Path) -> list[Path]:
    """Read which files the report before made.

    Args:
        target: results/ or results/local/.

    Returns:
        Their paths, sorted; none where there is no list or a damaged one. A name that leads out of the folders of
        generated files, as an edited list may hold, is left out.
    """
    try:
        names = json.loads((target / NAME).read_text(encoding="utf-8"))["files"]
        return [target / name for name in sorted(names) if _is_deletable(PurePosixPath(name))]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _is_deletable(name: PurePosixPath) -> bool:
    return len(name.parts) == 2 and name.parts[0] in FOLDERS and name.name != ".."


def encode_list(target: Path, paths: Iterable[Path]) -> bytes:
    """Encode the list of generated files: names relative to the target, sorted, a line each.

    Args:
        target: results/ or results/local/.
        paths: of the generated files; those outside of the target, as README.md, are left out.
    """
    names = sorted(path.relative_to(target).as_posix() for path in paths if target in path.parents)
    return (json.dumps({"files": names}, indent=1) + "\n").encode()
