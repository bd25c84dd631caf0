"""The files for Paddle Lite: `.nb` for ARM, written by its own `opt`, and the Paddle model that its x86 runtime reads.

Half precision is fp32's file with fp16 kernels: the weights are converted on the phone. There is no int8 mixed with
fp16: what `opt` leaves in float in a quantized model is fp32 whatever it is told.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Literal

from act.engines.paddle_lite import environment
from act.engines.paddle_lite.program import for_lite
from act.engines.paddle_lite.runtime import read_kernels
from act.engines.process import EngineFailure, cause_of_death, one_line
from act.engines.writer import Export, Exported, PaddleWriter
from act.program.files import PROGRAM_FILE, WEIGHTS_FILE
from act.program.model import InferenceModel
from act.quantization.scheme import Scheme
from act.results.export import DeviceFile, ExecutedOperators

OPT_SECONDS = 300.0

# Starts what follows with Linux's ADDR_NO_RANDOMIZE, because `opt` writes a few bytes of an address into its file.
# Where that is not allowed it changes nothing.
_ADDRESSES_AS_EVER = (
    "import ctypes, os, sys; ctypes.CDLL(None).personality(0x0040000); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)

ArmPrecision = Literal["fp32", "fp16", "int8"]


class PaddleLiteWriter(PaddleWriter):
    """Writes the Paddle program that Paddle Lite can read, and `.nb` files for ARM of it."""

    def program(self, model: InferenceModel, scheme: Scheme | None) -> InferenceModel:
        return for_lite(super().program(model, scheme))

    def export(self, export: Export) -> Exported:
        # With zero points it drops the shifts that stand for them without a word, and with them the int8 kernels.
        exported = super().export(export)
        if exported.path is None:
            return exported
        precisions: tuple[ArmPrecision, ...] = ("fp32", "fp16") if export.scheme is None else ("int8",)
        return replace(exported, elsewhere=[_arm(export, exported.path, precision) for precision in precisions])


def _arm(export: Export, folder: Path, precision: ArmPrecision) -> DeviceFile:
    kind, file = f"ARM, {precision}", folder / f"arm-{precision}.nb"
    try:
        write_nb(folder, file, precision)
    except EngineFailure as failure:
        return export.device_file(kind, None, str(failure))
    return export.device_file(kind, file, operators=ExecutedOperators.model_validate(read_kernels(file)))


def write_nb(folder: Path, file: Path, precision: ArmPrecision, seconds: float = OPT_SECONDS) -> None:
    """Write a `.nb` file for ARM.

    Args:
        folder: with `model.pdmodel` and `model.pdiparams` as `for_lite` makes them, quantized for int8.
        file: to write, ending in `.nb`.
        seconds: after which `opt` is killed.

    Raises:
        EngineFailure: Paddle Lite's environment is not there, or `opt` crashed, hung or refused the model.
    """
    interpreter = environment.python()
    if interpreter is None:
        raise EngineFailure("missing", environment.lacks() or "Paddle Lite's environment is gone")
    command = [
        *(str(interpreter), "-c", _ADDRESSES_AS_EVER, str(interpreter.parent / "paddle_lite_opt")),
        f"--model_file={folder / PROGRAM_FILE}",
        f"--param_file={folder / WEIGHTS_FILE}",
        f"--optimize_out={file.with_suffix('')}",
        "--valid_targets=arm",
        f"--enable_fp16={'true' if precision == 'fp16' else 'false'}",
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        file.unlink(missing_ok=True)
        raise EngineFailure("timeout", f"`opt` was not done within its time limit of {seconds:g} s") from None
    if done.returncode != 0 or not file.is_file():
        file.unlink(missing_ok=True)
        cause = cause_of_death(done.returncode, done.stdout).replace("ended with exit code 0", "wrote no file", 1)
        raise EngineFailure("crash" if done.returncode < 0 else "error", one_line(f"`opt` {cause}"))
