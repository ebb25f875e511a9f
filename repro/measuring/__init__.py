"""The meters of the suite: what a training step costs in time, evaluations and memory, and how exact its gradient is.

`repro.measure` is the door for a field of one's own; the benchmarks use the same parts. Nothing is imported here, so
that a measuring process loads no more than it needs.
"""
