"""The options of all verbs: one parser, each option defined once, and one line for what cannot be read."""

import argparse
import contextlib
import dataclasses
import difflib
import io
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

from repro.errors import Failure, UsageError

EXIT_FAILED, EXIT_USAGE, EXIT_PAUSED = Failure.exit_code, UsageError.exit_code, 75
T = TypeVar("T")
UNRECOGNIZED = "Unrecognized options: "
"""So tyro begins its message about an option that is none."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 (as argparse's)
        # an abbreviation could be meant for a setting of the cell
        super().__init__(**{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: always.
        """
        raise UsageError(message)


def suggest(name: str, names: Collection[str]) -> str:
    """Put the nearest of several names in words, for a message about a misspelt one; empty where none is near."""
    nearest = difflib.get_close_matches(name, names, 1)
    return f"did you mean {nearest[0]!r}? " if nearest else ""


# --- values ----------------------------------------------------------------------------------------------------------


def read_count(text: str) -> int:
    """Read an option that counts something: threads, processes, seeds."""
    return _read_integer(text, 1, 2**31 - 1)


def read_seed(text: str) -> int:
    """Read a seed, from 0 to 2^63 - 1."""
    return _read_integer(text, 0, 2**63 - 1)


def read_niceness(text: str) -> int:
    """Read what is added to a process's niceness."""
    return _read_integer(text, 0, 19)


def read_nonnegative(text: str) -> float:
    """Read a finite number of at least 0."""
    return _read_float(text, 0.0)


def read_positive(text: str) -> float:
    """Read a finite number above 0."""
    value = _read_float(text, 0.0)
    if not value:
        raise argparse.ArgumentTypeError(f"must be > 0; got {text}")
    return value


def read_ratio(text: str) -> float:
    """Read a finite number of at least 1."""
    return _read_float(text, 1.0)


def _read_integer(text: str, least: int, largest: int) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number; got {text!r}") from None
    if not least <= number <= largest:
        raise argparse.ArgumentTypeError(f"must be between {least} and {largest}; got {number}")
    return number


def _read_float(text: str, least: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number; got {text!r}") from None
    if not (math.isfinite(value) and value >= least):
        raise argparse.ArgumentTypeError(f"must be finite and at least {least:g}; got {text}")
    return value


# --- options that several verbs have ---------------------------------------------------------------------------------


def add_seed_options(parser: argparse.ArgumentParser) -> None:
    """Add --seed and --seeds, which exclude each other."""
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=read_seed, nargs="+", default=[0], help="seeds by their numbers (default: 0)")
    seeds.add_argument("--seeds", type=read_count, metavar="N", help="seeds 0 to N - 1")


def select_seeds(options: argparse.Namespace) -> Sequence[int]:
    """List the seeds that --seed or --seeds asks for."""
    return options.seed if options.seeds is None else range(options.seeds)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add an experiment or a pattern of them, and cells or patterns."""
    parser.add_argument("experiment", nargs="?", help="as neural_ode/table1_mnist, or a pattern: 'neural_ode/*'")
    parser.add_argument("cells", nargs="*", metavar="cell", help="cells or patterns; the main cells by default")


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def add_jobs_option(parser: argparse.ArgumentParser, text: str, default: int | None = 1) -> None:
    """Add --jobs, a number of processes."""
    parser.add_argument("--jobs", type=read_count, default=default, metavar="N", help=text)


def add_run_options(parser: argparse.ArgumentParser, subject: str) -> None:
    """Add what decides where runs go and how long they take."""
    parser.add_argument("--publish", action="store_true", help="put results into results/runs/, not results/local/")
    parser.add_argument(
        "--max-minutes",
        type=read_nonnegative,
        help=f"stop {subject} after so long, resumable",
    )


def pick_device(name: str) -> Any:  # noqa: ANN401 (torch is imported late: --help stays fast)
    """`auto`, `cpu` or `cuda` to a torch device.

    Raises:
        Failure: if CUDA was asked for and there is none.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise Failure("--device cuda: torch sees no CUDA device here; use --device cpu")
    torch.backends.cudnn.allow_tf32 = False  # TF32 changes error estimates, and with them every count of evaluations
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


# --- settings --------------------------------------------------------------------------------------------------------


def parse_settings(default: T, words: Sequence[str], program: str) -> T:
    """Parse the settings of a cell.

    Args:
        default: its settings, a dataclass.
        words: of the command line, as `--solver.rtol 1e-6`.
        program: the command so far, for the help.

    Raises:
        UsageError: One is not known or out of range; the message names it.
    """
    import tyro

    text = io.StringIO()
    try:
        with contextlib.redirect_stderr(text):
            return tyro.cli(type(default), prog=program, default=default, args=words)
    except SystemExit as end:
        if not end.code:  # --help
            raise
        raise UsageError(_summarize(text.getvalue(), list(_name_settings(default)))) from None


def _summarize(box: str, names: Collection[str]) -> str:
    """Reduce the box that tyro draws around an error to its first paragraph in one line."""
    lines = [line.strip("│| ") for line in box.splitlines()]
    below = itertools.dropwhile(lambda line: not _is_rule(line), lines)
    paragraph = itertools.takewhile(lambda line: not _is_rule(line), itertools.islice(below, 1, None))
    first = " ".join(paragraph).strip() or " ".join(box.split())
    line = first.removeprefix("Error parsing ").removeprefix("Config: ")
    if not line.startswith(UNRECOGNIZED):
        return line
    unknown = line.removeprefix(UNRECOGNIZED).split(", ")[0]
    return f"unknown option {unknown}; {suggest(unknown, names)}--help lists the settings"


def _is_rule(line: str) -> bool:
    """Tell whether a line is the title's border or a rule; where there is no Unicode, both are of hyphens."""
    return line.startswith("╭") or (line != "" and set(line) <= {"─", "-"})


def _name_settings(settings: Any, prefix: str = "--") -> Iterator[str]:  # noqa: ANN401 (any dataclass)
    for entry in dataclasses.fields(settings):
        value, name = getattr(settings, entry.name), prefix + entry.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from _name_settings(value, f"{name}.")
        else:
            yield name
