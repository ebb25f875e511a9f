"""What can be compared: the figures of benchmark files and of runs, recognised by their content and read alike."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from repro.errors import Failure
from repro.results import COST_METRICS, SCHEMAS, Row, read_rows

Kind = Literal["status", "time", "count", "error", "metric"]
"""How a figure is judged; `time` is all that depends on the machine, a run's memory included."""

COUNT = re.compile(r"(nfe|n)_\w+|(saved_bytes|flops)(_\w+)?")
ERROR = re.compile(r"(?!seconds_)(\w+_)?error(_\w+)?")
"""The rule for a benchmark's `extra_info`: a name that is wholly one of these is a count, or, if its value is a float,
an error. Nothing else is compared: ratios, second medians and first calls repeat the times or were taken once, as was
a time whose `timing` is "cold"; an entry of 0 s had none."""


class CompareError(Failure, ValueError):
    """Something that can't be compared; the message names the file."""


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        kind: How it is judged.
        value: A number, or a word where there is none: a status, or the "n/a" of what was not counted.
        unit: Its unit, "s" for seconds.
        low: The lower quartile where a time was taken repeatedly, else None.
        high: The upper quartile, likewise.
    """

    kind: Kind
    value: float | int | str
    unit: str = ""
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Entry:
    """One benchmark or one run.

    Attributes:
        names: What it may be called, the shortest first; a longer one tells it from others of the same shorter name.
        place: The file or folder it was read from.
        machine: What its times depend on, by name; None where a machine has none or it was not recorded.
        digest: Of a run's settings, empty for a benchmark.
        figures: By name.
    """

    names: tuple[str, ...]
    place: Path
    machine: Mapping[str, Any]
    digest: str
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class Measured:
    """All that was found at a path; `noun` is "benchmark" or "run", `single` that the path is one run's folder."""

    noun: str
    single: bool
    entries: list[Entry]


def load_pair(a: Path, b: Path) -> tuple[Measured, Measured]:
    """Read two files or folders that hold the same kind of thing.

    Raises:
        CompareError: If one is missing, damaged or of another schema, or if not exactly one kind is in both.
        OSError: If a file can't be read.
    """
    first, second = _find(a), _find(b)
    shared = [noun for noun in first if noun in second]
    if len(shared) != 1:
        advice = "name the files or folders that you mean" if shared else "they can't be compared"
        raise CompareError(f"{a} holds {'s and '.join(first)}s, {b} holds {'s and '.join(second)}s: {advice}")
    return _read(a, shared[0], first), _read(b, shared[0], second)


Found = dict[str, dict[Path, dict[str, Any]]]  # by noun: content of each benchmark file, or of each run's run.json


def _find(path: Path) -> Found:
    if not path.exists():
        raise CompareError(f"{path} does not exist")
    if path.is_file():
        content = _json(path)
        if not _has_benchmarks(content):
            raise CompareError(f'{path} is no benchmark file: it has no list "benchmarks"')
        return {"benchmark": {path: content}}
    if (path / "run.json").exists():
        return {"run": {path: _record(path / "run.json")}}
    runs = {file.parent: _record(file) for file in _below(path) if file.name == "run.json"}
    others = [file for file in _below(path) if runs.keys().isdisjoint(file.parents)]
    benchmarks = {file: content for file in others if _has_benchmarks(content := _json(file))}
    if not (benchmarks or runs):
        raise CompareError(f"{path} holds neither benchmark files nor runs")
    return {noun: found for noun, found in (("benchmark", benchmarks), ("run", runs)) if found}


def _below(folder: Path) -> Iterator[Path]:
    """The JSON files below a folder, but not in what a killed run left half-moved (dotted)."""
    for path in sorted(folder.rglob("*.json")):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _json(path: Path) -> Any:  # noqa: ANN401 (whatever the file holds)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CompareError(f"{path} is no readable JSON: {error}") from None


def _record(path: Path) -> dict[str, Any]:
    content = _json(path)
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema not in SCHEMAS:
        readable = " and ".join(map(str, SCHEMAS))
        raise CompareError(f"{path} has schema {schema}; this version reads {readable}")
    return content


def _has_benchmarks(content: object) -> bool:
    return isinstance(content, dict) and isinstance(content.get("benchmarks"), list)


def _read(root: Path, noun: str, found: Found) -> Measured:
    entries: list[Entry] = []
    for path, content in found[noun].items():
        try:
            entries += [_run(path, content)] if noun == "run" else _benchmarks(path, root, content)
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # as a file made by hand gives
            raise CompareError(f"{path} is not as a {noun} is written: {error!r}") from None
    return Measured(noun, noun == "run" and root in found[noun], entries)


# --- benchmarks ------------------------------------------------------------------------------------------------------


def _benchmarks(path: Path, root: Path, content: dict[str, Any]) -> Iterator[Entry]:
    machine = _benchmark_machine(content.get("machine_info") or {})
    file = path.relative_to(root).as_posix() if path != root else path.name
    for benchmark in content["benchmarks"]:
        name, extra = benchmark["fullname"], benchmark.get("extra_info") or {}
        here = {**machine, "threads": extra.get("threads", machine["threads"])}  # a benchmark may set its own
        names = (name, f"{name} on {machine['machine']}", f"{name} in {file}")
        yield Entry(names, path, here, "", _benchmark_figures(extra, benchmark["stats"]))


def _benchmark_machine(info: Mapping[str, Any]) -> dict[str, Any]:
    suite, cpu = info.get("suite") or {}, info.get("cpu") or {}
    # one brand name, such as "AMD EPYC", covers processors of very different speed
    facts = [suite.get("cpu") or cpu.get("brand_raw"), *(f"{k} {cpu[k]}" for k in ("family", "model") if k in cpu)]
    known = {key: suite.get(key) for key in ("machine", "gpu", "threads")}
    return {**known, "cpu": ", ".join(filter(None, facts)) or None}


def _benchmark_figures(extra: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    if "status" in extra:
        figures["status"] = Figure("status", str(extra["status"]))
    timed = extra.get("timing") != "cold" and float(stats["median"]) > 0
    if timed and extra.get("status", "ok") == "ok":  # else the seconds are those until it was known not to work
        figures["median time"] = Figure("time", float(stats["median"]), "s", float(stats["q1"]), float(stats["q3"]))
    for name, value in extra.items():
        if COUNT.fullmatch(name):
            figures[name] = Figure("count", value if isinstance(value, (int, float)) else str(value))
        elif ERROR.fullmatch(name) and isinstance(value, float):
            figures[name] = Figure("error", value)
    return figures


# --- runs ------------------------------------------------------------------------------------------------------------


def _run(folder: Path, info: dict[str, Any]) -> Entry:
    name = f"{info['experiment']} {info['cell']} {info['tier']} seed {info['seed']}"
    digest = str(info["digest"])
    machine = {key: info.get(key) for key in ("machine", "cpu", "gpu", "threads")}
    final = {row.metric: row for row in read_rows(folder / "rows.csv") if row.step is None}
    status = {"status": Figure("status", str(info["status"]))}
    names = (name, f"{name} ({digest})", f"{name} ({digest}) on {machine['machine']}")
    return Entry(names, folder, machine, digest, status | dict(_run_figures(final)))


def _run_figures(final: Mapping[str, Row]) -> Iterator[tuple[str, Figure]]:
    for name, row in final.items():
        base, _, end = name.rpartition("_")
        if name not in COST_METRICS:
            yield name, Figure("metric", row.value, row.unit)
        elif end not in ("low", "high") or base not in final:  # those are the quartiles of the time itself
            quartiles = [final.get(f"{name}_{side}") for side in ("low", "high")]
            yield name, Figure("time", row.value, row.unit, *(other and other.value for other in quartiles))
