"""`ctc_exact`: the share of lines read exactly, with the mean similarity of their characters beside it."""

from collections.abc import Sequence

import numpy as np

from act.metrics import Figure, Scorer, mean
from act.samples.dataset import PADDING, Array

BLANK = 0


class Metric(Scorer):
    """Scores 1 for a line that is read exactly.

    The first output holds the probability of each class at each position, float [positions, classes]; class 0 is the
    blank. Reading is greedy (Graves et al., 2006): the likeliest class at each position, repeats merged, no blanks.
    """

    title = "share of lines read exactly"
    labels = "sequence"
    first_class = BLANK + 1

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> list[float]:
        """Return whether the line is read exactly, and how similar the characters are: 1 - edit distance / length of
        the longer line."""
        wanted = truth[0][truth[0] != PADDING].tolist()
        found = read_ctc(outputs[0])
        similarity = 1 - edit_distance(found, wanted) / max(len(wanted), len(found), 1)
        return [float(found == wanted), similarity]

    @staticmethod
    def figure(statistics: Sequence[list[float]]) -> Figure:
        return Scorer.figure([exact for exact, _ in statistics])

    @classmethod
    def beside(cls, statistics: Sequence[list[float]]) -> dict[str, float]:
        return {"character_similarity": mean([similarity for _, similarity in statistics])}


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
