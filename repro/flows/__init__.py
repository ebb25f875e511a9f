"""Log-densities by the change of variables: divergence estimators, continuous flows, planar flows."""

from repro.flows.augmented import PENALTIES
from repro.flows.cnf import CNF
from repro.flows.divergence import DIVERGENCES, NOISES, hutchinson_variance
from repro.flows.stack import Stack

__all__ = ["CNF", "DIVERGENCES", "NOISES", "PENALTIES", "Stack", "hutchinson_variance"]
