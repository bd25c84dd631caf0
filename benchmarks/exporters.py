"""Writing a model of the zoo in every form that `benchmarks.export` compares: ours, and what others make of it.

All are given the same ONNX file and the same calibration samples. Our scheme is a plain one, with ranges as far as
values were seen, which is what the others do by default, too.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import onnx

from act.engines.paddle_lite.runtime import read_kernels
from act.engines.paddle_lite.writer import write_nb
from act.engines.process import EngineFailure
from act.engines.writer import further_tensors, writer_of
from act.onnx_graph.conversion import to_onnx
from act.program.layers import quantizable_layers
from act.quantization.activations import reader
from act.quantization.scheme import Scheme, make_scheme
from act.quantization.statistics import TensorStatistics, collect
from act.quantization.thresholds import clip_by
from act.samples.dataset import Array
from act.settings import EngineName
from benchmarks.zoo import CALIBRATION, Prepared

Writer = Callable[["Source", Path], Path]
BATCH = 8


class Quantizable(Protocol):
    """What other quantizers start from: an fp32 model, and calibration samples of one each."""

    @property
    def onnx(self) -> onnx.ModelProto: ...

    @property
    def samples(self) -> list[dict[str, Array]]: ...


class Source:
    """A model to write in several forms, with what they all need, made once.

    Args:
        prepared: from the zoo.
    """

    def __init__(self, prepared: Prepared) -> None:
        self.model = prepared.model()
        self.onnx = to_onnx(self.model)
        self.layers = quantizable_layers(self.model)
        self.samples = list(prepared.calibration().batches(1))
        self._further = further_tensors(self.onnx)
        self._batches = [list(batch) for batch in prepared.calibration().batches_in_parts(BATCH)]

    @cached_property
    def statistics(self) -> Mapping[str, TensorStatistics]:
        """Collect the statistics of every activation that some target quantizes."""
        count = len(self._batches)
        return collect(reader(self.onnx, self.layers, self._further), self._batches, count)[count]

    def scheme(self, symmetric: bool) -> Scheme:
        """Return the scheme of all layers over the ranges seen; Paddle's kernels know symmetric ones alone."""
        ranges = {name: clip_by("abs_max", None)(tensor, symmetric) for name, tensor in self.statistics.items()}
        further = {name: ranges[name] for name in self._further}
        extremes = {name: self.statistics[name].extremes for name in ranges}
        return replace(make_scheme(self.model, self.layers, ranges), further=further, extremes=extremes)


def fp32(engine: EngineName) -> Writer:
    """Return what writes the model as it is."""
    return lambda source, folder: writer_of(engine).write(source.model, None, folder, source.onnx)


def ours(engine: EngineName) -> Writer:
    """Return what writes our int8 form."""

    def write(source: Source, folder: Path) -> Path:
        scheme = source.scheme(symmetric=engine != "onnxruntime")
        return writer_of(engine).write(source.model, scheme, folder, source.onnx)

    return write


def for_arm(folder: Path, precision: str) -> dict[str, Any]:
    """Describe Paddle Lite's file for ARM of the model in a folder: `bytes` and `operators`, or the `failure`."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "arm.nb"
        try:
            write_nb(folder, file, "int8" if precision == "int8" else "fp32")
        except EngineFailure as failure:
            return {"failure": str(failure)}
        return {"bytes": file.stat().st_size, "operators": read_kernels(file), "failure": None}


def quantize_static(source: Quantizable, folder: Path) -> Path:
    """Write what ONNX Runtime's own quantizer makes: U8S8, per channel, preprocessed."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._samples: Iterator[dict[str, Array]] = iter(source.samples)

        def get_next(self) -> dict[str, Array] | None:
            return next(self._samples, None)

    given, cleaned, target = folder / "fp32.onnx", folder / "cleaned.onnx", folder / "model.onnx"
    onnx.save(source.onnx, given)
    logging.getLogger().setLevel(logging.ERROR)
    before = Path.cwd()
    os.chdir(folder)  # where it leaves its temporary files when it fails
    try:
        quant_pre_process(str(given), str(cleaned))
    except Exception:  # it raises just that where a shape stays unknown, as in the detector
        quant_pre_process(str(given), str(cleaned), skip_symbolic_shape=True)
    finally:
        os.chdir(before)
    quantize(
        str(cleaned),
        str(target),
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    for leftover in set(folder.iterdir()) - {target}:
        leftover.unlink()
    return target


def nncf(source: Quantizable, folder: Path) -> Path:
    """Write what NNCF's default preset makes."""
    import nncf
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    given = folder / "fp32.onnx"
    onnx.save(source.onnx, given)
    read = openvino.Core().read_model(given)
    samples: list[Any] = source.samples
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars, between our tables
        quantized = nncf.quantize(read, nncf.Dataset(samples), subset_size=CALIBRATION)
    openvino.save_model(quantized, folder / "model.xml", compress_to_fp16=False)
    given.unlink()
    return folder / "model.xml"
