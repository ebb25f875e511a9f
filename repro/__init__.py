"""Benchmark and reproduction suite for "Neural Ordinary Differential Equations" and "FFJORD"."""

__version__ = "0.1.0"
