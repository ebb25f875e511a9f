"""Provenance knows what made a run, and tells nothing of a person or a place."""

import getpass
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from repro import provenance

CPU = torch.device("cpu")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small repository that stands for the package's own."""
    top = tmp_path / "checkout"
    (top / "repro").mkdir(parents=True)
    (top / "repro" / "provenance.py").write_text("one\n")
    (top / "results").mkdir()
    (top / "results" / "published.csv").write_text("x\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], cwd=top, check=True, capture_output=True)
    monkeypatch.setattr(provenance, "__file__", str(top / "repro" / "provenance.py"))
    return top


def test_git_state_counts_changes_outside_results_only(checkout):
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, capture_output=True, text=True, check=True)
    assert provenance.git_state() == {"commit": commit.stdout.strip(), "dirty": False}
    (checkout / "results" / "published.csv").write_text("changed\n")
    (checkout / "results" / "new.csv").write_text("new\n")
    assert provenance.git_state()["dirty"] is False
    (checkout / "repro" / "provenance.py").write_text("two\n")
    assert provenance.git_state()["dirty"] is True


def test_an_installed_package_does_not_take_the_commit_of_somebody_elses_repository(checkout, monkeypatch):
    inside = checkout / ".venv" / "repro"
    inside.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(inside / "provenance.py"))
    assert provenance.git_state() == {"commit": None, "dirty": None}


def test_without_git_there_is_no_commit(checkout, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state() == {"commit": None, "dirty": None}


def test_machine_slug_names_the_processor_and_no_host():
    slug = provenance.machine_slug(CPU)
    assert slug.endswith("-cores")
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert platform.node().lower() not in slug


@pytest.mark.parametrize(
    ("cpu", "slug"),
    [
        ("Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz", "intel-xeon-platinum-8488c-8-cores"),
        ("AMD EPYC 7B13", "amd-epyc-7b13-8-cores"),
    ],
)
def test_machine_slug_is_short_and_fit_for_a_path(monkeypatch, cpu, slug):
    monkeypatch.setattr(provenance, "cpu_name", lambda: cpu)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert provenance.machine_slug(CPU) == slug


def strings(value):
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    return [text for item in value for text in strings(item)] if isinstance(value, list) else [str(value)]


def test_provenance_tells_nothing_of_a_person_or_place(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/private/repro/__main__.py", "run", "a/b", "--seed", "1"])
    assert provenance.command_line() == "python -m repro run a/b --seed 1"
    told = strings({**provenance.provenance(CPU), "command": provenance.command_line()})
    private = {platform.node(), str(Path.home()), str(Path.cwd())}
    assert not [text for text in told if any(secret in text for secret in private)]
    assert not [text for text in told if text.startswith("/")]
    assert getpass.getuser() not in told


def test_provenance_knows_what_made_the_run():
    facts = provenance.provenance(CPU)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["threads"] == 1
    assert (facts["device"], facts["dtype"], facts["gpu"]) == ("cpu", "float32", None)
    assert (facts["driver"], facts["cuda"]) == (None, None)
    assert set(facts["tf32"]) == {"matmul", "cudnn"}
    assert shutil.which("git") is None or len(facts["commit"]) == 40


@pytest.mark.parametrize(
    ("told", "version"), [("570.133.20\n570.133.20\n", "570.133.20"), ("550.54\n", "550.54"), ("No devices\n", None)]
)
def test_the_driver_is_what_its_tool_says(monkeypatch, told, version):
    monkeypatch.setattr(provenance.subprocess, "run", lambda *words, **settings: SimpleNamespace(stdout=told))
    assert provenance.driver_version() == version


@pytest.mark.parametrize("error", [FileNotFoundError(), provenance.subprocess.TimeoutExpired("nvidia-smi", 20)])
def test_a_driver_that_does_not_answer_is_none(monkeypatch, error):
    def fail(*words, **settings):
        raise error

    monkeypatch.setattr(provenance.subprocess, "run", fail)
    assert provenance.driver_version() is None or Path("/proc/driver/nvidia/version").exists()
