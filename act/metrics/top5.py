"""`top5`: the share of samples whose label is among the five likeliest classes."""

from collections.abc import Sequence

import numpy as np

from act.metrics import Scorer
from act.samples.dataset import Array

PLACES = 5


class Metric(Scorer):
    """Scores 1 where fewer than five values of the first output, float [classes], exceed that of the label."""

    title = "top-5 accuracy"
    labels = "class"

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> float:
        values, label = outputs[0].reshape(-1), int(truth[0].reshape(-1)[0])
        return float(np.count_nonzero(values > values[label]) < PLACES)
