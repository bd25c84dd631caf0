"""What all threshold rules need to know of an activation, collected in one pass over the samples.

Each tensor keeps the largest absolute value of every batch and a histogram of absolute values. When a value exceeds
the histogram's range, the range doubles and neighbouring bins merge, so no second pass is needed and memory does not
grow with the number of samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from act.model import InferenceModel
from act.samples import Array

BINS = 2048


@dataclass
class TensorStatistics:
    """Absolute values of one activation.

    Attributes:
        batch_maxima: the largest absolute value of each batch.
        counts: int64 [BINS], how many absolute values fell into each bin of equal width.
        width: width of a bin; 0 until a value other than zero was seen.
    """

    batch_maxima: list[float] = field(default_factory=list)
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))
    width: float = 0.0

    @property
    def largest(self) -> float:
        """The largest absolute value seen."""
        return max(self.batch_maxima, default=0.0)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """The middle of each bin, float64 [BINS]."""
        return (np.arange(BINS) + 0.5) * self.width

    def add(self, values: Array) -> None:
        """Count the values of one batch.

        Raises:
            FloatingPointError: a value is NaN or infinite.
        """
        magnitudes = np.abs(values.astype(np.float32, copy=False)).reshape(-1)
        largest = float(magnitudes.max(initial=0.0))
        if not np.isfinite(largest):
            raise FloatingPointError("holds NaN or infinity")
        self.batch_maxima.append(largest)
        if largest == 0:
            self.counts[0] += magnitudes.size
            return
        if self.width == 0:
            self.width = largest / BINS
        while largest > self.width * BINS:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS // 2, dtype=np.int64)])
            self.width *= 2
        bins = np.minimum((magnitudes * np.float32(1 / self.width)).astype(np.int32), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)


def collect(
    model: InferenceModel, tensors: Iterable[str], batches: Iterable[Mapping[str, Array]], count: int
) -> dict[str, TensorStatistics]:
    """Run the fp32 model on every batch and gather the statistics of the named activations.

    Args:
        count: number of batches, for the progress bar.

    Raises:
        FloatingPointError: an activation is NaN or infinite; the message names it.
    """
    names = list(dict.fromkeys(tensors))
    statistics = {name: TensorStatistics() for name in names}
    for batch in tqdm(batches, total=count, desc="calibration", unit="batch", leave=False):
        for name, values in zip(names, model.run(batch, names)):
            try:
                statistics[name].add(values)
            except FloatingPointError as error:
                raise FloatingPointError(f"the activation `{name}` of the fp32 model {error}") from None
    return statistics
