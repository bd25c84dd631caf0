"""`top1`: the share of samples whose likeliest class is the label."""

from collections.abc import Sequence

import numpy as np

from act.metrics import Scorer
from act.samples.dataset import Array


class Metric(Scorer):
    """Scores 1 where the largest value of the first output, float [classes], is that of the label.

    A model that ends in the number of the class gives one whole number instead.
    """

    title = "top-1 accuracy"
    labels = "class"

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> float:
        values = outputs[0]
        is_number = values.size == 1 and np.issubdtype(values.dtype, np.integer)
        found = values.reshape(-1)[0] if is_number else np.argmax(values)
        return float(int(found) == int(truth[0].reshape(-1)[0]))
