"""The same training steps in torchdiffeq, torchdyn, zuko, torchode, diffrax and here, side by side.

Every workload runs in a process of its own (`benchmarks.peers.worker`), in which all ways take turns; what it measured
is recorded here as one benchmark for each way. A way without times has a row that says why; the seconds recorded
with it are those until that was known.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.ways import ways_of
from benchmarks.peers.workloads import PLANS
from benchmarks.recorded import CLOCK, record

ROOT = Path(__file__).parents[1]
PAIRS = [pytest.param(name, way.key, id=f"{name}-{way.key}") for name in PLANS for way in ways_of(name)]


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    """Give a workload's entries by way, from one process that runs when they are first asked for."""
    found, failed = {}, {}

    def entries(name):
        if name in failed:  # after minutes; it would fail again
            raise failed[name]
        if name not in found:
            output = tmp_path_factory.mktemp("peers") / f"{name}.json"
            command = [sys.executable, "-m", "benchmarks.peers.worker", name, "--output", str(output)]
            try:
                subprocess.run([*command, "--threads", str(PLANS[name].threads)], check=True, cwd=ROOT)
            except subprocess.CalledProcessError as error:
                failed[name] = error
                raise
            listed = json.loads(output.read_text())
            found[name] = {f"{entry['known']['peer']}/{entry['known']['way']}": entry for entry in listed}
        return found[name]

    return entries


@pytest.mark.parametrize(("workload", "way"), PAIRS)
@pytest.mark.benchmark(group="training steps by library", timer=CLOCK, disable_gc=False)
def test_step(workload, way, measured, benchmark):
    """One way of a workload: times, evaluations, errors against float64, and the ratio to torchdiffeq's adjoint."""
    entry = measured(workload)[way]
    record(benchmark, entry["known"], entry["seconds"] or [entry["known"]["first_call"]])
