"""All ways of one workload in a process of its own: `python -m benchmarks.peers.worker WORKLOAD --threads 1`.

That keeps the libraries' settings apart from those of other workloads. Before any library is imported the process is
bound to as many processors as the workload may have threads. This holds for every pool of threads, JAX's too, whose
size is that of the processors it sees and cannot be set otherwise; for one thread XLA is told as well not to split
its matrix products.
"""

import argparse
import json
import os
from pathlib import Path


def confine(threads: int) -> None:
    """Give this process, and those that it starts, so many processors and threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "JAX_PLATFORMS": "cpu"}
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def main() -> None:
    """Measure, and write the entries to a file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workload")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--only", help="build and try this one way, without timing")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if os.environ.get("REPRO_BENCH_DEVICE") != "cuda":  # where threads only launch
        confine(arguments.threads)
    from benchmarks.peers.measure import measure  # not earlier: the settings above hold for what is imported after them

    entries = measure(arguments.workload, arguments.only)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(entries))


if __name__ == "__main__":
    main()
