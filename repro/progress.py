"""How far a run is: a bar in a terminal, one plain line now and then elsewhere."""

import sys
import time
from collections.abc import Mapping

from tqdm import tqdm

HEARTBEAT_SECONDS = 30.0
SHORT = {"nfe_forward": "NFE-F", "nfe_backward": "NFE-B", "train_nll": "nll"}


class Bar:
    """Progress of one run with step time, ETA and the latest values (NFE among them).

    The ETA comes from the recent steps, not from all: function evaluations, and so the step time, drift in training.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.bar: tqdm | None = None
        self.recent: list[tuple[float, int]] = []
        self.last_line = 0.0

    def __call__(self, done: int, total: int, values: Mapping[str, float]) -> None:
        """Show `done` of `total` steps."""
        if sys.stderr.isatty():
            self._draw(done, total, values)
        else:
            self._heartbeat(done, total, values)

    def _draw(self, done: int, total: int, values: Mapping[str, float]) -> None:
        if self.bar is None:
            self.bar = tqdm(total=total, initial=done - 1, desc=self.label, unit="step", smoothing=0.1)
        self.bar.set_postfix_str(_describe(values), refresh=False)
        self.bar.update(done - self.bar.n)
        if done == total:
            self.bar.close()

    def _heartbeat(self, done: int, total: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        self.recent = [*self.recent[-50:], (now, done)]
        if now - self.last_line < HEARTBEAT_SECONDS and done < total:
            return
        self.last_line = now
        (start, first), span = self.recent[0], max(1, done - self.recent[0][1])
        seconds = (now - start) / span if done > first else 0.0
        eta = f"{seconds:.3g} s/step, ETA {seconds * (total - done) / 60:.0f} min" if seconds else ""
        print(f"{self.label}: step {done}/{total} ({done / total:.0%}) {_describe(values)} {eta}", file=sys.stderr)


def _describe(values: Mapping[str, float]) -> str:
    return " ".join(f"{SHORT.get(key, key)} {value:.3g}" for key, value in values.items())
