"""`python -m tasks.ptq_search.calibrate --job NAME`: one pass of the fp32 model over the calibration samples.

Writes `statistics.npz`, what every threshold rule needs to know of every activation that a layer reads, after each of
the numbers of batches that the search may choose from; and `calibrate.json`: those numbers and the activations. The
model runs on ONNX Runtime, which hands out activations several times faster than Paddle's executor.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from act.artifacts import read_json, replace_folder, stage_folder, write_json
from act.errors import InputError
from act.params import Calibration
from act.stage import job_from_command_line

if TYPE_CHECKING:  # heavy to import, and a skipped stage needs none of it
    from act.samples import Array, Samples

STATISTICS_FILE = "statistics.npz"


def main() -> None:
    """Parse the command line and run the stage."""
    with job_from_command_line("tasks.ptq_search.calibrate", "Gather one job's calibration statistics.") as (name, job):
        strategy = read_json(stage_folder(name, "select") / "strategy.json")
        with replace_folder(stage_folder(name, "calibrate")) as folder:
            if strategy["quantize"]:
                _calibrate(stage_folder(name, "prepare"), job.calibration, folder)
            else:
                print("calibrate: nothing to do: the strategy does not quantize")
                write_json(folder / "calibrate.json", {"batch_num": [], "activations": []})


def _calibrate(prepared: Path, settings: Calibration, folder: Path) -> None:
    from act.activations import reader
    from act.model import InferenceModel
    from act.onnx_format import to_onnx
    from act.quantization import OPERATORS, quantizable_layers
    from act.samples import Samples
    from tasks.ptq_search.statistics import collect, save

    model = InferenceModel.load(prepared / "model")
    layers = quantizable_layers(model, OPERATORS)
    if not layers:
        print("calibrate: nothing to do: the model has no layer that can be quantized")
        write_json(folder / "calibrate.json", {"batch_num": [], "activations": []})
        return
    samples = Samples.load(prepared / "calibration")
    # A number beyond the end of the samples means all of them.
    total = sum(1 for _ in _batches(samples, settings.batch_size, max(settings.batch_num)))
    numbers = sorted({min(number, total) for number in settings.batch_num})
    batches = _batches(samples, settings.batch_size, numbers[-1])
    try:
        found = collect(reader(to_onnx(model), layers), batches, numbers[-1], numbers)
    except FloatingPointError as error:
        raise InputError(f"{prepared / 'model'}: {error}; mend the model or the samples") from None
    save(folder / STATISTICS_FILE, found)
    activations = [layer.activation for layer in layers]
    write_json(folder / "calibrate.json", {"batch_num": numbers, "activations": list(dict.fromkeys(activations))})
    print(f"calibrate: {len(set(activations))} activations, {numbers[-1]} batches of {settings.batch_size}")


def _batches(samples: Samples, size: int, most: int) -> Iterator[dict[str, Array]]:
    """The first batches of the samples, at any time only one of them in memory."""
    for _, batch in zip(range(most), samples.batches(size)):
        yield batch
        samples.release()


if __name__ == "__main__":
    main()
