"""The reference: what the public docstrings say, as pages of the report."""

from repro.report.site.reference.pages import reference

__all__ = ["reference"]
