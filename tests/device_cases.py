"""What `test_devices.py` runs on a device, in a process of its own: checks of annotations do not survive tracing.

Takes the device; prints a JSON object of comparisons of the compiled with the reference engine in float64.
"""

import json
import sys

import torch
from torch._dynamo.utils import counters
from torch.nn import functional as F

from repro.flows import CNF
from repro.nets.fields import ConcatSquashField
from repro.nets.odenet import ode_block_of, ode_net
from repro.ode import Solver
from repro.ode.kernels import advances

BATCHES = (48, 48, 32, 48, 48, 48, 32, 32)
"""Rows of each update: a graph belongs to a shape, and both come again."""


def stream(seed):
    return torch.Generator().manual_seed(seed)


def trained_flow(engine, divergence, gradient, device):
    """Losses, weights and samples of a training with fresh data and probes at every update, and the evaluations."""
    torch.manual_seed(0)
    field = ConcatSquashField(3, 16, 2).double().to(device)
    flow = CNF(field, 3, 1.0, divergence, Solver(rtol=1e-6, atol=1e-6, engine=engine), gradient)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    losses, evaluations = [], []
    for step, rows in enumerate(BATCHES):
        x = torch.randn(rows, 3, dtype=torch.float64, generator=stream(step)).to(device)
        noise = torch.randn(1, rows, 3, dtype=torch.float64, generator=stream(100 + step)).to(device)
        loss = -flow.log_prob(x, noise if divergence == "hutchinson" else None).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        evaluations.append((flow.stats.nfe_forward, flow.stats.nfe_backward))
    with torch.no_grad():
        drawn = flow.sample(20, stream(1))
    return [torch.stack(losses), *[p.detach() for p in flow.parameters()], drawn], evaluations


def trained_classifier(engine, gradient, device):
    """Losses and weights of a training of an ODE-Net, whose state is an image, and the evaluations."""
    torch.manual_seed(0)
    net = ode_net("conv", Solver("rk4", step_size=0.25, engine=engine), gradient).double().to(device)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    losses, evaluations = [], []
    for step in range(3):
        images = torch.rand(2, 1, 28, 28, dtype=torch.float64, generator=stream(step)).to(device)
        loss = F.cross_entropy(net(images), torch.tensor([1, 7], device=device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        stats = ode_block_of(net).stats
        evaluations.append((stats.nfe_forward, stats.nfe_backward))
    return [torch.stack(losses), *[p.detach() for p in net.parameters()]], evaluations


def compared(train, *settings):
    """Largest difference by the two engines, and whether their forward evaluations are the same."""
    (expected, counts), (found, own) = (train(engine, *settings) for engine in ("torchdiffeq", "compiled"))
    largest = max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))
    return {"difference": largest, "same": [n for n, _ in counts] == [n for n, _ in own]}


def main(device):
    """Train by both engines with every gradient."""
    cases = {
        f"flow, {divergence}, {gradient}": compared(trained_flow, divergence, gradient, device)
        for divergence in ("hutchinson", "closed_form")
        for gradient in ("adjoint", "checkpoint", "backprop")
    }
    for gradient in ("checkpoint", "backprop"):
        cases[f"classifier, {gradient}"] = compared(trained_classifier, gradient, device)
    recorded = list(advances._RECORDED.values())
    given_up = [step.given_up for step in recorded if step.given_up]
    told = {"recorded": len(recorded), "given_up": given_up, "skipped": counters["inductor"]["cudagraph_skips"]}
    print(json.dumps({"cases": cases, **told, "graphs": graphs(device)}))


def graphs(device):
    """How many graphs torch has recorded."""
    if device.type == "cpu":
        return 0
    from torch._inductor.cudagraph_trees import get_manager

    return get_manager(torch.cuda.current_device()).new_graph_id().id


if __name__ == "__main__":
    main(torch.device(sys.argv[1]))
