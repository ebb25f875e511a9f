"""What the published benchmarks say: one reader of pytest-benchmark's files for all tables made from them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.experiment import Judgement


@dataclass(frozen=True)
class MeasuredClaim:
    """A sentence of a paper that a benchmark judges, with what it says of it."""

    id: str
    statement: str
    source: str
    judgement: Judgement


def entries(folder: Path, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read results/benchmarks/: machine and entry of every benchmark whose `extra_info` has a key."""
    for path in sorted(folder.glob("*/*.json")):
        for benchmark in json.loads(path.read_text())["benchmarks"]:
            if key in benchmark["extra_info"]:
                yield path.parent.name, benchmark
