"""CONTRIBUTING's examples, carried out word by word in a copy of the suite, whose contract tests then cover them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
TEXT = (HOUSE / "CONTRIBUTING.md").read_text()
ADDED = ("ralston3", "finite_difference", "magic", "section2_adjoint")
TESTS = (
    "tests/ode/test_runge_kutta.py",
    "tests/ode/test_solvers.py",
    "tests/ode/test_gradients.py",
    "tests/flows/test_divergence.py",
    "tests/flows/test_cnf.py",
    "tests/data/test_data_contract.py",
    "tests/test_contract.py",
)


def examples():
    """Each block of code with the words before it."""
    (part,) = re.findall(r"### A solver\n.*?(?=\n## )", TEXT, re.DOTALL)
    return re.findall(r"([^`]*(?:`[^`\n]+`[^`]*)*?)\n```python\n(.*?)```", part, re.DOTALL)


def carry_out(words, code, house):
    """Write a block that names its file; put any other into the register that the words before it name."""
    file = re.match(r"# (repro/\S+\.py)\n", code)
    if file:
        assert not (house / file[1]).exists()
        (house / file[1]).write_text(code.removeprefix(file[0]))
        return
    (register, path) = re.findall(r"`([A-Z_]+)` of `(repro/\S+\.py)`", words)[-1]
    imports = "".join(line for line in code.splitlines(keepends=True) if line.startswith("from "))
    entry = code.removeprefix(imports).strip("\n")
    source = (house / path).read_text()
    opening = re.search(rf"^{register}\b.*= {{\n", source, re.MULTILINE)
    indented = "".join(f"    {line}\n" for line in entry.splitlines())
    source = source[: opening.end()] + indented + source[opening.end() :]
    first = re.search(r"^(?:from|import) ", source, re.MULTILINE)
    (house / path).write_text(source[: first.start()] + imports + source[first.start() :])


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The suite with everything that CONTRIBUTING adds as an example; data and results are the house's own."""
    house = tmp_path_factory.mktemp("suite")
    for name in ("repro", "tests"):
        shutil.copytree(HOUSE / name, house / name, ignore=shutil.ignore_patterns("embedded", "__pycache__"))
    (house / "repro/data/embedded").symlink_to(HOUSE / "repro/data/embedded")
    for name in ("pyproject.toml", "README.md", "CONTRIBUTING.md", "Makefile", "CHANGELOG.md"):
        (house / name).symlink_to(HOUSE / name)
    for name in ("notebooks", "results", "benchmarks"):
        (house / name).symlink_to(HOUSE / name, target_is_directory=True)
    blocks = examples()
    assert len(blocks) == 7
    for words, code in blocks:
        carry_out(words, code, house)
    return house


def python(house, *words, **environment):
    known = os.environ | {"PYTHONPATH": str(house), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        [sys.executable, *words], check=False, cwd=house, env=known, capture_output=True, text=True, timeout=900
    )


def test_contract_tests_run_over_what_was_added_and_pass(copy):
    wanted = " or ".join(ADDED)
    done = python(copy, "-m", "pytest", *TESTS, "-k", wanted, "-v", "-n0", "--override-ini=addopts=--benchmark-disable",
                  REPRO_KERNELS="native")  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    passed = re.findall(r"^(\S+) PASSED", done.stdout, re.MULTILINE)
    for name in ADDED:
        assert len([test for test in passed if name in test]) >= 3, name


def test_the_artefact_is_run_recorded_and_drawn(copy, tmp_path):
    folders = {"REPRO_RESULTS": str(tmp_path / "results"), "REPRO_CACHE": str(tmp_path / "cache")}
    program = """
import sys
from repro.__main__ import main
name = "neural_ode/section2_adjoint"
codes = [main(["run", name, cell]) for cell in ("adjoint", "checkpoint")] + [main(["show", name, "adjoint"])]
from repro.papers import EXPERIMENTS
from repro.results import load, results_root
rows = load(results_root() / "local")
found = rows[rows["metric"] == "gradient_error"]
assert len(found) == 4 and (found["value"] < 1e-2).all() and (found["value"] > 0).all(), found
EXPERIMENTS[name].draw["node_section2"](rows).savefig("drawn.png")
sys.exit(max(codes))
"""
    done = python(copy, "-c", program, **folders)
    assert done.returncode == 0, done.stderr
    assert "smoke: 1 ok smoke (local)" in done.stdout
    assert (copy / "drawn.png").stat().st_size > 5000


def test_the_data_set_is_read_as_its_format_says_and_missed_in_one_line(copy, tmp_path):
    program = """
import os
from pathlib import Path
from repro.__main__ import main
from repro.data import DATASETS, DataError
try:
    DATASETS["magic"].load()
except DataError as error:
    assert "archive.ics.uci.edu/dataset/159" in str(error) and "\\n" not in str(error)
else:
    raise SystemExit("nothing was missed")
folder = Path(os.environ["REPRO_DATA"]) / "magic"
folder.mkdir(parents=True)
lines = [",".join(str((7 * i + 3 * j) % 11 + 0.5 * j) for j in range(10)) + ",g" for i in range(200)]
(folder / "magic04.data").write_text("\\n".join(lines))
splits = DATASETS["magic"].load()
assert [tuple(p.shape) for p in (splits.train, splits.validation, splits.test)] == [(162, 10), (18, 10), (20, 10)]
assert len(splits.sha256["magic/magic04.data"]) == 64
main(["data"])
"""
    done = python(copy, "-c", program, REPRO_DATA=str(tmp_path / "data"), REPRO_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ok +magic +magic/magic04.data", done.stdout, re.MULTILINE)
