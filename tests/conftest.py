"""Every test writes into its own folders, draws from seeded streams and computes on one thread."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from repro.__main__ import main
from repro.nets.fields import FIELDS
from repro.results import COST_METRICS, read_rows


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Results and cache of this test alone; no results of the checkout are read or written."""
    monkeypatch.setenv("REPRO_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("REPRO_DATA", raising=False)
    monkeypatch.setenv("REPRO_KERNELS", "native")  # torch.compile takes half a minute a field: test_traced.py alone
    torch.set_num_threads(1)
    torch.manual_seed(0)


@dataclass
class Cli:
    """The real command in real processes: `python -m repro ...` with its own results and cache."""

    results: Path
    cache: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *words, **options):
        folders = {"REPRO_RESULTS": str(self.results), "REPRO_CACHE": str(self.cache), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "repro", *map(str, words)]
        environment = os.environ | folders | self.environment
        return subprocess.Popen(command, env=environment, stdout=-1, stderr=-1, text=True, **options)

    def __call__(self, *words, **options):
        """Run to the end; gives exit code, stdout and stderr."""
        with self.start(*words, **options) as process:
            out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    @property
    def runs(self):
        """Folders of the finished local runs."""
        return sorted(path.parent for path in self.results.glob("local/*/*/*/*/run.json"))

    @staticmethod
    def numbers(folder):
        """The rows of a run that must not depend on when and how often it was stopped."""
        return [row for row in read_rows(folder / "rows.csv") if row.metric not in COST_METRICS]


@pytest.fixture(scope="session")
def make_cli():
    return Cli


@pytest.fixture
def cli(tmp_path):
    return Cli(tmp_path / "results", tmp_path / "cache")


@pytest.fixture
def call(capsys):
    """The same command in this process, which saves a start; gives exit code, stdout and stderr."""

    def call(*words):
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def make_field():
    """A perceptron field in float64, the same at every call."""

    def make(dim, width=7, depth=2, *, layer="concatsquash", activation="tanh"):
        torch.manual_seed(1)
        return FIELDS[layer](dim, width, depth, activation).double()

    return make


@pytest.fixture
def trace_of():
    """Trace of each row's Jacobian by torch.func's Jacobian: an implementation that is not ours."""

    def trace_of(field, t, y):
        return torch.stack([torch.func.jacrev(lambda row: field(t, row[None])[0])(row).trace() for row in y])

    return trace_of
