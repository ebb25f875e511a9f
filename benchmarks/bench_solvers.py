"""Error against evaluations and time for every solver on problems with closed forms and on a trained flow.

Every problem has a fresh process, in which all solvers take turns (`benchmarks.work_precision`); what it measured is
recorded here as one benchmark for each solver and setting. Times are those of forward solves on one thread.
"""

import pytest

from benchmarks.recorded import CLOCK, measured, record
from benchmarks.settings import grid
from benchmarks.work_precision import FLOWS, measure, settings
from repro.ode import PROBLEMS, SOLVERS

NAMES = (*grid(tuple(PROBLEMS), ("oscillator", "logistic")), *FLOWS)
WITHIN = 0.4
"""Of its order: how fast a fixed-step method's error must fall with its steps."""
RISING = ("implicit_adams",)
"""Of higher order than that of the steps that start it once the latter's error is small: held from below alone."""


def has_its_order(name, found):
    """Whether a fixed-step method's observed order is that of its theory; where none could be fitted, it has."""
    solver = SOLVERS[name]
    if found is None or not solver.is_fixed_step:
        return True
    excess = found - solver.order
    return excess >= -WITHIN and (excess <= WITHIN or name in RISING)


@pytest.mark.parametrize(("problem", "method", "setting"), [(problem, *key) for problem in NAMES for key in settings()])
@pytest.mark.benchmark(group="forward solves", timer=CLOCK, disable_gc=False)
def test_solve(problem, method, setting, benchmark):
    """A solver with a setting; a fixed-step one's error falls by its order on problems with closed forms."""
    found = measured(measure, problem)
    if "status" in found:  # the whole process failed, as where there is no published flow
        known = {"work_precision": problem, "method": method, "engine": SOLVERS[method].engine, "setting": setting}
        record(benchmark, known | found)
        return
    entry = found[method, setting]
    record(benchmark, entry["known"], entry["seconds"])
    assert problem not in PROBLEMS or has_its_order(method, entry["known"]["order"])
