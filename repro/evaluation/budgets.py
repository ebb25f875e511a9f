"""Training budgets of an experiment's cells: their setting, the full budget, and cells with a multiple of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Training budget of an experiment.

    Attributes:
        setting: Field of the config that holds it.
        unit: Its unit, as `epochs`.
        full: Full budget of the paper or its public code for a config, in that unit; None where neither states one.
        stopped: Checks from the config and the final rows of a run that the paper's stopping rule ended it.
        multiples: For a cell its cells with a multiple of the budget and otherwise the same settings.
        curves: For a final metric the metric of the training curve to read at half the budget, where the learning rate
            is constant.
    """

    setting: str
    unit: str
    full: Callable[[Any], float | None]
    stopped: Callable[[Any, Mapping[str, float]], bool] | None = None
    multiples: Mapping[str, Mapping[int, str]] = field(default_factory=lambda: MappingProxyType({}))
    curves: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, config: object) -> float:
        """Read the budget of a config."""
        return float(getattr(config, self.setting))


@dataclass(frozen=True, kw_only=True)
class Variants:
    """Cells that may stand for a cell.

    Attributes:
        multiples: As `Budget` has them.
        equivalents: For a cell the cell whose steps, of the same solver, another engine takes.
    """

    multiples: Mapping[str, Mapping[int, str]] = field(default_factory=lambda: MappingProxyType({}))
    equivalents: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def at(self, cell: str, multiple: int) -> list[str]:
        """List the cells with a multiple of a cell's budget, the cell's engine first."""
        engines = [cell, *([self.equivalents[cell]] if cell in self.equivalents else [])]
        if multiple == 1:
            return engines
        return [self.multiples[name][multiple] for name in engines if multiple in self.multiples.get(name, {})]

    @property
    def originals(self) -> list[str]:
        """List the cells for which others may stand."""
        return [cell for cell in (*self.equivalents, *self.multiples) if cell not in self.names]

    @property
    def names(self) -> set[str]:
        """Collect the cells that may stand for others."""
        multiples = {cell for cells in self.multiples.values() for cell in cells.values()}
        return multiples | set(self.equivalents.values())

    @property
    def factors(self) -> list[int]:
        """All multiples, ascending, 1 included."""
        return sorted({1, *(factor for cells in self.multiples.values() for factor in cells)})
