"""Turns that models take at being timed, which may be taken again where something disturbed them.

A turn by itself waits for quiet moments (`act/engines/quiet.py`), but a neighbour who fills the caches may go on for
longer than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from act.engines.process import EngineProcess
from act.engines.quiet import LONGER


@dataclass(frozen=True)
class Turn:
    """Some runs of one model.

    Attributes:
        process: with the model loaded.
        samples: folder that `Samples.save` wrote.
        batch: samples in each run.
        runs: how many.
        first: the batch to begin with.
        seconds: of each run, where the turn went best; empty before it was taken.
    """

    process: EngineProcess
    samples: Path
    batch: int
    runs: int
    first: int = 0
    seconds: list[float] = field(default_factory=list)

    def take(self) -> None:
        """Time the runs; what they took before stays where that was less.

        Raises:
            EngineFailure: the engine failed.
        """
        taken = self.process.time(self.samples, self.batch, self.runs, self.first)
        if not self.seconds or sum(taken) < sum(self.seconds):
            self.seconds[:] = taken

    @property
    def disturbed(self) -> bool:
        """Whether the runs took clearly longer than these inputs have at their quickest until now.

        Raises:
            EngineFailure: the engine failed.
        """
        quickest = self.process.quickest(self.samples, self.batch)
        return sum(self.seconds) > LONGER * sum(
            quickest[(self.first + run) % len(quickest)] for run in range(self.runs)
        )
