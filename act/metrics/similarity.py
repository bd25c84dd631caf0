"""`similarity`: the mean cosine similarity of the outputs to those of the fp32 model; needs no labels."""

from collections.abc import Sequence

from act.metrics import Scorer, cosine, mean
from act.samples.dataset import Array


class Metric(Scorer):
    """Scores the mean over the outputs of their cosine similarity to the fp32 model's for the same sample."""

    title = "cosine similarity to the fp32 outputs"
    labels = None

    def score(self, outputs: Sequence[Array], truth: Sequence[Array]) -> float:
        return mean([cosine(output, wanted) for output, wanted in zip(outputs, truth, strict=True)])
