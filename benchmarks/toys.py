"""FFJORD's toy flow in float64, at initialisation and as a published run trained it, with data of its density."""

import functools

import torch

import repro
from benchmarks.settings import DEVICE
from repro.data import DENSITIES
from repro.flows import CNF
from repro.nets.fields import ConcatSquashField

STATES = ("at initialisation", "trained")


@functools.cache
def published(cell):
    """The published flow of a cell of FFJORD's Figure 2, as it is judged, in float64.

    Raises:
        NotPublished: No published run has its weights; the message says how to make one.
    """
    return repro.load("ffjord/fig2_toy2d", cell).double().to(DEVICE)


def toy_flow(cell, state, solver, gradient):
    """A flow of this cell: 9,224 weights, exact trace, t from 0 to 0.5; its solver is the caller's.

    In float64, so that tolerances below 1e-6 mean something.

    Args:
        cell: A density of the plane, whose published flow is the one that is trained.
        state: One of `STATES`.
        solver: Method and tolerances.
        gradient: One of `repro.ode.GRADIENTS`.
    """
    if state == "trained":
        known = published(cell)
        return CNF(known.field, known.dim, known.t1, known.divergence, solver, gradient, known.base)
    torch.manual_seed(0)
    field = ConcatSquashField(2, 64, 3).double().to(DEVICE)
    return CNF(field, 2, 0.5, "closed_form", solver, gradient)


def points(cell, batch):
    """So many points [batch 2] of a density, the same at every call, in float64."""
    return DENSITIES[cell].sample(batch, torch.Generator().manual_seed(0)).double().to(DEVICE)
