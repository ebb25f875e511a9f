"""Audits published records: every file is the one that the run wrote, every digest that of the recorded settings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.experiment import compute_digest
from repro.integrity import verify_files
from repro.results import read_record, read_runs


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a run: its folder below the runs' root, and a sentence."""

    run: str
    problem: str


@dataclass(frozen=True)
class Findings:
    """All that `report --check` looks at; three empty lists are what it wants.

    Attributes:
        stale: generated files that are not what the runs give, relative to the folder around results/.
        unbound: runs whose files are not those that their record lists, or whose record lists none.
        digests: runs whose record, digest and folder's name contradict one another.
    """

    stale: list[str]
    unbound: list[Problem]
    digests: list[Problem]

    @property
    def fatal(self) -> bool:
        """Tell that the check fails: the one place that decides it."""
        return bool(self.stale or self.digests or self.unbound)


def audit_runs(root: Path) -> tuple[list[Problem], list[Problem]]:
    """Verify every run below a root, those that no table takes included.

    Args:
        root: results/runs.

    Returns:
        Problems of files and problems of digests and names, in the folders' order.
    """
    unbound: list[Problem] = []
    digests: list[Problem] = []
    for folder in sorted(path for path in root.glob("*/*/*/*") if path.is_dir() and not path.name.startswith(".")):
        run = folder.relative_to(root).as_posix()
        record = read_record(folder)
        if record is None:
            unbound.append(Problem(run, "run.json is missing or cannot be read"))
            continue
        unbound += [Problem(run, sentence) for sentence in verify_files(folder, record)]
        digests += [Problem(run, sentence) for sentence in _check_names(folder.relative_to(root), record)]
    return unbound, digests


def find_changed_runs(root: Path) -> dict[str, str]:
    """Find the runs that contradict their records, whatever a table would say of them.

    Runs of schema 1 list no hashes: of those, digest, settings and names are compared alone.

    Args:
        root: results/runs or results/local.

    Returns:
        The first problem of each such run, by its folder below the root.
    """
    problems: dict[str, str] = {}
    for folder, record in read_runs(root):
        files = verify_files(folder, record) if "files" in record else []
        names = _check_names(folder.relative_to(root), record) if "config" in record else ()
        for sentence in (*files, *names):
            problems.setdefault(folder.relative_to(root).as_posix(), sentence)
    return problems


def _check_names(folder: Path, record: Mapping[str, Any]) -> Iterator[str]:
    """Compare digest, settings, seed and machine of a record with one another and with the names of its folder."""
    config, digest = record.get("config"), record["digest"]
    if isinstance(config, dict):
        computed = compute_digest(config, record.get("version", 1))
        if computed != digest:
            yield f"the recorded settings and version have the digest {computed}, not {digest}"
        if config.get("seed") != record["seed"]:
            yield f"the recorded settings have the seed {config.get('seed')}, not {record['seed']}"
    else:
        yield "run.json holds no settings"
    last = (record.get("resumed") or [record])[-1]  # a run that moved to another machine lies where it ended
    machine = last.get("machine", record["machine"])
    expected = Path(record["experiment"], f"{record['cell']}-{digest}", f"{machine}-seed{record['seed']}")
    if folder != expected:
        yield f"run.json is that of {expected.as_posix()}"
