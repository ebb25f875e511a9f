"""The other end of `repro.measuring.fresh`: forks a child for each folder that is named on standard input."""

import os
import sys
from pathlib import Path

import cloudpickle
import torch

from repro.measuring.meters import status_of


def main() -> None:
    """Serve until standard input ends: for each folder, print the child's process id, then its exit code."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            work(Path(line.strip()))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def work(folder: Path) -> None:
    """Make the call of a folder, write what it gave, and end the process; whatever it raises is a status."""
    errors = os.open(folder / "errors", os.O_WRONLY | os.O_CREAT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the folders to come are not this child's business
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    try:
        call, threads = cloudpickle.loads((folder / "payload").read_bytes())
        torch.set_num_threads(threads or torch.get_num_threads())
        result = call()
    except Exception as error:
        result = {"status": status_of(error)}
    part = folder / "result.part"
    part.write_bytes(cloudpickle.dumps(result))
    part.rename(folder / "result")  # at once: a file that is there is whole
    os._exit(0)


if __name__ == "__main__":
    main()
