"""Artefacts of "Neural Ordinary Differential Equations" (Chen et al. 2018, arXiv 1806.07366)."""
