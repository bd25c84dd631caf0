"""Calibration: equalised channels, and the statistics of activations from one pass of the fp32 model over the samples.

The model runs on ONNX Runtime, which hands out activations several times faster than Paddle's executor.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx

from act.metrics import cosine
from act.onnx_graph.conversion import to_onnx, with_weights
from act.program.layers import Layer
from act.program.model import InferenceModel
from act.program.passes.equalisation import equalisable, equalise
from act.quantization.activations import Reader, largest_of_channels, reader
from act.quantization.statistics import Snapshots, TensorStatistics, collect
from act.quantization.thresholds import asymmetric_rules
from act.samples.dataset import Array, Samples

log = logging.getLogger(__name__)

# For threshold rules that take a share of the values.
SHARES = (0.999, 0.9999, 0.99999)
# Batches that the ranges of the channels are taken from, before the one pass over all of them.
CHANNEL_BATCHES = 4
LEAST_SIMILARITY = 1 - 1e-5


def equalise_channels(
    model: InferenceModel, fp32: onnx.ModelProto, layers: Sequence[Layer], samples: Samples, batch_size: int
) -> tuple[InferenceModel, onnx.ModelProto, list[str]]:
    """Return the model with equalised channels, the same as ONNX, and the names of the equalised activations."""
    names = equalisable(model, layers)
    if not names:
        return model, fp32, []
    read = reader(fp32, [layer for layer in layers if layer.activation in names])
    largest = largest_of_channels(read, names, first_batches(samples, batch_size, CHANNEL_BATCHES))
    if not largest:
        return model, fp32, []
    result = equalise(model, layers, largest)
    batch = next(samples.head(1).batches(1))
    similarity = min(cosine(a, b) for a, b in zip(result.run(batch), model.run(batch)))
    if not similarity >= LEAST_SIMILARITY:  # NaN as well
        log.info("calibrate: equalised channels would change the outputs (similarity %.6f), so they stay", similarity)
        return model, fp32, []
    return result, with_weights(fp32, result) or to_onnx(result), list(largest)


def gather_statistics(read: Reader, samples: Samples, batch_size: int, batch_nums: Collection[int]) -> Snapshots:
    """Return the statistics of activations after each of some numbers of batches.

    Args:
        read: the activations of one batch, by name.
        batch_nums: one beyond the end of the samples means all of them.

    Raises:
        FloatingPointError: an activation is NaN or infinite.
    """
    total = sum(1 for _ in first_batches(samples, batch_size, max(batch_nums)))
    numbers = {min(number, total) for number in batch_nums}
    return collect(read, first_batches(samples, batch_size, max(numbers)), max(numbers), numbers)


def ranges_by_rule(statistics: Mapping[str, TensorStatistics]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the least and the largest value of every tensor without symmetry, by threshold rule."""
    ranges: dict[str, dict[str, tuple[float, float]]] = {}
    for label, clip in asymmetric_rules(SHARES).items():
        clipped = {name: clip(each, False) for name, each in statistics.items()}
        ranges[label] = {name: (span.low, span.high) for name, span in clipped.items()}
    return ranges


def first_batches(samples: Samples, size: int, most: int) -> Iterator[dict[str, Array]]:
    """Give the first batches of the samples, at any time only one of them in memory."""
    for _, batch in zip(range(most), samples.batches(size)):
        yield batch
        samples.release()
