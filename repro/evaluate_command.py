"""The command that recomputes published numbers from their weights, and compares them at tolerances near rounding."""

import argparse
import fnmatch
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from repro.errors import Failure, describe_failure
from repro.options import EXIT_FAILED, add_device_option, add_jobs_option, pick_device

if TYPE_CHECKING:
    from repro.results import Row

HELP = "recompute final numbers from their weights and compare them with the record"


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Largest distance of a recomputed number from its record: the larger of the bounds, or a factor up or down.

    Attributes:
        absolute: in the number's unit.
        relative: to the recorded number.
        images: misclassified images, for a number in percent of the test images.
        factor: for errors that are made of rounding; nothing else counts then.
    """

    absolute: float = 0.0
    relative: float = 0.0
    images: int = 0
    factor: float | None = None

    def bound(self, published: float, recomputed: float, test_images: float) -> float:
        """Compute the largest difference that is allowed in the direction of the recomputed number."""
        if self.factor is not None:
            return published * (self.factor - 1 if recomputed > published else 1 - 1 / self.factor)
        percent = 100 * self.images / test_images if self.images else 0.0
        return max(self.absolute, self.relative * abs(published), percent)


EXACT = Tolerance()
UNIT_TOLERANCES: Mapping[str, Tolerance] = {
    "nats": Tolerance(absolute=1e-4),
    "bits/dim": Tolerance(absolute=1e-4),
    "images": Tolerance(absolute=2.0),
    "%": Tolerance(images=2),
    # rounding decides whether a step is rejected; a rejected step of dopri5 and the smaller one after it cost 12
    "evaluations": Tolerance(relative=0.02, absolute=12.0),
    "probability": Tolerance(absolute=1e-5),
}
"""By a unit's first word, without its comma; what is not listed must be equal."""
METRIC_TOLERANCES: Mapping[str, Tolerance] = {
    "test_images": EXACT,
    "rmse": Tolerance(relative=1e-5),
    "reversibility_error": Tolerance(factor=10.0),
    "reconstruction_error": Tolerance(factor=10.0),
    "reconstruction_error_p99": Tolerance(factor=10.0),
}
"""By metric, where the unit does not decide."""


def tolerance_of(row: "Row") -> Tolerance:
    """Find the tolerance of a final row, by its metric or else by its unit."""
    unit = row.unit.replace(",", " ").split(" ")[0]
    return METRIC_TOLERANCES.get(row.metric, UNIT_TOLERANCES.get(unit, EXACT))


class Subset(NamedTuple):
    """Part of an experiment that takes seconds: main cells by pattern, recomputed up to one metric."""

    cells: tuple[str, ...]
    last_metric: str


CHEAP: Mapping[str, Subset] = {
    "neural_ode/table1_mnist": Subset(("mlp", "resnet"), "test_nll"),
    "neural_ode/fig4_nf_vs_cnf": Subset(("*",), "nfe_test"),
    "neural_ode/fig5_noise_to_data": Subset(("*",), "test_nll_error"),
    "ffjord/fig1_density1d": Subset(("*",), "test_nll_error"),
    "ffjord/fig2_toy2d": Subset(("*",), "test_nll_error"),
    "ffjord/table2_tabular": Subset(("power_fm",), "tolerance_nll"),
}
"""Recomputed by --cheap, with the first seed of each main cell: about 45 s of one core."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A published number beside the recomputed one."""

    run: str
    metric: str
    published: float
    recomputed: float
    difference: float
    tolerance: float
    ok: bool


def compare_rows(run: str, recorded: "Mapping[str, Row]", rows: "Sequence[Row]") -> list[Comparison]:
    """Compare recomputed rows with the recorded ones of the same metrics; what was not recorded is left out."""
    test_images = float(recorded["test_images"].value) if "test_images" in recorded else math.nan
    return [
        _compare(run, row, float(recorded[row.metric].value), test_images) for row in rows if row.metric in recorded
    ]


def _compare(run: str, row: "Row", published: float, test_images: float) -> Comparison:
    recomputed = float(row.value)
    difference = recomputed - published
    bound = tolerance_of(row).bound(published, recomputed, test_images)
    same = recomputed == published or (math.isnan(recomputed) and math.isnan(published))
    # the difference of two percentages is rounded: what lies on the bound up to that is within it
    near = math.isfinite(difference) and abs(difference) <= bound * (1 + 1e-9)
    return Comparison(
        run=run, metric=row.metric, published=published, recomputed=recomputed, difference=difference,
        tolerance=bound, ok=same or near,
    )  # fmt: skip


def register(verbs: Any) -> None:  # noqa: ANN401 (argparse's subparsers have no public type)
    """Add the verb to the command line."""
    parser = verbs.add_parser("evaluate", help=HELP)
    parser.add_argument("run", nargs="?", type=Path, help="a run's folder, with model.safetensors in it")
    parser.add_argument("--all", action="store_true", help="every published run that has weights")
    parser.add_argument("--cheap", action="store_true", help="with --all: what takes seconds, the first seed of a cell")
    parser.add_argument("--json", action="store_true", help="print JSON; numbers that are not finite become null")
    add_jobs_option(parser, "processes, each of one thread (default: 1)")
    add_device_option(parser)
    parser.set_defaults(function=evaluate, parser=parser)


def evaluate(options: argparse.Namespace) -> int:
    """Recompute final numbers from weights and say whether they agree with the record."""
    if options.all == (options.run is not None):
        options.parser.error("give either one run's folder or --all")
    if options.cheap and not options.all:
        options.parser.error("--cheap needs --all")
    return _evaluate_all(options) if options.all else _evaluate_run(options)


def _evaluate_run(options: argparse.Namespace) -> int:
    from repro.loading import read_run
    from repro.ode import SolveError

    device = pick_device(options.device)
    run = read_run(options.run)
    try:
        with _workspace() as workspace:
            rows = list(run.evaluate(device, workspace))
    except SolveError as error:
        raise Failure(f"{_name(options.run)}: the flow of these weights cannot be solved: {error}") from None
    comparisons = compare_rows(_name(options.run), run.final, rows)
    if options.json:
        _print_json(comparisons)
    else:
        for row in rows:
            recorded = f"{run.final[row.metric].value:<16.10g}" if row.metric in run.final else f"{'-':<16}"
            print(f"{row.metric:<24} {row.value:<16.10g} recorded {recorded} {row.unit}")
        differ = [comparison.metric for comparison in comparisons if not comparison.ok]
        print("agrees with the record" if not differ else f"differs from the record: {', '.join(differ)}")
    return 0 if all(comparison.ok for comparison in comparisons) else EXIT_FAILED


def _evaluate_all(options: argparse.Namespace) -> int:
    folders = published_folders(cheap=options.cheap)
    if not folders:
        raise Failure("no published run has weights to evaluate")
    device = pick_device(options.device)
    comparisons, failures = list[Comparison](), 0
    for folder, result in map_runs(partial(_recompute, cheap=options.cheap, device=device.type), folders, options.jobs):
        if isinstance(result, str):
            failures += 1
            print(f"error: {result}", file=sys.stderr)
            continue
        comparisons += result
        differ = [comparison for comparison in result if not comparison.ok]
        print(f"{_name(folder)}: {len(result) - len(differ)} of {len(result)} numbers agree", file=sys.stderr)
        if not options.json:
            for each in differ:
                print(f"{each.run} {each.metric}: {each.recomputed:.10g}, published {each.published:.10g}, "
                      f"tolerance {each.tolerance:.2g}")  # fmt: skip
    if options.json:
        _print_json(comparisons)
    agreeing = sum(comparison.ok for comparison in comparisons)
    if not options.json:
        print(f"{agreeing} of {len(comparisons)} published numbers of {len(folders)} runs agree with their weights")
    return EXIT_FAILED if failures or agreeing < len(comparisons) else 0


def published_folders(*, cheap: bool) -> list[Path]:
    """List the folders of published runs that have weights, in the order of their names.

    Args:
        cheap: only the first seed of each cell of `CHEAP`.
    """
    from repro.loading import WEIGHTS
    from repro.papers import EXPERIMENTS
    from repro.results import results_root, run_folders

    root = results_root() / "runs"
    folders = [folder for folder in run_folders(root) if (folder / WEIGHTS).exists()]
    if not cheap:
        return folders
    cells = {
        f"{name}/{cell}"
        for name, subset in CHEAP.items()
        for pattern in subset.cells
        for cell in fnmatch.filter(EXPERIMENTS[name].chosen(None, "small"), pattern)
    }
    first: dict[str, Path] = {}
    for folder in sorted(folders, key=_seed_of):
        cell = folder.relative_to(root).parent.as_posix().rpartition("-")[0]  # without the digest
        if cell in cells:
            first.setdefault(cell, folder)
    return sorted(first.values())


def _seed_of(folder: Path) -> tuple[int, Path]:
    return int(folder.name.rpartition("-seed")[2]), folder


def _recompute(folder: Path, *, cheap: bool, device: str) -> list[Comparison] | str:
    """Recompute a run's numbers; give an error as its sentence."""
    from repro.loading import read_run
    from repro.ode import SolveError

    rows = list["Row"]()
    try:
        run = read_run(folder)
        last = CHEAP[run.record["experiment"]].last_metric if cheap else None
        with _workspace() as workspace:
            for row in run.evaluate(pick_device(device), workspace):
                rows.append(row)
                if row.metric == last:
                    break
    except SolveError as error:
        return f"{_name(folder)}: the flow of these weights cannot be solved: {error}"
    except Exception as error:
        line = describe_failure(error)
        if line is None:
            raise
        return f"{_name(folder)}: {line}"
    return (
        compare_rows(_name(folder), run.final, rows) or f"{_name(folder)}: none of the recomputed numbers is recorded"
    )


@contextmanager
def _workspace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="repro-evaluate-") as folder:
        yield Path(folder)


def map_runs(function: Callable[[Path], Any], folders: Sequence[Path], jobs: int) -> Iterator[tuple[Path, Any]]:
    """Call a function on every run's folder, one thread each, in this process or in several; results in order.

    Args:
        function: picklable where there are several processes.
        folders: of the runs.
        jobs: processes.
    """
    import torch

    if jobs == 1:
        torch.set_num_threads(1)
        yield from ((folder, function(folder)) for folder in folders)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        yield from zip(folders, pool.map(function, folders), strict=True)


def _name(folder: Path) -> str:
    from repro.results import results_root

    root = results_root() / "runs"
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else os.path.relpath(folder)


def _print_json(comparisons: Sequence[Comparison]) -> None:
    lines = [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value
         for name, value in asdict(comparison).items()}
        for comparison in comparisons
    ]  # fmt: skip
    print(json.dumps(lines, indent=1))
