"""FFJORD (Grathwohl et al. 2019)."""
