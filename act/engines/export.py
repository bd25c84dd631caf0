"""The files of one candidate: the Paddle model, its ONNX twin, one for each engine that reads ONNX, and the calibration
table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from act.engines import calibration_table
from act.engines.check import Checker
from act.engines.evaluation import READS_ONNX, write_int8_onnx
from act.engines.int8_operators import INT8_OPERATORS
from act.engines.paddle_inference import writer as paddle_cpu
from act.onnx_graph.conversion import to_onnx
from act.program.files import PROGRAM_FILE, WEIGHTS_FILE
from act.program.model import InferenceModel
from act.quantization.onnx_model import quantize_onnx
from act.quantization.quantized_program import quantize
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme, left_in_float, without_others
from act.settings import EngineName

REFERENCE = "fp32"
FP32_ONNX = "model.onnx"
INT8_ONNX = "quant_model.onnx"
CALIBRATION_TABLE = "calibration_table.txt"


def write_fp32(model: InferenceModel, folder: Path, checker: Checker, name: str = REFERENCE) -> dict[str, Any]:
    """Write an fp32 model to `folder/name` and return its entry in `candidates.json`."""
    target = folder / name
    target.mkdir()
    model.save(target)
    onnx.save(to_onnx(model), target / FP32_ONNX)
    files = dict.fromkeys(READS_ONNX, FP32_ONNX)
    return _entry(name, "fp32", target, files, checker.fp32(model, target, target / FP32_ONNX))


def write_int8(
    name: str,
    model: InferenceModel,
    scheme: Scheme,
    folder: Path,
    checker: Checker,
    alternatives: Mapping[str, Mapping[str, Range]] | None = None,
) -> dict[str, Any]:
    """Write an int8 candidate to `folder/name` and return its entry in `candidates.json`.

    Args:
        name: of the candidate.
        model: the fp32 model that the scheme is for.
        scheme: what quantizes it.
        folder: the stage's.
        checker: compares the files with the model.
        alternatives: by rule the ranges of all tensors, for ONNX Runtime to choose from; None where the scheme was
            found on it.

    Raises:
        RuntimeError: a file's outputs are not those of the simulated quantized model.
    """
    target = folder / name
    target.mkdir()
    simulated = quantize(model, scheme)
    for_paddle = paddle_cpu.write(model, scheme)
    for_paddle.save(target)
    converted = to_onnx(model)
    onnx.save(quantize_onnx(converted, model, scheme), target / INT8_ONNX)
    calibration_table.write(scheme, target / CALIBRATION_TABLE)
    check = checker.int8(model, simulated, scheme, target / INT8_ONNX)
    check["paddle"] = checker.paddle(for_paddle, target)
    files: dict[EngineName, str] = {}
    for engine in READS_ONNX:
        file = target / f"{engine}.onnx"
        able = without_others(model, scheme, INT8_OPERATORS[engine])
        written = write_int8_onnx(engine, converted, model, able)
        if engine == "onnxruntime" and alternatives:
            written = _most_similar(name, written, converted, model, able, checker, alternatives)
        onnx.save(written, file)
        similarity, holds = checker.target(model, simulated, file)
        if not holds:
            # More of it is rounded than this model bears: the plain form serves every engine, though more slowly.
            print(f"export: {name}: {file.name} loses too much (similarity {similarity:.4f}); its plain form is taken")
            file.unlink()
            file = target / INT8_ONNX
        files[engine] = file.name
        check[engine] = similarity
    return {**_entry(name, "int8", target, files, check), "left_in_float": left_in_float(model, scheme)}


def _most_similar(
    name: str,
    written: onnx.ModelProto,
    converted: onnx.ModelProto,
    model: InferenceModel,
    scheme: Scheme,
    checker: Checker,
    alternatives: Mapping[str, Mapping[str, Range]],
) -> onnx.ModelProto:
    """What was written for ONNX Runtime, or the same with the ranges of the rule that comes nearest to fp32 there.

    It rounds at more places than the engine that the scheme was found on, and bears other ranges best.
    """
    best, chosen = checker.on_onnxruntime(model, written), "the scheme's own"
    print(f"export: {name}: for ONNX Runtime: similarity {best:.4f} with the scheme's own ranges", end="")
    for label, spans in alternatives.items():
        activations = {tensor: spans[tensor] for tensor in scheme.activations}
        other = write_int8_onnx(
            "onnxruntime", converted, model, replace(scheme, activations=activations, further=spans)
        )
        similarity = checker.on_onnxruntime(model, other)
        if similarity > best:
            best, chosen, written = similarity, label, other
    print(f", {best:.4f} with {chosen}, which are taken")
    return written


def _entry(
    name: str, precision: str, target: Path, onnx_files: Mapping[EngineName, str], check: dict[str, float]
) -> dict[str, Any]:
    paddle_bytes = sum((target / file).stat().st_size for file in (PROGRAM_FILE, WEIGHTS_FILE))
    onnx_paths = {engine: f"{target.name}/{file}" for engine, file in onnx_files.items()}
    onnx_bytes = {engine: (target / file).stat().st_size for engine, file in onnx_files.items()}
    return {
        "name": name,
        "precision": precision,
        "files": {"paddle_inference": target.name, **onnx_paths},
        "bytes": {"paddle_inference": paddle_bytes, **onnx_bytes},
        "weight_bytes": (target / WEIGHTS_FILE).stat().st_size,
        "check": {name: round(value, 6) for name, value in check.items()},
    }
