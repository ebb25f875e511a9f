"""The other end of `repro.measuring.fresh`: `python -m repro.measuring.worker ANSWERS`, ANSWERS a file descriptor.

Forks a child for each folder that is named on standard input.
"""

import os
import pickle
import sys
from pathlib import Path

import cloudpickle
import torch

from repro.measuring.fresh import limit
from repro.measuring.meters import status_of


def main() -> None:
    """Serve until standard input ends: for each folder, answer with the child's process id, then its exit code."""
    with os.fdopen(int(sys.argv[1]), "w", buffering=1) as answers:  # whatever prints cannot be taken for an answer
        for line in sys.stdin:
            child = os.fork()
            if child == 0:
                work(Path(line.strip()))
            print(child, file=answers)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers)


def work(folder: Path) -> None:
    """Make the call of a folder, write what it gave, and end the process; whatever it raises is a status."""
    errors = os.open(folder / "errors", os.O_WRONLY | os.O_CREAT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the folders to come are not this child's business
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    try:
        setting, call = pickle.loads((folder / "payload").read_bytes())
        setting.take_over()
        if not torch.cuda.is_available():
            limit()
        result = pickle.loads(call)()
    except Exception as error:
        result = {"status": status_of(error)}
    part = folder / "result.part"
    part.write_bytes(cloudpickle.dumps(result))
    part.rename(folder / "result")  # at once: a file that is there is whole
    os._exit(0)


if __name__ == "__main__":
    main()
