"""Run benchmarks: `python -m benchmarks [SUBSET …] [--quick] [--device auto|cpu|cuda]`.

Each subset, a file bench_SUBSET.py, runs in a process of its own and leaves results/benchmarks/MACHINE/SUBSET.json in
pytest-benchmark's format; the tables and figures are drawn anew at the end. A quick pass is for this machine alone and
goes to results/local/benchmarks/. Exit codes: 0 done, 1 a benchmark failed or there is no such device, 2 wrong usage.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SUBSETS = tuple(sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py")))
OPTIONAL = ("peers",)
"""Subsets that need libraries of their own, and run when they are named."""
QUICK = ("memory", "nfe", "gradients", "solvers", "divergence")
"""Subsets that have a quick pass."""


def main(arguments=None):
    """Run the subsets one after another; one that fails does not end the others."""
    options = _options(arguments)
    from repro.errors import Failure
    from repro.options import pick_device
    from repro.provenance import machine_slug
    from repro.results import results_root

    try:
        device = pick_device(options.device)
    except Failure as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    root = results_root() / "local" if options.quick else results_root()
    folder = root / "benchmarks" / machine_slug(device)
    environment = {**os.environ, "REPRO_BENCH_DEVICE": device.type, "REPRO_BENCH_QUICK": "1" if options.quick else "0"}
    failed = [name for name in options.subsets if not _run(name, folder / f"{name}.json", environment)]
    drawn = subprocess.run(
        [sys.executable, "-m", "repro", "report", *(["--local"] if options.quick else [])], check=False
    )
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed or drawn.returncode else 0


def _options(arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("subsets", nargs="*", metavar="SUBSET", help=f"some of: {', '.join(SUBSETS)}")
    parser.add_argument("--quick", action="store_true", help="a pass of under 3 minutes, for this machine alone")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args(arguments)
    able = QUICK if options.quick else SUBSETS
    if unknown := [name for name in options.subsets if name not in able]:
        what = "no quick pass of" if options.quick else "no subset"
        parser.error(f"there is {what} {', '.join(map(repr, unknown))}; there are: {', '.join(able)}")
    options.subsets = options.subsets or [name for name in able if name not in OPTIONAL]
    return options


def _run(name, target, environment):
    """One subset; its file replaces an older one only when all of it went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / target.name
        settings = ["-o", "addopts=-q -p no:cacheprovider", "-o", "python_files=bench_*.py", "--benchmark-only"]
        shown = ["--benchmark-columns=median,iqr,rounds", "--benchmark-sort=fullname", f"--benchmark-json={output}"]
        command = [sys.executable, "-m", "pytest", str(HERE / f"bench_{name}.py"), *settings, *shown]
        done = subprocess.run(command, env=environment, cwd=HERE.parent, check=False)
        if done.returncode == 0:
            part = target.with_name(f".{target.name}.part")
            shutil.copy(output, part)
            part.replace(target)
            print(f"wrote {os.path.relpath(target)}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
