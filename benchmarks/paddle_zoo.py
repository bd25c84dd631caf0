"""`python -m benchmarks.paddle_zoo`: whether models of PaddleClas, PaddleSeg, PaddleDetection and PaddleNLP come in.

After `make zoo`, which writes architectures of the four packages with drawn weights by Paddle 2.6 and by Paddle 3.3:

- each file is imported; what Paddle 3 wrote is run beside Paddle 3, and beside what 2.6 wrote of the same network, of
  which it must have the same layers to quantize; each body is written as ONNX and run beside the program;
- where boxes are chosen, the file with its tail put back gives the boxes of the given model, of one picture and of
  several, on ONNX Runtime and OpenVINO;
- with `--chain` each goes through all stages, as a job with little to search.

Prints a row for each, writes `benchmarks/results/paddle_zoo.json`, and ends with code 1, naming what was not reached.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import openvino

from act.engines.process import EngineProcess
from act.errors import InputError
from act.formats import SourceModel
from act.onnx_graph.append import append
from act.onnx_graph.conversion import to_onnx
from act.program.model import InferenceModel
from act.program.outputs import deviation
from act.samples.dataset import Array, Ragged, Samples
from act.tail.split import SplitModel
from benchmarks import paddle3, paddle_zoo_exports
from benchmarks.bench import ROOT, conclude
from benchmarks.formats import LARGEST_DEVIATION, send_through, written_again

RESULT = ROOT / "benchmarks" / "results" / "paddle_zoo.json"
MODELS = ROOT / "benchmarks" / "cache" / "paddle_zoo"
FORMS = ("paddle2", "paddle3")
DRAWS = 2
CALIBRATION, EVALUATION, TRAINING_MINUTES = 8, 8, 1.0


def drawn(model: InferenceModel, seed: int, count: int = 2) -> dict[str, Array]:
    """Draw samples for a model."""
    inputs = [(each.name, str(each.dtype), [None if n < 0 else n for n in each.shape]) for each in model.feed_specs()]
    return paddle_zoo_exports.drawn(inputs, count, np.random.default_rng(seed))


def read_forms(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Import one network from each form that it is there in, by form, and compare."""
    rows: dict[str, dict[str, Any]] = {}
    known: tuple[InferenceModel, list[Array]] | None = None
    for form, folder in files.items():
        try:
            source = SourceModel.find(folder)
            parts = source.split()
        except InputError as error:
            rows[form] = {"refused": str(error)}
            continue
        model = parts.whole or parts.body
        batch = drawn(model, 0)
        found = [np.asarray(each) for each in model.run(batch)]
        row: dict[str, Any] = {
            "operators": len(model.ops),
            "layers": len(paddle3.layers_of(parts.body)),
            "again": written_again(parts.body, drawn(parts.body, 0)),
        }
        if parts.tail is not None:
            row["tail"] = parts.tail.operators
            row["boxes"] = boxes(parts)
        if source.runtime is not None:
            row["deviation"] = max(_deviations(source, model))
        if known is not None:
            row["deviation_of_paddle_2"] = deviation(found, known[1])
            row["same_layers"] = paddle3.layers_of(parts.body) == paddle3.layers_of(known[0])
        known = known or (parts.body, found)
        rows[form] = row
    return rows


def _deviations(source: SourceModel, model: InferenceModel) -> Iterator[float]:
    """Yield how far the program is from the file in its own runtime, for one sample each: outputs may count boxes."""
    assert source.runtime is not None
    with tempfile.TemporaryDirectory() as scratch, EngineProcess(source.runtime, source.files[0], "fp32") as process:
        process.load()
        for seed in range(DRAWS):
            batch, folder = drawn(model, seed, 1), Path(scratch) / str(seed)
            Samples({name: Ragged.of(list(values)) for name, values in batch.items()}).save(folder)
            yield _distance([np.asarray(each) for each in model.run(batch)], process.tensors(folder))


def boxes(parts: SplitModel) -> dict[str, Any]:
    """Return how many boxes the given model chooses, and by engine how far those are that its file with the tail gives.

    The distance is that of whole outputs, in their order; infinite where they have other lengths.
    """
    assert parts.tail is not None and parts.whole is not None
    with tempfile.TemporaryDirectory() as scratch:
        file, result = Path(scratch) / "whole.onnx", dict.fromkeys(ENGINES, 0.0)
        onnx.save(append(to_onnx(parts.body), parts.tail.to_onnx(), [each.name for each in parts.tail.outputs]), file)
        count = 0
        for size in (1, 3):
            batch = drawn(parts.whole, size, size)
            wanted = [np.asarray(each) for each in parts.whole.run(batch)]
            count += len(wanted[0])
            for engine, run in ENGINES.items():
                result[engine] = max(result[engine], _distance(run(file, batch), wanted))
    return {"chosen": count, **result}


def _distance(found: Sequence[Array], wanted: Sequence[Array]) -> float:
    same = all(one.shape == other.shape for one, other in zip(found, wanted, strict=True))
    return deviation(list(found), list(wanted)) if same else float("inf")


def _in_onnxruntime(file: Path, batch: Mapping[str, Array]) -> list[Array]:
    found: list[Array] = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, dict(batch))
    return found


def _in_openvino(file: Path, batch: Mapping[str, Array]) -> list[Array]:
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(each) for each in compiled(dict(batch)).values()]


ENGINES: Mapping[str, Callable[[Path, Mapping[str, Array]], list[Array]]] = {
    "onnxruntime": _in_onnxruntime,
    "openvino": _in_openvino,
}


def chain(name: str, folder: Path) -> dict[str, Any]:
    """Send a model through all stages, on drawn samples."""
    body = SourceModel.find(folder).split().body
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "data").mkdir()
        for seed, (role, count) in enumerate({"calibration": CALIBRATION, "evaluation": EVALUATION}.items(), 1):
            np.savez(place / "data" / f"{role}.npz", **drawn(body, seed, count))
        data = {"reader": "arrays", "path": "data"}
        job = name.replace("_", "-")
        return send_through(job, folder, data, "similarity", place, qat={"time_limit_minutes": TRAINING_MINUTES})


def misses_of(row: Mapping[str, Any]) -> list[str]:
    """Return what a row did not reach, each in a few words."""
    if "refused" in row:
        return [row["refused"]]
    figures = {key: row[key] for key in ("deviation", "deviation_of_paddle_2", "again") if key in row}
    figures |= {f"boxes on {engine}": row["boxes"][engine] for engine in ENGINES if "boxes" in row}
    found = [
        f"{key}: {value if isinstance(value, str) else f'{value:.2g}, where {LARGEST_DEVIATION:g} is allowed'}"
        for key, value in figures.items()
        if isinstance(value, str) or not value <= LARGEST_DEVIATION
    ]
    if not row.get("same_layers", True):
        found.append("has other layers to quantize than Paddle 2.6's")
    chained = row.get("chain", {})
    return [*found, *([f"the stage {chained['failed']} failed: {chained['why']}"] if "failed" in chained else [])]


def _shown(row: Mapping[str, Any]) -> str:
    cells = {key: value for key, value in row.items() if key != "chain"}
    cells |= {key: value for key, value in row.get("chain", {}).items() if key != "variants"}
    return ", ".join(f"{key} {f'{value:.3g}' if isinstance(value, float) else value}" for key, value in cells.items())


def main() -> int:
    """Parse the command line, measure, and say what was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paddle_zoo", description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=MODELS, help="where `make zoo` wrote them")
    parser.add_argument("--only", nargs="+", help="names of networks")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--chain", action="store_true", help="send each model through all stages, too; takes hours")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    misses = []
    for name in paddle_zoo_exports.networks():
        if arguments.only and name not in arguments.only:
            continue
        files = {form: (arguments.models / form / name).resolve() for form in arguments.forms}
        lacking = [form for form, folder in files.items() if not folder.is_dir()]
        misses += [f"{name}: {form} did not write it: see `make zoo`" for form in lacking]
        rows[name] = read_forms({form: folder for form, folder in files.items() if form not in lacking})
        for form, row in rows[name].items():
            if arguments.chain and "refused" not in row:
                row["chain"] = chain(name, files[form])
            print(f"{name} ({form}): {_shown(row)}", flush=True)
            misses += [f"{name} ({form}): {miss}" for miss in misses_of(row)]
    return conclude(RESULT, {"networks": rows}, misses)


if __name__ == "__main__":
    sys.exit(main())
