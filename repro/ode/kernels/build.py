"""Build the native kernels with the machine's C++ compiler, once per source and processor, and load them."""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from repro.cache import CacheError, is_private, make_private, user_cache

SOURCE = Path(__file__).with_name("source") / "kernels.cpp"
"""Includes all that lies beside it."""
FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-shared",
    "-fPIC",
)
WIDE = ("-mprefer-vector-width=512",)
"""Compilers prefer 256 bits even where the processor has 512; not all of them know the flag."""
OPENMP = ("-fopenmp",)
"""Apple's compiler does not know the flag."""

STALE_SECONDS = 3600

_log = logging.getLogger(__name__)


@functools.cache
def library() -> tuple[ctypes.CDLL | None, str]:
    """The compiled kernels, or None, and in words what they are or why there are none.

    The shared object lies in the user's cache under the hash of source, flags, compiler and processor; two processes
    that build at once each write a file of their own and rename it.
    """
    if os.environ.get("REPRO_KERNELS", "1") == "0":
        return None, "switched off by REPRO_KERNELS=0"
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    compiler = shlex.split(os.environ.get("CXX", "")) or ([found] if found else [])
    if not compiler:
        return _unavailable("no C++ compiler was found (c++, g++, clang++ or $CXX)")
    if sys.platform == "win32":
        return _unavailable("the kernels are built on Linux and macOS only")
    try:
        path = _built(compiler)
        return ctypes.CDLL(str(path)), f"built by {Path(compiler[0]).name} for this processor"
    except CacheError as error:
        return _unavailable(str(error))
    except (OSError, subprocess.SubprocessError) as error:
        return _unavailable(f"{Path(compiler[0]).name} failed: {error}")


def why_none() -> str | None:
    """Why there are no kernels on this machine; None if there are."""
    built, reason = library()
    return reason if built is None else None


def used() -> str | None:
    """What `library` found, if anything in this process has asked for it: a part of a run's provenance."""
    return library()[1] if library.cache_info().currsize else None


def _unavailable(reason: str) -> tuple[None, str]:
    _log.warning("no native kernel: %s; the compiled engine steps eagerly", reason)
    return None, reason


def _built(compiler: Sequence[str]) -> Path:
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True, timeout=60).stdout
    sources = [file.read_bytes() for file in sorted(SOURCE.parent.glob("*.[ch]pp"))]
    key = hashlib.sha256(b"\0".join([*sources, version, " ".join(FLAGS + WIDE + OPENMP).encode(), _processor()]))
    folder = make_private(make_private(user_cache()) / "kernels")  # who writes here runs code as this user
    target = folder / f"kernels-{key.hexdigest()[:16]}.so"
    seal = target.with_suffix(".sha256")
    if is_private(target) and is_private(seal) and seal.read_bytes() == _digest(target).encode():
        return target  # a file that was cut short would end the process that loads it
    _delete_stale_builds(folder)
    handle, name = tempfile.mkstemp(dir=target.parent, suffix=".so")
    os.close(handle)
    partial = Path(name)
    try:
        _compile(compiler, partial)
        partial.chmod(0o700)  # linkers follow the umask
        digest = _digest(partial)
        partial.replace(target)
        seal.unlink(missing_ok=True)
        seal.touch(0o600)
        seal.write_text(digest)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _delete_stale_builds(folder: Path) -> None:
    """Delete what killed builds left; a build takes a minute at most."""
    for path in folder.glob("tmp*.so"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()


def _compile(compiler: Sequence[str], target: Path) -> None:
    plain = tuple(flag for flag in FLAGS if flag != "-march=native")
    for flags in (FLAGS + WIDE + OPENMP, FLAGS + WIDE, FLAGS + OPENMP, FLAGS, plain):
        command = [*compiler, *flags, "-o", str(target), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode == 0:
            return
    raise OSError(done.stderr.strip().splitlines()[0] if done.stderr.strip() else f"exit code {done.returncode}")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _processor() -> bytes:
    """What -march=native depends on: the same cache folder may be mounted on other machines."""
    info = Path("/proc/cpuinfo")
    lines = info.read_bytes().splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith((b"flags", b"Features"))), b"")
    model = next((line for line in lines if line.startswith(b"model name")), b"")
    return b"".join([platform.machine().encode(), model, flags])
