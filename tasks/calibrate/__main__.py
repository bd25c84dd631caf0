"""`python -m tasks.calibrate --job NAME`: one pass of the fp32 model over the calibration samples.

Reads the model of `prune` and the samples of `prepare`. Writes `model/`, the fp32 model with equalised channels, which
everything int8 is made from; `statistics.npz`, what every threshold rule needs to know of every activation that a layer
of it reads, or that an engine wants quantized besides, after each of the numbers of batches that the search may choose
from; `ranges.json`, what each rule makes of the statistics of all batches, for engines that are not searched on; and
`calibrate.json`: those numbers, the activations, and the equalised ones. The model runs on ONNX Runtime, which hands
out activations several times faster than Paddle's executor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from act.artifacts import replace_folder, stage_folder
from act.errors import InputError
from act.results import calibrate as results
from act.results.select import Strategy
from act.settings import Calibration
from tasks.stage import job_from_command_line

if TYPE_CHECKING:  # heavy to import, and a skipped stage needs none of it
    import onnx

    from act.program.layers import Layer
    from act.program.model import InferenceModel
    from act.quantization.statistics import TensorStatistics
    from act.samples.dataset import Array, Samples

RANGES_FILE = "ranges.json"
# For threshold rules that take a share of the values.
SHARES = (0.999, 0.9999, 0.99999)
# Batches that the ranges of the channels are taken from, before the one pass over all of them.
CHANNEL_BATCHES = 4
LEAST_SIMILARITY = 1 - 1e-5


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.calibrate", "Gather one job's calibration statistics.") as (name, job):
        strategy = Strategy.read(stage_folder(name, "select") / "strategy.json")
        with replace_folder(stage_folder(name, "calibrate")) as folder:
            if strategy.quantize:
                _calibrate(stage_folder(name, "prepare"), stage_folder(name, "prune"), job.calibration, folder)
            else:
                print("calibrate: nothing to do: the strategy does not quantize")
                results.Calibration().write(folder / "calibrate.json")


def _calibrate(prepared: Path, pruned: Path, settings: Calibration, folder: Path) -> None:
    from act.engines.writer import further_tensors
    from act.onnx_graph.conversion import to_onnx
    from act.program.layers import quantizable_layers
    from act.program.model import InferenceModel
    from act.quantization.activations import reader
    from act.quantization.statistics import STATISTICS_FILE, collect, save
    from act.samples.dataset import Samples

    model = InferenceModel.load(pruned / "model")
    layers = quantizable_layers(model)
    if not layers:
        print("calibrate: nothing to do: the model has no layer that can be quantized")
        (folder / "model").mkdir()
        model.save(folder / "model")
        results.Calibration().write(folder / "calibrate.json")
        return
    samples = Samples.load(prepared / "calibration")
    # A number beyond the end of the samples means all of them.
    total = sum(1 for _ in _batches(samples, settings.batch_size, max(settings.batch_num)))
    numbers = sorted({min(number, total) for number in settings.batch_num})
    batches = _batches(samples, settings.batch_size, numbers[-1])
    try:
        model, converted, names = equalised(model, to_onnx(model), layers, samples, settings.batch_size)
        read = reader(converted, layers, further_tensors(converted))
        found = collect(read, batches, numbers[-1], numbers)
    except FloatingPointError as error:
        raise InputError(f"{pruned / 'model'}: {error}; mend the model or the samples") from None
    (folder / "model").mkdir()
    model.save(folder / "model")
    save(folder / STATISTICS_FILE, found)
    results.Ranges(rules=_ranges(found[numbers[-1]])).write(folder / RANGES_FILE)
    activations = list(dict.fromkeys(layer.activation for layer in layers))
    told = results.Calibration(batch_num=numbers, activations=activations, equalised=names)
    told.write(folder / "calibrate.json")
    print(
        f"calibrate: {len(activations)} activations, {len(names)} of them with equalised channels, "
        f"{numbers[-1]} batches of {settings.batch_size}"
    )


def _ranges(statistics: Mapping[str, TensorStatistics]) -> dict[str, dict[str, tuple[float, float]]]:
    """By rule the least and the largest value of every tensor, without symmetry."""
    from act.quantization.thresholds import asymmetric_rules

    rules = asymmetric_rules(SHARES)
    spans = {label: {name: clip(each, False) for name, each in statistics.items()} for label, clip in rules.items()}
    return {label: {name: (span.low, span.high) for name, span in found.items()} for label, found in spans.items()}


def equalised(
    model: InferenceModel, converted: onnx.ModelProto, layers: list[Layer], samples: Samples, batch_size: int
) -> tuple[InferenceModel, onnx.ModelProto, list[str]]:
    """The model with equalised channels, the same as ONNX, and the names of the activations that were equalised.

    Args:
        model: the fp32 model.
        converted: the same as ONNX.
        layers: that may be quantized.
        samples: for calibration.
        batch_size: samples at a time.
    """
    from act.metrics import cosine
    from act.onnx_graph.conversion import to_onnx, with_weights
    from act.program.passes.equalisation import equalisable, equalise
    from act.quantization.activations import largest_of_channels, reader

    names = equalisable(model, layers)
    if not names:
        return model, converted, []
    read = reader(converted, [layer for layer in layers if layer.activation in names])
    largest = largest_of_channels(read, names, _batches(samples, batch_size, CHANNEL_BATCHES))
    if not largest:
        return model, converted, []
    result = equalise(model, layers, largest)
    batch = next(samples.head(1).batches(1))
    similarity = min(cosine(a, b) for a, b in zip(result.run(batch), model.run(batch)))
    if not similarity >= LEAST_SIMILARITY:  # NaN as well
        print(f"calibrate: equalised channels would change the outputs (similarity {similarity:.6f}), so they stay")
        return model, converted, []
    return result, with_weights(converted, result) or to_onnx(result), list(largest)


def _batches(samples: Samples, size: int, most: int) -> Iterator[dict[str, Array]]:
    """The first batches of the samples, at any time only one of them in memory."""
    for _, batch in zip(range(most), samples.batches(size)):
        yield batch
        samples.release()


if __name__ == "__main__":
    main()
