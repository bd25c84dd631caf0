"""The files for TensorRT: the ONNX model with pairs, and the fp32 one with a calibration cache (`act/writers`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import onnx

from act.engines.check import Checker
from act.engines.tensorrt import writer as tensorrt_gpu
from act.onnx_graph.conversion import to_onnx
from act.program.model import InferenceModel
from act.quantization.scheme import Scheme

ENGINE: Final = "tensorrt"
EXPLICIT, IMPLICIT, CACHE = "explicit.onnx", "implicit.onnx", "calibration.cache"


def add_files(
    entry: dict[str, Any], model: InferenceModel, scheme: Scheme | None, folder: Path, checker: Checker
) -> None:
    """Write an int8 candidate for TensorRT, and say so in its entry of `candidates.json`; fp32 is its ONNX file.

    The entry gets `files`, `bytes` and `check` for the engine `tensorrt`, and `tensorrt_implicit` with the paths of
    the fp32 `model` and its `cache`; or, where the scheme has zero points, only `refused`.

    Args:
        entry: of the candidate; changed.
        model: what the candidate was made from.
        scheme: how; None for fp32.
        folder: the export stage's, which has a folder of the candidate's name.
        checker: compares the file with the model.

    Raises:
        RuntimeError: the file does not compute what the simulated model does.
    """
    if scheme is None:
        entry["files"][ENGINE] = entry["files"]["onnxruntime"]
        entry["bytes"][ENGINE] = entry["bytes"]["onnxruntime"]
        return
    if not all(span.symmetric for span in scheme.activations.values()):
        entry.setdefault("refused", {})[ENGINE] = (
            "TensorRT knows no zero point: search with `activation_symmetric: [true]`"
        )
        return
    converted = to_onnx(model)
    target = folder / entry["name"] / ENGINE
    target.mkdir()
    onnx.save(tensorrt_gpu.explicit(converted, model, scheme), target / EXPLICIT)
    similarity = checker.near(model, scheme, target / EXPLICIT)
    plain, cache = tensorrt_gpu.implicit(converted, model, scheme)
    onnx.save(plain, target / IMPLICIT)
    (target / CACHE).write_text(cache, encoding="utf-8")
    path = f"{entry['name']}/{ENGINE}"
    entry["files"][ENGINE] = f"{path}/{EXPLICIT}"
    entry["bytes"][ENGINE] = (target / EXPLICIT).stat().st_size
    entry["check"][ENGINE] = round(similarity, 6)
    entry["tensorrt_implicit"] = {"model": f"{path}/{IMPLICIT}", "cache": f"{path}/{CACHE}"}
