"""The commands list, report, data and doctor."""

import argparse
import dataclasses
import json
import os
import platform
import shutil
import sys
from typing import Any

from repro.errors import Failure, UsageError
from repro.options import EXIT_FAILED, pick_device, suggest


def show_list(options: argparse.Namespace) -> int:
    """Print every experiment and cell, and the runs that there are of it."""
    from repro.papers import EXPERIMENTS
    from repro.report.build import valid_runs
    from repro.results import load, results_root

    everything = load(results_root() / "runs", results_root() / "local")
    runs, others = valid_runs(everything), everything["run"].nunique()
    for name, experiment in EXPERIMENTS.items():
        print(f"{name}  ({experiment.artefact})")
        of_experiment = runs[runs["experiment"] == name]
        for cell in experiment.cells:
            print(f"  {cell:<20} {runs_in_words(of_experiment[of_experiment['cell'] == cell])}")
    if others := others - runs["run"].nunique():
        print(f"and {others} runs with settings of their own")
    return 0


def runs_in_words(runs: Any) -> str:  # noqa: ANN401 (a pandas frame; pandas is imported late)
    """How many runs there are and how they ended, by tier and place; a dash where there is none."""
    counts = runs.groupby(["source", "tier", "status"])["run"].nunique()
    where = {"runs": "published", "local": "local"}
    words = [f"{count} {status} {tier} ({where[source]})" for (source, tier, status), count in counts.items()]
    return ", ".join(words) or "-"


def report(options: argparse.Namespace) -> int:
    """Rebuild tables, figures and the README's generated part; with --check only say what differs."""
    from repro.report import build
    from repro.results import results_root

    if options.check:
        return _check_report(options)
    if options.json:
        raise UsageError("--json needs --check")
    for path in build(results_root(), local=options.local, write=True):
        print(f"wrote: {os.path.relpath(path)}")
    _print_places(options)
    return 0


def _print_places(options: argparse.Namespace) -> None:
    from repro.results import results_root

    folder = os.path.relpath(results_root() / "local" if options.local else results_root())
    print(f"look at: {folder}/report/index.html  tables: {folder}/tables  figures: {folder}/figures")


def _check_report(options: argparse.Namespace) -> int:
    """Print what is stale, unbound or contradictory, as JSON or a line each; nothing is written."""
    from repro.report import build, pages
    from repro.report.audit import Findings, audit_runs
    from repro.results import results_root

    changed = build(results_root(), local=options.local, write=False)
    unbound, digests = ([], []) if options.local else audit_runs(results_root() / "runs")
    findings = Findings([os.path.relpath(path) for path in changed], unbound, digests)
    if options.json:
        print(json.dumps(dataclasses.asdict(findings), indent=2))
    else:
        for path in findings.stale:
            print(f"differs: {path}")
        for each in [*findings.unbound, *findings.digests]:
            print(f"{each.run}: {each.problem}")
    if not findings.fatal:
        if not options.json:
            _print_places(options)
        return 0
    readme = results_root().parent / "README.md"
    if readme in changed and (marker := pages.find_missing_marker(readme.read_text(encoding="utf-8"))):
        print(f"error: {os.path.relpath(readme)} lacks the marker {marker}: put it back", file=sys.stderr)
    elif findings.stale:
        print("generated files are not up to date: run `make report`", file=sys.stderr)
    if findings.unbound or findings.digests:
        print("published runs are not as they were recorded: restore or repeat them", file=sys.stderr)
    return EXIT_FAILED


def data(options: argparse.Namespace) -> int:
    """Print every data file as ok, missing, absent (it does not ship) or corrupt; or fetch a data set."""
    from repro.data import check_all

    if options.action == "fetch":
        return _fetch(options.name)
    bad = 0
    for dataset, file, status in check_all():
        size = "" if file.size is None else f"{file.size:,}"
        print(f"{status.status:<8} {dataset:<18} {file.path:<46} {size:>12} bytes  {status.detail}")
        bad += not status.sound
    return EXIT_FAILED if bad else 0


def _fetch(name: str | None) -> int:
    from repro.data import DATASETS
    from repro.data.fetch import MEMBERS, fetch

    if name in DATASETS and all(file.ships for file in DATASETS[name].files):
        raise Failure(f"data fetch: {name} ships with the package, there is nothing to fetch")
    if name not in MEMBERS:
        raise UsageError(
            f"data fetch: {suggest(name or '', MEMBERS)}name must be one of: {', '.join(MEMBERS)}; got {name!r}"
        )
    for path in fetch(name):
        print(path)
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Print what this machine is and what a run here could stumble over."""
    import torch

    from repro.cache import cache_root
    from repro.data import check_all
    from repro.ode.kernels import library
    from repro.provenance import machine_slug, provenance
    from repro.results import results_root

    device = pick_device("auto")
    facts = provenance(device)
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in facts["versions"].items())
    bad_data = [file.path for _, file, status in check_all() if not status.sound]
    built, kernels = library()
    results, cache = results_root(), cache_root()
    cache.mkdir(parents=True, exist_ok=True)
    existing = next(folder for folder in (results, *results.parents) if folder.exists())
    writable = os.access(existing, os.W_OK)
    checks = [
        ("machine", f"{machine_slug(device)} ({platform.system()}, {torch.get_num_threads()} torch threads)", True),
        ("gpu", f"{facts['gpu']}; {_graphs()}" if facts["gpu"] else "none; everything runs on the CPU", True),
        ("versions", versions, all(facts["versions"].values())),
        ("commit", f"{facts['commit'] or 'not a git checkout'}{' + changes' if facts['dirty'] else ''}", True),
        ("kernels", kernels if built else f"none, steps are eager: {kernels}", True),
        ("data", "what ships is ok" if not bad_data else f"missing or corrupt: {', '.join(bad_data)}", not bad_data),
        ("results", f"{os.path.relpath(results)} {'writable' if writable else 'not writable'}", writable),
        ("disk", f"{shutil.disk_usage(cache).free / 2**30:.1f} GiB free for checkpoints",
         shutil.disk_usage(cache).free > 2**30),
    ]  # fmt: skip
    for name, text, good in checks:
        print(f"{'ok ' if good else 'BAD'} {name:<9} {text}")
    return 0 if all(good for _, _, good in checks) else EXIT_FAILED


def _graphs() -> str:
    from repro.ode.kernels.advances import WANTED, graphs_wanted

    return "compiled steps are CUDA graphs" if graphs_wanted() else f"CUDA graphs are switched off by {WANTED}=0"
