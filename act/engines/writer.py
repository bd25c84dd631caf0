"""Writing a model the way an engine wants it, in fp32 or with a scheme: for the search, the analysis and the export."""

from __future__ import annotations

import logging
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import onnx

from act.engines.check import Checker
from act.engines.onnx_int8 import quantize_by_rules
from act.engines.spec import Spec, all_specs, spec_of
from act.onnx_graph.conversion import to_onnx
from act.onnx_graph.graph import inferred
from act.program.files import PROGRAM_FILE, WEIGHTS_FILE
from act.program.model import InferenceModel
from act.quantization.onnx_model import quantize_onnx
from act.quantization.qdq import Rules
from act.quantization.quantized_program import quantize
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme, without_others
from act.results.export import DeviceFile, ExecutedOperators

log = logging.getLogger(__name__)

FP32_ONNX = "model.onnx"
INT8_ONNX = "quant_model.onnx"


def write_for_engine(
    engine: str,
    model: InferenceModel,
    scheme: Scheme | None,
    folder: Path,
    fp32_onnx: onnx.ModelProto | None = None,
) -> Path:
    """Write an fp32 model (`scheme` is None) or its int8 form into an empty folder; return what the engine loads.

    Args:
        scheme: layers that the engine cannot run in int8 stay in float.
        fp32_onnx: `to_onnx(model)`, when the caller has it already.
    """
    return writer_of(engine).write(model, scheme, folder, fp32_onnx)


def writer_of(engine: str) -> Writer:
    """Import and make the writer of an engine's models."""
    spec = spec_of(engine)
    if spec.writer is None:
        raise ValueError(f"no job can have the engine {engine}")
    return pkgutil.resolve_name(spec.writer)(spec)


def further_tensors(fp32: onnx.ModelProto) -> list[str]:
    """List the tensors beside those that layers read, of which some engine wants to know the range."""
    rules = [writer_of(spec.name).rules for spec in all_specs() if spec.writer is not None]
    made = {"Conv", "ConvTranspose", "HardSwish"}.union(
        *(each.followers | each.fused_into | set(each.layers) for each in rules if each is not None)
    )
    shapes = inferred(fp32)
    known = (*shapes.value_info, *shapes.output)
    floats = {each.name for each in known if each.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    return [name for node in fp32.graph.node if node.op_type in made for name in node.output if name in floats]


@dataclass(frozen=True)
class Export:
    """One candidate on its way to its files.

    Attributes:
        scheme: what quantizes the fp32 model; None for fp32.
        folder: of the candidate.
        engines: of the target; the scheme was found on the first.
        read_alternatives: gives, by threshold rule, the ranges of all tensors.
    """

    name: str
    model: InferenceModel
    scheme: Scheme | None
    folder: Path
    checker: Checker
    engines: Sequence[str] = ()
    read_alternatives: Callable[[], Mapping[str, Mapping[str, Range]]] = dict

    @property
    def plain_onnx(self) -> Path:
        """Return the ONNX file that is no engine's own: the fp32 model, or the quantized program as it is."""
        return self.folder / (FP32_ONNX if self.scheme is None else INT8_ONNX)

    def device_file(
        self, kind: str, file: Path | None, failure: str | None = None, operators: ExecutedOperators | None = None
    ) -> DeviceFile:
        """Describe a file for another device, or the failure to write it."""
        path = file.relative_to(self.folder.parent).as_posix() if file is not None else None
        size = file.stat().st_size if file is not None else 0
        return DeviceFile(kind=kind, file=path, bytes=size, failure=failure, operators=operators)

    @cached_property
    def fp32_onnx(self) -> onnx.ModelProto:
        """Return the fp32 model as ONNX."""
        return to_onnx(self.model)

    @cached_property
    def simulated(self) -> InferenceModel:
        """Return the quantized model in memory."""
        assert self.scheme is not None
        return quantize(self.model, self.scheme)


@dataclass(frozen=True)
class Exported:
    """What a candidate has for one engine.

    Attributes:
        path: the file or folder that the engine loads; None where it could not be written.
        similarity: how near the file's outputs come to the model's, where that was compared.
        refused: why it could not be written.
        elsewhere: the files for another device than this machine.
    """

    path: Path | None
    similarity: float | None = None
    refused: str | None = None
    elsewhere: list[DeviceFile] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Return the size of what the engine loads."""
        if self.path is None:
            return 0
        files = [self.path] if self.path.is_file() else [self.path / PROGRAM_FILE, self.path / WEIGHTS_FILE]
        return sum(file.stat().st_size for file in files)


class Writer(ABC):
    """Writes models for one engine; its ONNX models are quantized by `rules`, where it has some of its own."""

    rules: ClassVar[Rules | None] = None

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    @abstractmethod
    def write(
        self, model: InferenceModel, scheme: Scheme | None, folder: Path, fp32_onnx: onnx.ModelProto | None = None
    ) -> Path:
        """Write a model as `write_for_engine` does."""

    @abstractmethod
    def export(self, export: Export) -> Exported:
        """Write a candidate's files for this engine; `RuntimeError` if one does not compute what the model does."""

    def able(self, model: InferenceModel, scheme: Scheme) -> Scheme:
        """Return the scheme without the layers that the engine cannot run in int8."""
        return without_others(model, scheme, self.spec.int8_operators)

    def refuse(self, scheme: Scheme | None) -> Exported | None:
        """Refuse a scheme with zero points where the engine knows none; None where it can be written."""
        if scheme is None or self.spec.zero_points or scheme.symmetric:
            return None
        why = f"{self.spec.title} knows no zero point in int8: search with `activation_symmetric: [true]`"
        return Exported(None, refused=why)


class PaddleWriter(Writer):
    """Writes Paddle programs."""

    def program(self, model: InferenceModel, scheme: Scheme | None) -> InferenceModel:
        """Return the program that the engine reads."""
        return model if scheme is None else quantize(model, self.able(model, scheme))

    def write(
        self, model: InferenceModel, scheme: Scheme | None, folder: Path, fp32_onnx: onnx.ModelProto | None = None
    ) -> Path:
        self.program(model, scheme).save(folder)
        return folder

    def export(self, export: Export) -> Exported:
        if (refused := self.refuse(export.scheme)) is not None:
            return refused
        folder = export.folder / self.spec.name
        folder.mkdir()
        return Exported(self.write(export.model, export.scheme, folder))


class OnnxWriter(Writer):
    """Writes ONNX models; an int8 one by the engine's rules, or as the quantized program is where it has none."""

    def quantized(self, fp32: onnx.ModelProto, model: InferenceModel, scheme: Scheme) -> onnx.ModelProto:
        """Return the int8 ONNX model of a scheme of layers that the engine can run in int8."""
        # A scheme that knows its layers only says nothing of what stands between them.
        if self.rules is None or not scheme.further:
            return quantize_onnx(fp32, model, scheme)
        return quantize_by_rules(self.rules, fp32, model, scheme)

    def write(
        self, model: InferenceModel, scheme: Scheme | None, folder: Path, fp32_onnx: onnx.ModelProto | None = None
    ) -> Path:
        converted = fp32_onnx or to_onnx(model)
        if scheme is not None:
            converted = self.quantized(converted, model, self.able(model, scheme))
        onnx.save(converted, folder / FP32_ONNX)
        return folder / FP32_ONNX

    def export(self, export: Export) -> Exported:
        if export.scheme is None:
            return Exported(export.plain_onnx)
        if (refused := self.refuse(export.scheme)) is not None:
            return refused
        file = export.folder / f"{self.spec.name}.onnx"
        onnx.save(self._chosen(export, self.able(export.model, export.scheme)), file)
        similarity, holds = export.checker.target(export.model, export.simulated, file)
        if not holds:
            # More of it is rounded than this model bears: the plain form serves every engine, though more slowly.
            lost = f"loses too much (similarity {similarity:.4f}); its plain form is taken"
            log.info(f"{export.name}: {file.name} {lost}")
            file.unlink()
            file = export.plain_onnx
        return Exported(file, similarity)

    def _chosen(self, export: Export, scheme: Scheme) -> onnx.ModelProto:
        """Return the int8 model that is exported."""
        return self.quantized(export.fp32_onnx, export.model, scheme)
