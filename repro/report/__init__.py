"""Tables, figures, the claims ledger and the README's generated part: a pure function of the run folders."""

from repro.report.build import build

__all__ = ["build"]
