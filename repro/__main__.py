"""The command line: python -m repro list, plan, run, queue, show, report, compare, export, evaluate, data, doctor."""

if __name__ == "__main__":  # before anything slow: a signal during the imports ends in one line too
    from repro import signals

    signals.handle_signals()
    signals.die_with_parent()

import argparse
import sys
from collections.abc import Collection, Sequence

from repro import (
    commands,
    compare_command,
    evaluate_command,
    export_command,
    plan_command,
    queue_command,
    run_command,
    show_command,
    signals,
)
from repro.errors import UsageError, describe_failure
from repro.options import EXIT_FAILED, EXIT_USAGE, Parser, suggest


def start() -> int:
    """Run one command in a process that is there for it alone; see `main`."""
    signals.handle_signals()
    try:
        return main()
    finally:
        signals.ignore_signals()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done; 1 something failed, a recorded divergence included (one line says what), or `compare` found something
        worse; 2 wrong usage; 75 paused by --max-minutes and resumable; 130 interrupted and resumable.
    """
    try:
        with signals.allow_interrupts():
            return _run_verb(arguments)
    except BrokenPipeError:
        return EXIT_FAILED
    except KeyboardInterrupt:  # before the training loop, or for the second time: what was saved before is safe
        print("interrupted", file=sys.stderr)
        return signals.EXIT_INTERRUPTED
    except Exception as error:
        line = describe_failure(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return getattr(error, "exit_code", EXIT_FAILED)


def _run_verb(arguments: Sequence[str] | None) -> int:
    parser, verbs = _make_parser()
    words = sys.argv[1:] if arguments is None else arguments
    if not words:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    if not words[0].startswith("-") and words[0] not in verbs:
        raise UsageError(f"no command {words[0]!r}; {suggest(words[0], verbs)}there are: {', '.join(verbs)}")
    options, rest = parser.parse_known_args(words)
    if rest and options.verb != "run":
        raise UsageError(f"unknown arguments: {' '.join(rest)}")
    return options.function(options, rest) if options.verb == "run" else options.function(options)


def _make_parser() -> tuple[argparse.ArgumentParser, Collection[str]]:
    """Make the parser of all verbs; give their names too."""
    parser = Parser(prog="python -m repro", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list", help="what there is, and what has been run")
    listing.set_defaults(function=commands.show_list)
    plan_command.register(verbs)
    run_command.register(verbs)
    queue_command.register(verbs)
    show_command.register(verbs)
    report = verbs.add_parser("report", help="rebuild tables, figures and the README's generated part")
    report.add_argument("--local", action="store_true", help="also show this machine's own runs (in results/local/)")
    report.add_argument("--check", action="store_true", help="write nothing; fail if anything would change")
    report.add_argument("--json", action="store_true", help="with --check: print what is wrong as JSON")
    report.set_defaults(function=commands.report)
    compare_command.register(verbs)
    export_command.register(verbs)
    evaluate_command.register(verbs)
    data = verbs.add_parser("data", help="check every data file: ok, missing, absent or corrupt; or fetch a data set")
    data.add_argument("action", nargs="?", choices=("fetch",), help="download a set that does not ship")
    data.add_argument("name", nargs="?", help="which: gas, hepmass, miniboone or bsds300")
    data.set_defaults(function=commands.data)
    verbs.add_parser("doctor", help="what this machine can run, and what is wrong").set_defaults(
        function=commands.doctor
    )
    return parser, list(verbs.choices)


if __name__ == "__main__":
    sys.exit(start())
