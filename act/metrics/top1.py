"""`top1`: the share of samples whose likeliest class is the label."""

from collections.abc import Sequence

import numpy as np

from act.metrics import Scorer
from act.samples.dataset import Array


class Metric(Scorer):
    """Scores 1 where the largest value of the first output, float [classes], is that of the label."""

    title = "top-1 accuracy"
    labels = "class"

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> float:
        return float(int(np.argmax(outputs[0])) == int(truth[0].reshape(-1)[0]))
