"""What made a run: commit, versions, machine, command; nothing of a person or a place."""

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch


def provenance(device: torch.device) -> dict[str, Any]:
    """What a reader needs to trust and redo a run; no host name, user name or absolute path."""
    return {
        **git_state(),
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(aliased=True, terse=True),
        "machine": machine_slug(device),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "driver": driver_version() if device.type == "cuda" else None,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "device": device.type,
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32, "cudnn": torch.backends.cudnn.allow_tf32},
    }


def _versions() -> dict[str, str | None]:
    # torch itself tells its build (+cpu, +cu130), which the CUDA wheel's metadata leave out
    found: dict[str, str | None] = {"torch": str(torch.__version__)}
    for name in ("torchdiffeq", "numpy", "scipy", "pandas"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def suite_version() -> str | None:
    """Read the suite's version; None where it is not installed."""
    try:
        return version("neural-ode-ffjord-suite")
    except PackageNotFoundError:
        return None


def git_state() -> dict[str, Any]:
    """Commit of the checkout and whether files outside results/ differ from it; None where there is no git."""
    top = Path(__file__).resolve().parents[1]
    if not (top / ".git").exists():  # an installed package may lie inside somebody else's repository
        return {"commit": None, "dirty": None}
    try:
        commit = _git(top, "rev-parse", "HEAD")
        changes = _git(top, "status", "--porcelain", "--", ".", ":!results")
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changes)}


def _git(top: Path, *words: str) -> str:
    command = ["git", "-C", str(top), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def driver_version() -> str | None:
    """The GPU driver's version, which torch does not tell: of nvidia-smi, else of the kernel's module, else None."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, check=True, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        module = Path("/proc/driver/nvidia/version")
        told = module.read_text() if module.exists() else ""
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", told)
    return found.group() if found else None


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        match = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if match:
            return match.group(1)
    return platform.processor() or platform.machine()


def machine_slug(device: torch.device) -> str:
    """Name of this kind of machine in paths: the GPU's, or the CPU's with its number of cores."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cpu_name()} {os.cpu_count()} cores"
    name = re.sub(r"\((R|TM)\)|CPU|Processor|@.*?GHz", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def command_line() -> str:
    """The command that made the run, without the interpreter's path."""
    return " ".join(["python -m repro", *sys.argv[1:]])
