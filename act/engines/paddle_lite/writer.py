"""The files for Paddle Lite: `.nb` for ARM, written by its own `opt`, and the Paddle model that its x86 runtime reads.

Half precision is fp32's file with fp16 kernels: the weights are converted on the phone. There is no int8 mixed with
fp16: what `opt` leaves in float in a quantized model is fp32 whatever it is told.
"""

import math
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from act.engines.paddle_lite.runtime import read_kernels
from act.engines.process import EngineFailure, cause_of_death
from act.engines.writer import Export, Exported, PaddleWriter
from act.environments import LITE
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
# For training and for oneDNN: Paddle Lite reads none of them, but keeps them, and they are a tenth of a small file.
_OF_NO_USE = (
    *("op_role", "op_role_var", "op_namescope", "op_callstack", "op_device", "with_quant_attr", "use_cudnn"),
    *("use_mkldnn", "use_quantizer", "mkldnn_data_type", "use_addto", "exhaustive_search", "force_fp32_output"),
    *("Scale_in", "Scale_out", "Scale_x", "Scale_y", "Scale_in_eltwise", "Scale_weights", "workspace_size_MB"),
    *("fuse_residual_connection", "use_gpudnn"),
)

ArmPrecision = Literal["fp32", "fp16", "int8"]


class PaddleLiteWriter(PaddleWriter):
    """Writes the Paddle program that Paddle Lite can read, and `.nb` files for ARM of it."""

    def program(self, model: InferenceModel, scheme: Scheme | None) -> InferenceModel:
        return for_lite(super().program(model, scheme))

    def write_files(self, export: Export) -> Exported:
        exported = super().write_files(export)
        precisions: tuple[ArmPrecision, ...] = ("fp32", "fp16") if export.scheme is None else ("int8",)
        return replace(exported, elsewhere=[self._arm(export, precision) for precision in precisions])

    def _arm(self, export: Export, precision: ArmPrecision) -> DeviceFile:
        folder, kind = export.folder / self.spec.name, f"ARM, {precision}"
        file = folder / f"arm-{precision}.nb"
        try:
            write_nb(folder, file, precision)
        except EngineFailure as failure:
            return DeviceFile(kind=kind, file=None, bytes=0, failure=str(failure))
        return export.device_file(kind, file, ExecutedOperators.model_validate(read_kernels(file)))


def for_lite(model: InferenceModel) -> InferenceModel:
    """Return the same model as Paddle Lite 2.13 can read it; the given one is not changed.

    Paddle 2.6 leaves out outputs that only training reads. Paddle Lite dies (SIGSEGV in
    `FlattenContiguousRangeOp::InferType`) of one that is not there, where a `matmul_v2` follows. Its `opt` dies
    (SIGABRT in `SSAGraph`) of zero points that several operators share, and where it fuses the bias of a convolution
    that has axes of length one about it, as `paddle.nn.Conv2D` leaves it.
    """
    result = model.copy()
    for op in result.ops:
        for name in filter(op.has_attr, _OF_NO_USE):
            op.desc.remove_attr(name)
        if op.type == "flatten_contiguous_range" and "XShape" not in op.output_names:
            _add_shape_output(result, op)
        elif op.type in ("quantize_linear", "dequantize_linear"):
            shared, own = op.input("ZeroPoint")[0], f"{op.output('Y')[0]}@zero_points"
            result.rename_input(op, shared, result.add_weight(own, result.weight(shared), stop_gradient=False))
        elif op.type == "elementwise_add":
            _flatten_bias(result, op)
    return result


def _add_shape_output(model: InferenceModel, op: Any) -> None:
    block = model.program.global_block()
    source = block.var(op.desc.input("X")[0])
    name = f"{op.desc.output('Out')[0]}.xshape"
    # As Paddle declares it: an axis of no length, and then the shape that was flattened.
    block.create_var(name=name, shape=[0, *source.shape], dtype=source.dtype)
    op.desc.set_output("XShape", [name])


def _flatten_bias(model: InferenceModel, op: Any) -> None:
    """Make a summand [1, channels, 1, 1] one of [channels] along the axis of channels."""
    name = op.input("Y")[0]
    if not model.is_weight(name) or len(model.shape(op.input("X")[0])) != 4:
        return
    shape = model.shape(name)
    if len(shape) == 4 and shape[1] == math.prod(shape):
        flat = f"{name}.flat"
        if not model.has(flat):
            model.add_weight(flat, model.weight(name).reshape(-1), stop_gradient=False)
        model.rename_input(op, name, flat)
        op._set_attr("axis", 1)


def write_nb(folder: Path, file: Path, precision: ArmPrecision, seconds: float = OPT_SECONDS) -> None:
    """Write a `.nb` file for ARM.

    Args:
        folder: with `model.pdmodel` and `model.pdiparams` as `for_lite` makes them, quantized for int8.
        file: to write, ending in `.nb`.
        seconds: after which `opt` is killed.

    Raises:
        EngineFailure: Paddle Lite's environment is not there, or `opt` crashed, hung or refused the model.
    """
    interpreter = LITE.python()
    if interpreter is None:
        raise EngineFailure("missing", LITE.lacks() or "Paddle Lite's environment is gone")
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
        raise EngineFailure("crash" if done.returncode < 0 else "error", f"`opt` {cause}")
