"""What a trace costs and how noisy it is, by estimator: against the dimension, and against the number of products.

The field has two hidden layers of 64 units at its initialisation, so that an evaluation costs O(D) and the exact trace
O(D²); its Jacobian's rank is at most 64. "brute force" is what a user writes: one backward pass a dimension. All ways
of a dimension take turns in one process; every peak of memory is read in a process of its own.
"""

import math
import statistics
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers.fields import Traced
from benchmarks.recorded import CLOCK, measured, peak_of, record
from benchmarks.settings import DEVICE, QUICK, grid
from benchmarks.tasks import stream
from repro.flows.divergence import DIVERGENCES, NOISES
from repro.measuring.meters import in_turn, status_of
from repro.measuring.step import Step
from repro.metrics import saved_bytes, timed
from repro.nets.fields import ConcatSquashField

WIDTH, BATCH = 64, 16
DIMENSIONS = grid((2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048), (4, 32, 128, 256, 512))
WAYS = {
    "brute force": None,
    "exact": ("exact", 0),
    "closed form": ("closed_form", 0),
    "Hutchinson": ("hutchinson", 1),
    "bottleneck": ("bottleneck", 1),
    "Hutch++": ("hutchpp", 3),
    "XTrace": ("xtrace", 2),
}
"""Name in `DIVERGENCES` and number of probes of the ways whose cost is measured."""
PASSES = ("forward", "forward + backward")
ROUNDS = grid(9, 5)
SHORTEST = 3e-3
"""Seconds of a timed sample; quick calls are repeated to fill it."""
PRODUCTS = grid((6, 12, 24, 48, 96), (6, 24))
PROBES = {"Hutchinson": ("hutchinson", 1), "Hutch++": ("hutchpp", 1), "XTrace": ("xtrace", 2)}
"""Name in `DIVERGENCES`, and products that a probe costs."""
NOISY_DIMENSION, DRAWS = 128, grid(400, 100)


def field_and_state(dim):
    """The field, a time, and normal states."""
    torch.manual_seed(0)
    field = ConcatSquashField(dim, WIDTH, 2).to(DEVICE)
    return field, torch.tensor(0.5, device=DEVICE), torch.randn(BATCH, dim, generator=stream()).to(DEVICE)


def trace_step(way, dim):
    """A step whose loss is the sum of the field and its trace, for the field's parameters."""
    field, t, y = field_and_state(dim)

    def warm():  # the same way in its least dimension loads what it needs
        trace_step(way, min(DIMENSIONS)).take()

    if WAYS[way] is None:
        brute = Traced(field)
        return Step(lambda: sum(part.sum() for part in brute(t, (y,))), tuple(field.parameters()), warm=warm)
    name, probes = WAYS[way]
    width = field.bottleneck if name == "bottleneck" else dim
    noise = torch.randn(probes, BATCH, width, generator=stream(1)).to(DEVICE) if probes else None

    def loss():
        dy, trace = DIVERGENCES[name](field, t, y, noise)
        return dy.sum() + trace.sum()

    return Step(loss, tuple(field.parameters()), warm=warm)


def calls_of(step, way):
    """What is timed: the loss alone, without a graph for it, and the loss with its gradient."""
    forward = step.loss if way == "brute force" else torch.no_grad()(step.loss)  # it makes its graphs by itself
    return {"forward": forward, "forward + backward": step.take}


def measure(dim):
    """Every way's figures by way and pass: seconds per call, operations, bytes that autograd keeps."""
    found, calls = {}, {}
    for way in WAYS:
        try:
            step = trace_step(way, dim)
            step.take()
            kept = _kept(step)
            for part, call in calls_of(step, way).items():
                found[way, part] = {"status": "ok", "saved_bytes": kept, "flops": _flops(way, call)}
                calls[way, part] = call
        except Exception as error:  # a way that needs too much, or more probes than there are dimensions
            found |= {(way, part): {"status": status_of(error)} for part in PASSES}
    for key, seconds in repeated_in_turn(calls).items():
        found[key]["seconds"] = seconds
    return found


def _kept(step):
    with saved_bytes(exclude=iter(step.leaves)) as meter:
        loss = step.loss()
    del loss
    return meter.total


def _flops(way, call):
    """Floating-point operations of a call; None for brute force, whose backward passes the counter cannot watch."""
    if way == "brute force":
        return None
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def repeated_in_turn(calls):
    """Seconds of a call, `ROUNDS` samples of each in turn; the first calls, which fix the repetitions, are left out."""
    repeats = {key: max(1, round(SHORTEST / min(timed(call, DEVICE) for _ in range(3)))) for key, call in calls.items()}
    samples = {key: lambda call=call, n=repeats[key]: [call() for _ in range(n)] for key, call in calls.items()}
    timings = in_turn(samples, ROUNDS, DEVICE, math.inf, ROUNDS)
    return {key: [sample / repeats[key] for sample in seconds] for key, seconds in timings.items()}


def noise_of(way, products, kind):
    """Standard deviation of one row's estimate over draws, and the size of the traces, in float64."""
    field, t, y = field_and_state(NOISY_DIMENSION)
    field, y, t = field.double(), y[:1].double(), t.double()
    name, price = PROBES[way]
    with torch.no_grad():
        exact = float(DIVERGENCES["exact"](field, t, y, None)[1])
        noise = NOISES[kind]((products // price, DRAWS, NOISY_DIMENSION), stream(2)).to(DEVICE).double()
        estimates = DIVERGENCES[name](field, t, y.expand(DRAWS, -1), noise)[1]
    jacobian = torch.func.jacrev(lambda row: field(t, row[None])[0])(y[0])
    return {
        "status": "ok",
        "exact": exact,
        "frobenius": float(jacobian.detach().norm()),
        "bias": float(estimates.mean()) - exact,
        "deviation": statistics.stdev(estimates.tolist()),
        "draws": DRAWS,
    }


@pytest.mark.parametrize("part", PASSES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dim", DIMENSIONS)
@pytest.mark.benchmark(group="cost of a trace", timer=CLOCK, disable_gc=False)
def test_cost(dim, way, part, benchmark):
    """One evaluation of field and trace, with or without its gradient."""
    found = measured(measure, dim, timeout=1200)
    known = dict(found.get((way, part), found))
    if known["status"] == "ok" and part == PASSES[1] and not QUICK:
        known |= peak_of(partial(trace_step, way, dim))
    seconds = known.pop("seconds", [])
    record(benchmark, {"divergence": "dimension", "value": dim, "way": way, "pass": part} | known, seconds)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("way", PROBES)
@pytest.mark.parametrize("products", PRODUCTS)
@pytest.mark.benchmark(group="noise of a trace", timer=CLOCK, disable_gc=False)
def test_noise(products, way, kind, benchmark):
    """The spread of an estimate for so many products with the Jacobian."""
    known = noise_of(way, products, kind)
    assert abs(known["bias"]) < 5 * known["deviation"] / DRAWS**0.5 + 1e-9 * abs(known["frobenius"])
    record(benchmark, {"divergence": "products", "value": products, "way": way, "noise": kind} | known)
