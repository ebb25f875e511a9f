"""Which errors end a command with one line, and what the line says; real allocators are asked for too much."""

import errno

import numpy as np
import pytest
import torch

from repro.checkpoint import CheckpointError
from repro.data import DataError
from repro.errors import Failure, UsageError, describe_failure, is_memory_error
from repro.guards import Busy
from repro.loading import NotPublished, UnreadableRun
from repro.planning import ProbeFailed
from repro.published import PublishedError
from repro.queue_file import QueueError
from repro.report.build import ReportError
from repro.report.measured import CompareError
from repro.runner import MissingWeights

FAMILY = [CheckpointError, DataError, Busy, NotPublished, UnreadableRun, ProbeFailed, PublishedError, QueueError]
FAMILY += [ReportError, CompareError, MissingWeights, UsageError]

TOO_MUCH = 2**50


@pytest.mark.parametrize("kind", FAMILY)
def test_every_error_of_the_users_world_is_of_one_family(kind):
    error = kind("one\n  thing")
    assert isinstance(error, Failure)
    assert describe_failure(error) == "one thing"
    assert error.exit_code == (2 if issubclass(kind, UsageError) else 1)


def test_a_mistake_in_the_code_keeps_its_traceback():
    for error in (ValueError("x"), RuntimeError("a bug"), KeyError("x"), AssertionError()):
        assert describe_failure(error) is None


@pytest.mark.parametrize(
    "allocate",
    [lambda: bytearray(TOO_MUCH), lambda: np.ones(TOO_MUCH // 8), lambda: torch.ones(TOO_MUCH // 8)],
    ids=["python", "numpy", "torch"],
)
def test_a_lack_of_memory_is_recognised_whoever_reports_it(allocate):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        allocate()
    assert is_memory_error(caught.value)
    line = describe_failure(caught.value)
    assert line.startswith("out of memory")
    assert "goes on from its last checkpoint" in line
    assert "\n" not in line


def test_the_systems_lack_of_memory_is_recognised_and_other_errors_of_the_system_are_not():
    assert is_memory_error(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert describe_failure(OSError(errno.ENOMEM, "Cannot allocate memory")).startswith("out of memory ([Errno 12]")
    assert describe_failure(OSError(errno.ENOSPC, "No space left on device", "file")).endswith("'file'")
