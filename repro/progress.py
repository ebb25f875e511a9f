"""Progress of runs: bars or lines in a terminal, one plain line now and then elsewhere."""

import os
import sys
import time
from collections.abc import Hashable, Mapping

from tqdm import tqdm

HEARTBEAT_SECONDS = 30.0
HEARTBEAT = "REPRO_HEARTBEAT"
"""Environment variable: seconds between two plain lines, for a scheduler that draws them."""
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
        self.seconds = float(os.environ.get(HEARTBEAT, HEARTBEAT_SECONDS))

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
        if now - self.last_line < self.seconds and done < total:
            return
        self.last_line = now
        (start, first), span = self.recent[0], max(1, done - self.recent[0][1])
        seconds = (now - start) / span if done > first else 0.0
        eta = f"{seconds:.3g} s/step, ETA {seconds * (total - done) / 60:.0f} min" if seconds else ""
        print(f"{self.label}: step {done}/{total} ({done / total:.0%}) {_describe(values)} {eta}", file=sys.stderr)


def _describe(values: Mapping[str, float]) -> str:
    return " ".join(f"{SHORT.get(key, key)} {value:.3g}" for key, value in values.items())


class CellLines:
    """Progress of several cells in processes of their own.

    In a terminal: one line for each that runs, and messages above them; elsewhere plain lines with the cell's label.
    """

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.running: dict[Hashable, tqdm] = {}

    def start(self, key: Hashable, label: str) -> None:
        """Give a cell a line, the first that is free."""
        if self.terminal:
            taken = {line.pos for line in self.running.values()}
            position = next(row for row in range(len(taken) + 1) if -row not in taken)
            line = tqdm(bar_format="{desc}", position=position, leave=False, dynamic_ncols=True)
            line.set_description_str(f"{label}: starting")
            self.running[key] = line

    def show(self, key: Hashable, label: str, text: str) -> None:
        """Show a line that a cell's process wrote; steps are progress, all else is a message."""
        line = self.running.get(key)
        if line is not None and text.startswith(f"{label}: step "):
            line.set_description_str(text)
        elif text.strip():
            self.write(text if text.startswith(label) else f"{label}: {text}")

    def write(self, text: str) -> None:
        """Print a message."""
        if self.terminal:
            tqdm.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def end(self, key: Hashable) -> None:
        """Take a cell's line away."""
        if key in self.running:
            self.running.pop(key).close()

    def close(self) -> None:
        """Take all lines away."""
        for key in list(self.running):
            self.end(key)
