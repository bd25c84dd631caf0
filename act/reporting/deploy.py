"""Fills `deploy/<job>`: the quantized model in every documented form, the winner for its engine, and checksums.

The quantized files are there whoever won: another target may want them. Everything is copied from the export stage's
folder, never rewritten.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from act.errors import InputError
from act.timing.rows import MeasuredVariant

WINNER_FOLDER = "winner"
_PADDLE_FILES = ("model.pdmodel", "model.pdiparams")
_CALIBRATION_TABLE = "calibration_table.txt"
_INT8_ONNX = "quant_model.onnx"
_READ_BLOCK = 1 << 20


def copy_models(exported: Path, candidates: Mapping[str, Any], winner: MeasuredVariant, folder: Path) -> str:
    """Copy the model files into `folder`.

    Args:
        exported: the export stage's folder.
        candidates: the content of its `candidates.json`.
        winner: whose files go to `folder/winner`.
        folder: where to.

    Returns:
        The name of the candidate whose files stand at the top: the best quantized one, or fp32 when there is none.

    Raises:
        InputError: a file that the export stage should have left is missing.
    """
    entries = {entry["name"]: entry for entry in candidates["candidates"]}
    name: str = candidates.get("deploy") or next(n for n, entry in entries.items() if entry["precision"] == "fp32")
    files = {engine: exported / path for engine, path in entries[name]["files"].items()}
    sources = {file: files["paddle_inference"] / file for file in _PADDLE_FILES}
    if entries[name]["precision"] == "int8":
        sources[_CALIBRATION_TABLE] = files["paddle_inference"] / _CALIBRATION_TABLE
        sources[_INT8_ONNX] = files["paddle_inference"] / _INT8_ONNX
    won = exported / entries[winner.candidate]["files"][winner.engine]
    if won.suffix == ".onnx":
        sources[f"{WINNER_FOLDER}/{won.name}"] = won
    else:
        sources |= {f"{WINNER_FOLDER}/{file}": won / file for file in _PADDLE_FILES}
    for entry in (next(e for e in entries.values() if e["name"] == "fp32"), entries[name]):
        for path in _for_other_devices(entry):
            sources["/".join(Path(path).parts[1:])] = exported / path
    for target, source in sources.items():
        (folder / target).parent.mkdir(exist_ok=True, parents=True)
        try:
            shutil.copyfile(source, folder / target)
        except FileNotFoundError:
            raise InputError(f"{source}: no such file; run the stage `export` again") from None
    return name


def _for_other_devices(entry: Mapping[str, Any]) -> list[str]:
    """The files of a candidate for ARM and for TensorRT, below the export stage's folder."""
    arm = [file["file"] for file in entry.get("paddle_lite_arm", []) if file["failure"] is None]
    implicit = entry.get("tensorrt_implicit")
    return arm if implicit is None else [*arm, entry["files"]["tensorrt"], implicit["model"], implicit["cache"]]


def checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def how_to_load(winner: MeasuredVariant, threads: int) -> str:
    """Python lines that run the winner the way it was measured, from inside the deploy folder."""
    file = f"{WINNER_FOLDER}/{Path(winner.path or '').name}"
    if winner.engine == "openvino":
        hint = "bf16" if "bf16" in winner.precision else "f32"
        return (
            "import openvino\n\n"
            "core = openvino.Core()\n"
            f'model = core.compile_model("{file}", "CPU", {{\n'
            f'    "INFERENCE_PRECISION_HINT": "{hint}",\n'
            f'    "INFERENCE_NUM_THREADS": "{threads}",\n'
            '    "NUM_STREAMS": "1",\n'
            '    "PERFORMANCE_HINT": "LATENCY",\n'
            '    "ENABLE_CPU_PINNING": "NO",\n'
            "})\n"
            "# feeds: {input name: array with the batch axis first}\n"
            "outputs = model(feeds)"
        )
    if winner.engine == "onnxruntime":
        return (
            "import onnxruntime\n\n"
            "options = onnxruntime.SessionOptions()\n"
            f"options.intra_op_num_threads = {threads}\n"
            f'session = onnxruntime.InferenceSession(\n    "{file}", options, providers=["CPUExecutionProvider"]\n)\n'
            "# feeds: {input name: array with the batch axis first}\n"
            "outputs = session.run(None, feeds)"
        )
    if winner.engine == "tensorrt":
        options = {"fp16": '{"trt_fp16_enable": True}', "int8": '{"trt_int8_enable": True}'}.get(winner.precision, "{}")
        return (
            "import onnxruntime  # the package onnxruntime-gpu, with TensorRT on the library path\n\n"
            f'providers = [("TensorrtExecutionProvider", {options}), "CUDAExecutionProvider"]\n'
            f'session = onnxruntime.InferenceSession("{file}", providers=providers)\n'
            "# feeds: {input name: array with the batch axis first}\n"
            "outputs = session.run(None, feeds)"
        )
    if winner.engine == "paddle_lite":
        return (
            "import paddlelite.lite as lite  # of the environment that `make lite` makes\n\n"
            "config = lite.CxxConfig()\n"
            f'config.set_model_file("{WINNER_FOLDER}/model.pdmodel")\n'
            f'config.set_param_file("{WINNER_FOLDER}/model.pdiparams")\n'
            f"config.set_threads({threads})\n"
            "kinds = [lite.PrecisionType.INT8, lite.PrecisionType.FP32]\n"
            "places = [lite.Place(lite.TargetType.X86, kind) for kind in kinds]\n"
            "config.set_valid_places([*places, lite.Place(lite.TargetType.Host, lite.PrecisionType.FP32)])\n"
            'config.add_discarded_pass("lite_conv_activation_fuse_pass")\n'
            "predictor = lite.create_paddle_predictor(config)"
        )
    kernels = {"bf16": "config.enable_mkldnn_bfloat16()\n", "int8": "config.enable_mkldnn_int8()\n"}
    return (
        "from paddle import inference\n\n"
        f'config = inference.Config("{WINNER_FOLDER}/model.pdmodel", "{WINNER_FOLDER}/model.pdiparams")\n'
        f"config.set_cpu_math_library_num_threads({threads})\n"
        "config.enable_mkldnn()\n"
        f"{kernels.get(winner.precision, '')}"
        "predictor = inference.create_predictor(config)"
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BLOCK):
            digest.update(block)
    return digest.hexdigest()
