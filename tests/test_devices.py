"""Both engines train the same on every device; on a GPU the compiled one by graphs that it does not give up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from repro.metrics import PeakMemory

CASES = Path(__file__).with_name("device_cases.py")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize(("device", "kernels"), [("cpu", "native"), pytest.param("cuda", "1", marks=needs_gpu)])
def test_trainings_are_the_same_by_both_engines(device, kernels, tmp_path):
    environment = os.environ | {"REPRO_KERNELS": kernels, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, CASES, device]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1_800, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert len(results["cases"]) == 8
    for name, case in results["cases"].items():
        assert case["difference"] < 1e-6, name
        assert case["same"], name
    assert (results["recorded"] > 0) == (device == "cuda")
    assert results["given_up"] == []
    assert results["skipped"] == 0
    if device == "cuda":  # every step and gradient of every case, at two shapes; not one for every solve
        assert 0 < results["graphs"] < 100


@needs_gpu
def test_a_run_on_the_gpu_names_it(cli):
    done = cli("run", "ffjord/table2_tabular", "power", "--tier", "smoke", "--device", "cuda")
    assert done.returncode == 0, done.stderr
    (folder,) = cli.runs
    facts = json.loads((folder / "run.json").read_text())
    assert facts["status"] == "ok"
    assert facts["gpu"] == torch.cuda.get_device_name()
    assert facts["driver"]


@needs_gpu
def test_the_gpus_meter_sees_an_allocation():
    meter = PeakMemory(torch.device("cuda"))
    held = torch.ones(64 * 2**20, dtype=torch.uint8, device="cuda")
    peak = meter.read()
    assert len(held) <= peak < 2 * len(held)
