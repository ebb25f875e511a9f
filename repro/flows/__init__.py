"""Log-densities by the change of variables: divergence estimators, continuous flows, planar flows."""

from repro.flows.cnf import CNF, Stack
from repro.flows.divergence import DIVERGENCES, NOISES, hutchinson_variance

__all__ = ["CNF", "DIVERGENCES", "NOISES", "Stack", "hutchinson_variance"]
