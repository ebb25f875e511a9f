"""All ways, in the order in which they take turns: the baseline first."""

from benchmarks.peers import diffrax_way, ours, torchdiffeq_way, torchdyn_way, torchode_way, zuko_way
from benchmarks.peers.protocol import Way
from benchmarks.peers.workloads import PLANS

WAYS: list[Way] = [
    *torchdiffeq_way.WAYS,
    *ours.WAYS,
    *zuko_way.WAYS,
    *torchdyn_way.WAYS,
    *torchode_way.WAYS,
    *diffrax_way.WAYS,
]
BASELINE = WAYS[0].key
"""What ratios are taken to: torchdiffeq's adjoint."""


def ways_of(name: str) -> list[Way]:
    """The ways that have a row for a workload."""
    return [way for way in WAYS if PLANS[name].kind in way.kinds]
