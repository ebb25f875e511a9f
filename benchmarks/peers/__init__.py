"""The same training steps in the libraries that a reader could have chosen instead.

`workloads` makes weights, data, probe and the float64 reference; each `*_way` module says how a library's own users
would write the step; `worker` takes the steps of one workload in turn, in a process of its own; `bench_peers` starts
the workers and records what they measured.
"""
