"""What the ways in PyTorch share: the losses around a solve, and the count of evaluations."""

import math

import torch
from torch.nn import functional as F

from benchmarks.peers.fields import HyperPlanar
from benchmarks.peers.protocol import Outcome
from repro.ode import Solver


def flow_step(workload, make):
    """A likelihood and its gradient.

    Args:
        workload: A `Likelihood`.
        make: Takes the field, the probe (or None) and the times; gives a function from the data to the points at the
            base and what the log-density gains.
    """
    field, times = workload.theirs()
    x, carry = workload.x, make(field, workload.noise, times)
    constant = 0.5 * x.shape[1] * math.log(2 * math.pi)

    def loss():
        z, gain = carry(x)
        return (0.5 * z.square().sum(1) + constant - gain).mean()

    restored = field.restored if isinstance(field, HyperPlanar) else tuple
    return _step(field, list(field.parameters()), loss, restored)


def image_step(workload, make):
    """A classifier's loss and its gradient.

    Args:
        workload: A `Classification`.
        make: Takes the field; gives a function from its state at 0 to that at 1.
    """
    stem, field, head = workload.theirs()
    integrate = make(field)
    parameters = [p for part in (stem, field, head) for p in part.parameters()]
    order = _order_of_model(workload, stem, field, head)

    def loss():
        return F.cross_entropy(head(integrate(stem(workload.images))), workload.labels)

    return _step(field, parameters, loss, lambda gradient: tuple(gradient[i] for i in order))


def _order_of_model(workload, *parts):
    """Where each parameter of the suite's model stands among those of the parts, whose modules are named alike."""
    names = [f"{part}.{name}" for part, module in enumerate(parts) for name, _ in module.named_parameters()]
    model = workload.make(Solver(), "backprop")
    return [names.index(name.replace("1.field.", "1.")) for name, _ in model.named_parameters()]


def _step(field, parameters, loss_of, restored):
    def step():
        for parameter in parameters:
            parameter.grad = None
        field.nfe = 0
        loss = loss_of()
        forward = field.nfe
        loss.backward()
        backward = field.nfe - forward
        gradient = tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
        return Outcome(loss.detach(), restored(gradient), forward, backward or None)

    return step
