"""`python -m tasks.calibrate --job NAME`: one pass of the fp32 model over the calibration samples.

Reads the model of `prune` and the samples of `prepare`. Writes

- `model/`: the fp32 model with equalised channels, which everything int8 is made from;
- `statistics.npz`: what every threshold rule needs to know of every activation that a layer reads, or that an engine
  wants quantized besides, after each of the numbers of batches that the search may choose from;
- `ranges.json`: what each rule makes of the statistics of all batches, for engines that are not searched on;
- `calibrate.json`: those numbers, the activations, the equalised ones, and the channels of those that can be smoothed.
"""

import logging
import math
from pathlib import Path

from act.artifacts import replace_folder, stage_folder
from act.errors import InputError
from act.results import quantization as results
from act.results.quantization import GIVEN_QUANTIZATION
from act.results.select import Strategy
from act.settings import Calibration
from tasks.stage import job_from_command_line

log = logging.getLogger(__name__)


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.calibrate", "Gather one job's calibration statistics.") as (name, job):
        strategy = Strategy.read(stage_folder(name, "select") / "strategy.json")
        with replace_folder(stage_folder(name, "calibrate")) as folder:
            described = results.Calibration()
            if strategy.quantize:
                described = _calibrate(name, job.calibration, folder)
            else:
                log.info("calibrate: nothing to do: the strategy does not quantize")
            described.write(folder / "calibrate.json")


def _calibrate(name: str, settings: Calibration, folder: Path) -> results.Calibration:
    # Paddle takes seconds to import, and a skipped stage needs none of it.
    from act.engines.writer import further_tensors
    from act.onnx_graph.conversion import to_onnx
    from act.program.layers import quantizable_layers
    from act.program.model import InferenceModel
    from act.quantization.activations import reader
    from act.quantization.calibration import (
        channels_to_smooth,
        equalise_channels,
        first_batches,
        ranges_by_rule,
        with_smoothed,
    )
    from act.quantization.statistics import STATISTICS_FILE, collect, save
    from act.samples.dataset import Samples

    source = stage_folder(name, "prune") / "model"
    model = InferenceModel.load(source)
    layers = quantizable_layers(model)
    (folder / "model").mkdir()
    if not layers:
        log.info("calibrate: nothing to do: the model has no layer that can be quantized")
        model.save(folder / "model")
        return results.Calibration()
    samples, size = Samples.load(stage_folder(name, "prepare") / "calibration"), settings.batch_size
    batches = min(max(settings.batch_num), math.ceil(len(samples) / size))
    # Factors of channels would change the ranges that the user's own model rounds over.
    is_quantized = (stage_folder(name, "prepare") / GIVEN_QUANTIZATION).exists()
    try:
        fp32 = to_onnx(model)
        equalised: list[str] = []
        if not is_quantized:
            model, fp32, equalised = equalise_channels(model, fp32, layers, samples, size)
        strengths = settings.smooth_strength
        largest = channels_to_smooth(model, fp32, layers, samples, size) if strengths else {}
        read = reader(fp32, layers, further_tensors(fp32))
        read = with_smoothed(read, model, layers, largest, strengths)
        statistics = collect(read, first_batches(samples, size, batches), batches, settings.batch_num)
    except FloatingPointError as error:
        raise InputError(f"{source}: {error}; mend the model or the samples") from None
    model.save(folder / "model")
    save(folder / STATISTICS_FILE, statistics)
    results.Ranges(rules=ranges_by_rule(statistics[batches])).write(folder / "ranges.json")
    activations = list(dict.fromkeys(layer.activation for layer in layers))
    figures = (len(activations), len(equalised), len(largest), batches, size)
    told = "calibrate: %d activations, %d of them with equalised channels, %d can be smoothed, %d batches of %d"
    log.info(told, *figures)
    return results.Calibration(
        batch_num=sorted(statistics),
        activations=activations,
        equalised=equalised,
        smooth_strength=strengths if largest else [],
        largest={name: values.tolist() for name, values in largest.items()},
    )


if __name__ == "__main__":
    main()
