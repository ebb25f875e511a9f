"""Every file operation of a run fails in turn: the process is killed before it, or the disk is full, or it breaks.

A real cell runs by the real command in a forked process. Whatever happens, a reader sees a whole run or none; then the
same command ends well with the same numbers, weights and arrays, and nothing is left over.
"""

import errno
import io
import json
import os
import shutil
import signal
import sys
import traceback
from functools import cache
from pathlib import Path

import pytest

from repro import runner
from repro.__main__ import main
from repro.integrity import verify_files
from repro.results import COST_METRICS, read_record, read_rows

RUN = ["run", "neural_ode/fig4_nf_vs_cnf", "u1_nf_2", "--iterations", "3", "--test-points", "40", "--side", "4"]
RUN += ["--publish", "--checkpoint-seconds", "0"]
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {"os.rename": "rename", "os.remove": "unlink", "os.rmdir": "rmdir", "os.mkdir": "mkdir"}


class Faults:
    """Counts the operations below a folder, in a process that lives for one trial, and spoils one of them.

    Args:
        root: the folder.
        operation: number of the operation that is spoilt; None spoils none.
        fault: `kill`, or the error's number.
    """

    def __init__(self, root, operation=None, fault=None):
        self.root, self.operation, self.fault, self.sites = str(root), operation, fault, []

    def install(self):
        sys.addaudithook(self.audit)  # for good: the process ends with the trial
        fsync, sendfile, opened = os.fsync, os.sendfile, io.open

        def watched_fsync(descriptor):
            self.reach("fsync")
            fsync(descriptor)

        def watched_sendfile(target, source, offset, count):
            self.reach("write")
            return sendfile(target, source, offset, count)

        def watched_open(file, *arguments, **options):
            result = opened(file, *arguments, **options)
            if result.writable() and self.is_below(file):
                result.write = self.half_writing(result, result.write)
            return result

        os.fsync, os.sendfile = watched_fsync, watched_sendfile
        io.open = watched_open
        vars(sys.modules["builtins"])["open"] = watched_open

    def half_writing(self, file, write):
        def watched(data):
            def half():
                write(data[: len(data) // 2])
                file.flush()

            self.reach("write", half)
            return write(data)

        return watched

    def audit(self, event, arguments):
        if event in EVENTS:
            relative = event in ("os.remove", "os.rmdir") and arguments[-1] not in (-1, None)  # from shutil.rmtree
            if relative or self.is_below(arguments[0]):
                self.reach(EVENTS[event])
        elif event == "open" and arguments[2] & WRITING and self.is_below(arguments[0]):
            self.reach("open")

    def is_below(self, path):
        return not isinstance(path, int | None) and os.fsdecode(path).startswith(self.root)

    def reach(self, kind, before=lambda: None):
        number = len(self.sites)
        frames = [frame for frame in traceback.extract_stack() if "/repro/" in frame.filename]
        self.sites.append(f"{kind} {Path(frames[-1].filename).name}:{frames[-1].lineno}")
        if number == self.operation:
            before()
            if self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.fault, os.strerror(self.fault), self.sites[-1])


def run_command(folder, faults=None):
    """Run the command in a process of its own; gives its end, as os.waitpid says it, and what it printed."""
    messages, sites = folder.with_suffix(".messages"), folder.with_suffix(".sites")
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return status, messages.read_text(), json.loads(sites.read_text()) if sites.exists() else []
    code = 99
    try:
        descriptor = os.open(messages, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), write_through=True)
        os.environ |= {"REPRO_RESULTS": str(folder / "results"), "REPRO_CACHE": str(folder / "cache")}
        if faults is not None:
            faults.install()
        code = main(RUN)
        if faults is not None:
            faults.root = "/nowhere"
            sites.write_text(json.dumps(faults.sites))
    except BaseException:  # a forked test must never go on as a second pytest
        traceback.print_exc()
    finally:
        os._exit(code)


def find_run(folder):
    return next((path.parent for path in folder.glob("results/runs/*/*/*/[!.]*/run.json")), None)


def content_of(run):
    """What must not depend on how often a run was stopped."""
    rows = [row for row in read_rows(run / "rows.csv") if row.metric not in COST_METRICS]
    return rows, {path.name: path.read_bytes() for path in run.iterdir() if path.suffix in (".safetensors", ".npz")}


def leftovers_in(folder):
    """Files beside the run's own and lock files, and hidden folders."""
    run = find_run(folder)
    paths = [path for path in folder.rglob("*") if path.is_file() or path.name.startswith(".")]
    return [str(path) for path in paths if path.suffix != ".lock" and path.parent != run]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the command leaves where nothing fails, and the operations on the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "provenance", cache(runner.provenance))  # git is asked once, not in every trial
        folder = tmp_path_factory.mktemp("undisturbed") / "trial"
        for name in ("results", "cache"):
            patch.setenv(f"REPRO_{name.upper()}", str(folder / name))
        main(RUN)  # here, so that the children inherit what is loaded late
        shutil.rmtree(folder)
        faults = Faults(folder)
        status, messages, sites = run_command(folder, faults)
        assert status == 0, messages
        yield content_of(find_run(folder)), sites


def is_whole(run):
    record = read_record(run)
    return record is not None and verify_files(run, record) == []


def find_problems(folder, operation, fault, expected):
    """List what is wrong after a fault, and after the same command again."""
    status, messages, _ = run_command(folder, Faults(folder, operation, fault))
    run = find_run(folder)
    whole = run is None or is_whole(run)
    again, later, _ = run_command(folder)
    checks = {
        f"ended with {status}: {messages}": status == -signal.SIGKILL if fault == "kill" else status in (0, 1),
        f"a traceback: {messages}": "Traceback" not in messages,
        "a reader saw half a run": whole,
        f"the same command ended with {again}: {later}": again == 0,
        "other numbers, weights or arrays": again == 0 and content_of(find_run(folder)) == expected,
        "a damaged run": again == 0 and is_whole(find_run(folder)),
        f"left over: {leftovers_in(folder)}": leftovers_in(folder) == [],
    }
    return [problem for problem, good in checks.items() if not good]


def choose(sites, fault):
    """Choose operations: the first and the last of every place in the code; for kills every sixth beside them."""
    ends = {site: number for number, site in enumerate(sites)}
    starts = {site: number for number, site in reversed(list(enumerate(sites)))}
    return sorted({*ends.values(), *starts.values(), *range(0, len(sites), 6 if fault == "kill" else len(sites))})


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill", errno.ENOSPC, errno.EIO], ids=["kill", "ENOSPC", "EIO"])
def test_whatever_operation_fails_nothing_is_lost_and_nothing_is_left(fault, undisturbed, tmp_path, capsys):
    expected, sites = undisturbed
    lost, chosen = {}, choose(sites, fault)
    for operation in chosen:
        folder = tmp_path / "trial"
        if problems := find_problems(folder, operation, fault, expected):
            lost[operation, sites[operation]] = problems
        shutil.rmtree(folder)
    with capsys.disabled():
        print(f"{len(lost)} of {len(chosen)} lost, of {len(sites)} operations in {len(set(sites))} places")
    assert {site.partition(" ")[0] for site in sites} >= {"open", "write", "fsync", "rename", "mkdir", "unlink"}
    assert lost == {}
