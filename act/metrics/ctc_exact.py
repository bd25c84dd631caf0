"""`ctc_exact`: the share of lines read exactly, with the mean similarity of their characters beside it."""

from collections.abc import Sequence

import numpy as np

from act.metrics import Quality, Scorer, mean
from act.samples.dataset import PADDING, Array, Ragged

BLANK = 0


class Metric(Scorer):
    """Scores 1 for a line that is read exactly.

    The first output holds the probability of each class at each position, float [positions, classes]; class 0 is the
    blank. Reading is greedy (Graves et al., 2006): the likeliest class at each position, repeats merged, no blanks.
    """

    title = "share of lines read exactly"
    labels = "sequence"
    first_class = BLANK + 1

    def __init__(self, truth: Sequence[Ragged]) -> None:
        super().__init__(truth)
        self._similarities: list[float] = []

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> float:
        wanted = truth[0][truth[0] != PADDING].tolist()
        found = read_ctc(outputs[0])
        self._similarities.append(1 - edit_distance(found, wanted) / max(len(wanted), len(found), 1))
        return float(found == wanted)

    def quality(self) -> Quality:
        """Return the quality; `character_similarity` is 1 - edit distance / length of the longer line."""
        return Quality(mean(self._scores), self._scores, {"character_similarity": mean(self._similarities)})


def read_ctc(probabilities: Array) -> list[int]:
    """Return the class numbers that greedy CTC reads from float [positions, classes]."""
    best = np.argmax(probabilities, axis=-1)
    changed = np.concatenate([[True], best[1:] != best[:-1]])
    return [int(label) for label in best[changed & (best != BLANK)]]


def edit_distance(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the least number of insertions, deletions and substitutions (Levenshtein, 1966)."""
    previous = list(range(len(second) + 1))
    for row, left in enumerate(first, start=1):
        current = [row]
        for column, right in enumerate(second, start=1):
            current.append(min(previous[column] + 1, current[-1] + 1, previous[column - 1] + (left != right)))
        previous = current
    return previous[-1]
