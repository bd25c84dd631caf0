"""What calibration gives beside the statistics: equalised channels, what can be smoothed, and the ranges of every
threshold rule."""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from act.comparison import similarity
from act.onnx_graph.conversion import to_onnx, with_weights
from act.program.layers import Layer, quantizable_layers
from act.program.model import InferenceModel
from act.program.passes.equalisation import equalisable, equalise
from act.program.passes.smoothing import smooth, smoothable, smoothed_name, smoothing_factors
from act.quantization.activations import reader
from act.quantization.statistics import Reader, TensorStatistics
from act.quantization.thresholds import asymmetric_rules
from act.results.quantization import Calibration
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
    largest = {}
    if names:
        read = reader(fp32, [layer for layer in layers if layer.activation in names])
        batches = first_batches(samples, batch_size, CHANNEL_BATCHES)
        largest = largest_of_channels(read, names, chain.from_iterable(batches))
    if not largest:
        return model, fp32, []
    result = equalise(model, layers, largest)
    batch = next(samples.head(1).batches(1))
    kept = similarity(result.run(batch), model.run(batch))
    if kept < LEAST_SIMILARITY:
        log.info("calibrate: equalised channels would change the outputs (similarity %.6f), so they stay", kept)
        return model, fp32, []
    return result, with_weights(fp32, result) or to_onnx(result), list(largest)


def channels_to_smooth(
    model: InferenceModel, fp32: onnx.ModelProto, layers: Sequence[Layer], samples: Samples, batch_size: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the largest absolute value of each channel of what can be smoothed: float32 [channels], by activation."""
    names = smoothable(model, layers)
    if not names:
        return {}
    read = reader(fp32, [layer for readers in names.values() for layer in readers])
    batches = first_batches(samples, batch_size, CHANNEL_BATCHES)
    return largest_of_channels(read, names, chain.from_iterable(batches), axis=-1)


def with_smoothed(
    read: Reader,
    model: InferenceModel,
    layers: Sequence[Layer],
    largest: Mapping[str, npt.NDArray[np.float32]],
    strengths: Sequence[float],
) -> Reader:
    """Return a reader that also gives what the activations are with each strength of smoothing, for one run of the
    model."""
    factors = {
        smoothed_name(name, strength): (name, values)
        for strength in strengths
        for name, values in smoothing_factors(model, layers, largest, strength).items()
    }

    def read_all(batch: Mapping[str, Array]) -> Mapping[str, Array]:
        values = read(batch)
        return {**values, **{smoothed: values[name] / divisors for smoothed, (name, divisors) in factors.items()}}

    return read_all


def calibrated_model(folder: Path, strength: float | None) -> InferenceModel:
    """Load the model that the stage `calibrate` left in its folder, as schemes with a strength of smoothing quantize
    it."""
    model = InferenceModel.load(folder / "model")
    if strength is None:
        return model
    largest = largest_of(Calibration.read(folder / "calibrate.json"))
    return smooth(model, quantizable_layers(model), largest, strength)


def largest_of(calibration: Calibration) -> dict[str, npt.NDArray[np.float32]]:
    """Return the largest absolute value of each channel of what can be smoothed: float32 [channels], by activation."""
    return {name: np.array(values, dtype=np.float32) for name, values in calibration.largest.items()}


def largest_of_channels(
    read: Reader, names: Collection[str], batches: Iterable[Mapping[str, Array]], axis: int = 1
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the largest absolute value of each channel, which lie along an axis: float32 [channels], by activation.

    Those that are NaN or infinite are left out.
    """
    extremes: dict[str, npt.NDArray[np.float32]] = {}
    for batch in batches:
        values = read(batch)
        for name in names:
            rows = np.moveaxis(values[name], axis, 0)
            largest = np.abs(rows.reshape(len(rows), -1)).max(axis=1, initial=0)
            extremes[name] = np.maximum(extremes.get(name, np.float32(0)), largest)
    return {name: largest for name, largest in extremes.items() if np.isfinite(largest).all()}


def ranges_by_rule(statistics: Mapping[str, TensorStatistics]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return the least and the largest value of every tensor without symmetry, by threshold rule."""
    return {
        label: {name: astuple(clip(each, False)) for name, each in statistics.items()}
        for label, clip in asymmetric_rules(SHARES).items()
    }


def first_batches(samples: Samples, size: int, most: int) -> Iterator[Iterator[dict[str, Array]]]:
    """Give the first batches of so many samples, each in parts that the model takes, at any time one of them in
    memory."""
    for _, batch in zip(range(most), samples.batches_in_parts(size)):
        yield batch
        samples.release()
