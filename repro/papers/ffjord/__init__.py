"""Artefacts of "FFJORD" (Grathwohl et al. 2019, arXiv 1810.01367)."""
