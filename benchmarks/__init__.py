"""Timings, by pytest-benchmark: `make bench`."""
