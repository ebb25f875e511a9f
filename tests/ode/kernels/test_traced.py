"""Steps traced by torch.compile are the reference engine's: for any module, with any estimator of the divergence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from repro.ode import Solver, solve, steppers
from repro.ode.kernels import TracedKernel

CASES = Path(__file__).with_name("traced_cases.py")


@pytest.mark.parametrize(("backend", "traced", "given_up"), [("aot_eager", 9, 2), ("inductor", 2, 0)])
def test_steps_values_gradients_and_counts_are_the_reference_engines(backend, traced, given_up, tmp_path):
    """`aot_eager` traces all cases, one of which cannot be traced; `inductor` builds one of them."""
    environment = os.environ | {"REPRO_KERNELS": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, CASES, backend], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for name, case in results["cases"].items():
        assert case["difference"] < 1e-12, name
        assert case["same"], name
    assert done.stderr.count("Untraceable could not be traced") == done.stderr.count("not be traced") == given_up
    assert ("Net has more structures than torch compiles" in done.stderr) == (backend == "aot_eager")
    assert results["graphs"] >= traced
    assert results["seconds"] > 0
    # the first other number of rows makes a graph with free sizes, for the step and for its gradient
    assert results["compilations"] <= 2


def test_what_is_not_traced_says_why(monkeypatch):
    monkeypatch.setenv("REPRO_KERNELS", "1")
    flat, image = torch.ones(4, 2), torch.ones(4, 2, 3, 3)
    assert TracedKernel.why_not(nn.Linear(2, 2), flat) is None
    assert "only a torch.nn.Module" in str(TracedKernel.why_not(lambda t, y: -y, flat))
    assert "not flat" in str(TracedKernel.why_not(nn.Linear(2, 2), image))
    monkeypatch.setenv("REPRO_KERNELS", "native")
    assert "REPRO_KERNELS=native" in str(TracedKernel.why_not(nn.Linear(2, 2), flat))


def test_why_steps_are_eager_is_logged_once(caplog, monkeypatch):
    monkeypatch.setenv("REPRO_KERNELS", "1")
    caplog.set_level("INFO")
    steppers._LOGGED.clear()
    for _ in range(2):
        solve(lambda t, y: -y, torch.ones(2), torch.tensor([0.0, 1.0]), Solver(engine="compiled"))
    assert caplog.text.count("only a torch.nn.Module is traced") == 1
