"""Errors that end a command with one line: one family, which the command line catches in one place."""

import errno

MEMORY_MESSAGES = ("can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc")
"""Parts of the messages of allocators, which raise a RuntimeError of no class of its own."""


class Failure(Exception):
    """Something that ends a command with one line; the message names it and says what to do."""

    exit_code = 1


class UsageError(Failure):
    """A request that cannot be met as it stands: one line and exit code 2."""

    exit_code = 2


def describe_failure(error: Exception) -> str | None:
    """Put an error of the user's world (files, memory, settings) in one line.

    Args:
        error: any error that a command raised.

    Returns:
        The line; None for an error that only a mistake in the code explains, whose traceback is wanted.
    """
    line = " ".join(str(error).split())
    if is_memory_error(error):
        reason = f" ({line})" if line else ""
        return f"out of memory{reason}; an unfinished run goes on from its last checkpoint where there is more of it"
    return line if isinstance(error, (Failure, OSError)) else None


def is_memory_error(error: Exception) -> bool:
    """Tell whether an error says that memory ran out, of Python, NumPy, torch or the system."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error).lower() for part in MEMORY_MESSAGES)
