"""Turns that models take at being timed, which may be taken again where something disturbed them.

A turn by itself waits for quiet moments (`act/engines/quiet.py`), but a neighbour who fills the caches may go on for
longer than that. Beside such neighbours a network with 13 MB of weights took 0.57 to 1.5 ms and its int8 form mostly
0.38 to 0.41 ms, in 295 turns of each within five minutes. From minute to minute, the ratio of both had a standard
deviation of 12 % by the median of all turns, and of 6 % by that of each one's five least disturbed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from act.engines.process import EngineProcess
from act.engines.quiet import LONGER

FEWEST = 5
"""So many turns of a model should be undisturbed."""


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
    def slowed(self) -> float:
        """How many times longer the runs took than these inputs have at their quickest until now.

        Raises:
            EngineFailure: the engine failed.
        """
        quickest = self.process.quickest(self.samples, self.batch)
        places = range(self.first, self.first + self.runs)
        return sum(self.seconds) / sum(quickest[place % len(quickest)] for place in places)


def disturbed(turns: Sequence[Turn]) -> list[Turn]:
    """Those of one model's turns that are worth taking again, because too few are without them; else none.

    Raises:
        EngineFailure: the engine failed.
    """
    found = [turn for turn in turns if turn.slowed > LONGER]
    return found if len(turns) - len(found) < min(FEWEST, len(turns)) else []


def undisturbed(slowed: Sequence[float]) -> list[int]:
    """Which of one model's turns count, by how much each was slowed: those that nobody disturbed, and the least
    disturbed where those are fewer than `FEWEST`; their places, ascending."""
    by_slowed = sorted(range(len(slowed)), key=slowed.__getitem__)
    enough = sum(each <= LONGER for each in slowed)
    return sorted(by_slowed[: max(enough, FEWEST)])
