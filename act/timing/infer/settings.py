"""The settings of the stand-alone measurement: the fields of ACT's `infer.yaml`, and a few more.

Each is a key of the YAML file and a flag of the command line, which wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from act.engines.base import RuntimePrecision
from act.engines.spec import all_specs
from act.settings import Timing, read_mapping, validate

_SIZE = re.compile(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?")


def _sizes(value: Any) -> tuple[tuple[int, int], ...]:
    """Return heights and widths, from a number, `HEIGHTxWIDTH`, or a list of such."""
    found = [_SIZE.fullmatch(str(each)) for each in (value if isinstance(value, (list, tuple)) else [value])]
    if not found or not all(found):
        allowed = "whole numbers from 1 to 99999 or HEIGHTxWIDTH, such as 224 or 48x320"
        raise ValueError(f"at least one size is needed, and all must be {allowed}")
    return tuple(dict.fromkeys((int(each[1]), int(each[2] or each[1])) for each in found if each))


def _onnx_engines() -> list[str]:
    """List the engines that .onnx files can be run on without a GPU."""
    able = (each for each in all_specs() if each.reads_onnx and each.infer and each.infer.get("use_gpu") is False)
    return sorted(each.name for each in able)


def _reads_onnx(name: str) -> str:
    if name not in _onnx_engines():
        raise ValueError(f"must be one of {', '.join(_onnx_engines())}")
    return name


def split_precision(entry: str) -> tuple[str, str | None]:
    """Return a path and, where one stands after the last `=`, a precision."""
    path, sign, precision = entry.rpartition("=")
    return (path, precision) if sign else (entry, None)


def _names_a_model(entry: str) -> str:
    path, precision = split_precision(entry)
    if not path:
        raise ValueError("it names no model")
    if precision not in (None, *get_args(RuntimePrecision)):
        raise ValueError(f"`{precision}` in `{entry}` is none of {', '.join(get_args(RuntimePrecision))}")
    return entry


class Infer(Timing):
    """What to measure and how."""

    inference_model_dir: str = Field(
        min_length=1, description="folder with a Paddle inference model, its .pdmodel file, or an .onnx file"
    )
    model_filename: str | None = Field(
        default=None, description="program file in that folder, or an .onnx file in it; found when left out"
    )
    params_filename: str | None = Field(default=None, description="weights file in that folder; found when left out")
    batch_size: int = Field(default=1, ge=1, le=4096)
    image_size: Annotated[tuple[tuple[int, int], ...], BeforeValidator(_sizes)] = Field(
        default=224,
        validate_default=True,
        description="size of dynamic picture axes: 224, 48x320, or several, each measured",
    )
    use_tensorrt: bool = Field(default=False, description="needs use_gpu")
    use_gpu: bool = Field(default=False, description="NVIDIA GPU; .onnx files then run on ONNX Runtime alone")
    enable_mkldnn: bool = Field(default=True, description="oneDNN kernels for Paddle models on the CPU")
    use_fp16: bool = Field(default=False, description="half precision, with TensorRT")
    use_bf16: bool = Field(default=False, description="half precision on CPUs that have it")
    use_int8: bool = Field(default=False, description="int8 kernels; the model must be a quantized one")
    cpu_num_threads: int = Field(default=1, ge=1, le=256, description="threads of one inference")
    sequence_length: int = Field(default=128, ge=1, le=1 << 20, description="length of dynamic axes other than those")
    engines: list[Annotated[str, AfterValidator(_reads_onnx)]] = Field(
        default_factory=_onnx_engines, min_length=1, description="where .onnx files run on the CPU"
    )
    compare: list[Annotated[str, AfterValidator(_names_a_model)]] = Field(
        default=[],
        description="further models to measure beside the first: paths, with =PRECISION after one to choose how it "
        "runs (fp32, bf16, fp16, int8, int8+bf16); else int8 if it is quantized, fp32 if not",
    )

    @model_validator(mode="after")
    def _switches_fit(self) -> Infer:
        if self.use_tensorrt and not self.use_gpu:
            raise ValueError("`use_tensorrt` is set without `use_gpu`: TensorRT runs on NVIDIA GPUs; set both or none")
        for other in ("use_int8", "use_bf16"):
            if self.use_fp16 and getattr(self, other):
                raise ValueError(f"`use_fp16` and `{other}` are both set: choose one")
        return self

    @property
    def precision(self) -> RuntimePrecision:
        """Return how the first model is to run."""
        if self.use_int8:
            return "int8+bf16" if self.use_bf16 else "int8"
        return "fp16" if self.use_fp16 else "bf16" if self.use_bf16 else "fp32"


def read(path: Path | None, flags: Mapping[str, Any]) -> Infer:
    """Return the settings of a file with flags put over them; `InputError` names every wrong key."""
    if path is None:
        return validate(Infer, flags, "the command line")
    raw = read_mapping(path, "name an existing settings file after --config")
    return validate(Infer, {**raw, **flags}, f"{path} and the command line" if flags else str(path))
