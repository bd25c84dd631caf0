"""Models written the way an engine wants them, in fp32 or with a scheme: for search, analysis, export and timing."""

from __future__ import annotations

import logging
import math
import pkgutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx

from act.engines.base import RuntimePrecision
from act.engines.check import Checker
from act.engines.onnx_int8 import quantize_by_rules
from act.engines.spec import Spec, all_specs, spec_of, title_of
from act.onnx_graph.conversion import NotConvertible, to_onnx
from act.onnx_graph.graph import inferred
from act.program.files import PROGRAM_FILE, WEIGHTS_FILE
from act.program.layers import Layer, quantizable_layers
from act.program.model import InferenceModel
from act.program.passes.smoothing import products_of_tokens
from act.quantization.activations import reader
from act.quantization.dynamic import quantize_dynamically, store_weights
from act.quantization.onnx_model import quantize_onnx
from act.quantization.qdq import Rules
from act.quantization.quantized_program import quantize
from act.quantization.ranges import Range
from act.quantization.scheme import BY_SEARCH, Scheme, left_in_float, make_scheme, only, without_others
from act.results.export import DeviceFile, ExecutedOperators, ExportedCandidate, FloatLayer
from act.samples.dataset import Array, Ragged, Samples

log = logging.getLogger(__name__)

FP32_ONNX = "model.onnx"
INT8_ONNX = "quant_model.onnx"
CALIBRATION_TABLE = "calibration_table.txt"
# Forms of a file that lost too much in which one kind of operators is not rounded.
_FEWER_TRIED = 3


def writer_of(engine: str, in_float: Collection[str] = ()) -> Writer:
    """Import and make the writer of an engine's models, which leaves layers of some names in float."""
    spec = spec_of(engine)
    if spec.writer is None:
        raise ValueError(f"no job can have the engine {engine}")
    writer: Writer = pkgutil.resolve_name(spec.writer)(spec)
    writer.in_float = frozenset(in_float)
    return writer


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
class Exported:
    """What a candidate has for one engine."""

    path: Path | None  # what the engine loads; None where it could not be written
    similarity: float | None = None  # of the file's outputs to the model's, where they were compared
    refused: str | None = None  # why it could not be written
    elsewhere: list[DeviceFile] = field(default_factory=list)  # files for another device than this machine


class Alternatives:
    """Ranges of all tensors, by threshold rule, that a candidate may have in the place of its scheme's own.

    Candidates that are made of one model, all with zero points or all without, bear much the same: those rules that
    came nearest to fp32 for the first of them are the only ones worth trying for the rest.

    Args:
        read: gives the ranges, of each rule those of all tensors.
    """

    _MOST = 2  # rules that are tried again

    def __init__(self, read: Callable[[], Mapping[str, Mapping[str, Range]]] = dict) -> None:
        self._read = cache(read)
        self._best: dict[tuple[InferenceModel, bool], list[str]] = {}

    def of(self, model: InferenceModel, scheme: Scheme) -> dict[str, Scheme]:
        """Return the scheme over the ranges of each rule that is worth trying."""
        ranges = self._read()
        return {
            label: replace(
                scheme, activations={name: ranges[label][name] for name in scheme.activations}, further=ranges[label]
            )
            for label in self._best.get((model, scheme.symmetric), ranges)
        }

    def tried(self, model: InferenceModel, scheme: Scheme, ranking: Sequence[str]) -> None:
        """Note which rules came nearest to fp32, best first, where these are the first of their kind."""
        self._best.setdefault((model, scheme.symmetric), list(ranking[: self._MOST]))


@dataclass(frozen=True)
class Export:
    """One candidate on its way to its files."""

    name: str
    model: InferenceModel
    scheme: Scheme | None  # what quantizes the fp32 model; None for fp32
    folder: Path  # must not be there yet
    checker: Checker
    engines: Sequence[str] = ()  # of the target; the scheme was found on the first
    in_float: Mapping[str, Collection[str]] = field(default_factory=dict)  # by engine, as `writer_of` takes it
    alternatives: Alternatives = field(default_factory=Alternatives)
    why_float: str = BY_SEARCH  # why layers that could be quantized are not
    convert: Callable[[InferenceModel], onnx.ModelProto] = to_onnx  # which may know what it made of a model before

    def write(self) -> ExportedCandidate:
        """Write the Paddle model, its ONNX twin, one for each engine, and the calibration table.

        `RuntimeError` if a file does not compute what the candidate does.
        """
        model, scheme, folder = self.model, self.scheme, self.folder
        folder.mkdir()
        lacking: dict[str, Exported] = {}
        if scheme is None:
            check, lacking = self._write_fp32_onnx()
        else:
            onnx.save(quantize_onnx(self.fp32_onnx, model, scheme), self.plain_onnx)
            check = self.checker.int8(model, self.simulated, scheme, self.plain_onnx, self.fp32_onnx)
            (folder / CALIBRATION_TABLE).write_text(calibration_table(scheme), encoding="utf-8")
        specs = [spec for spec in all_specs() if spec.default is not None or spec.name in self.engines]
        exported = {spec.name: lacking.get(spec.name) or self._written(spec) for spec in specs}
        check |= {name: each.similarity for name, each in exported.items() if each.similarity is not None}
        paths = {name: each.path for name, each in exported.items() if each.path is not None}
        return ExportedCandidate(
            name=self.name,
            precision="fp32" if scheme is None else "int8",
            files={name: path.relative_to(folder.parent).as_posix() for name, path in paths.items()},
            bytes={name: size_of(path) for name, path in paths.items()},
            weight_bytes=(folder / WEIGHTS_FILE).stat().st_size,
            check={name: round(value, 6) for name, value in check.items()},
            refused={name: each.refused for name, each in exported.items() if each.refused is not None},
            elsewhere={name: each.elsewhere for name, each in exported.items() if each.elsewhere},
            left_in_float=self._left_in_float() if scheme is not None else [],
        )

    def _left_in_float(self) -> list[FloatLayer]:
        assert self.scheme is not None
        wrong = {
            name: f"{title_of(engine)} computes it wrongly in int8"
            for engine, names in self.in_float.items()
            for name in names
        }
        return [FloatLayer(**row) for row in left_in_float(self.model, self.scheme, self.why_float, wrong)]

    def _write_fp32_onnx(self) -> tuple[dict[str, float], dict[str, Exported]]:
        """Write the fp32 model as ONNX; return its similarity, or what engines have that cannot do without it."""
        try:
            onnx.save(self.fp32_onnx, self.plain_onnx)
        except NotConvertible as error:
            if all(spec_of(engine).reads_onnx for engine in self.engines):
                raise
            none = Exported(None, refused=f"the model has no ONNX form: {error.cause}")
            return {}, {spec.name: none for spec in all_specs() if spec.reads_onnx}
        return {"onnx": self.checker.fp32(self.model, self.plain_onnx)}, {}

    def _written(self, spec: Spec) -> Exported:
        """Write a candidate for an engine."""
        return self._as_run(spec, writer_of(spec.name, self.in_float.get(spec.name, ())).export(self))

    def _as_run(self, spec: Spec, written: Exported) -> Exported:
        """Return what an engine of the target runs as its scheme says: its file, the plain form, or neither."""
        if self.scheme is None or written.path is None or spec.name not in self.engines:
            return written
        lost = None
        for path in dict.fromkeys([written.path, self.plain_onnx] if spec.reads_onnx else [written.path]):
            lost = self.checker.on_engine(spec.name, self.model, self.simulated, path)
            if lost is None:
                # The plain form has a check of its own.
                return written if path == written.path else replace(written, path=path, similarity=None)
            log.info("%s: %s on %s %s", self.name, path.name, spec.title, lost)
        return replace(written, path=None, similarity=None, refused=f"as {spec.title} runs it, it {lost}")

    @property
    def plain_onnx(self) -> Path:
        """Return the ONNX file that is no engine's own: the fp32 model, or the quantized program as it is."""
        return self.folder / (FP32_ONNX if self.scheme is None else INT8_ONNX)

    def target(self, file: Path) -> tuple[float, str | None]:
        """Return how near an engine's file comes to the fp32 model, and why it will not do, where it will not."""
        return self.checker.target(self.model, self.simulated, file, self.fp32_onnx, self.plain_onnx)

    def device_file(self, kind: str, file: Path, operators: ExecutedOperators | None = None) -> DeviceFile:
        """Describe a file for another device."""
        path = file.relative_to(self.folder.parent).as_posix()
        return DeviceFile(kind=kind, file=path, bytes=file.stat().st_size, failure=None, operators=operators)

    @cached_property
    def fp32_onnx(self) -> onnx.ModelProto:
        """Return the fp32 model as ONNX."""
        return self.convert(self.model)

    @cached_property
    def simulated(self) -> InferenceModel:
        """Return the quantized model in memory."""
        assert self.scheme is not None
        return quantize(self.model, self.scheme)


def export_dynamic(
    name: str,
    model: InferenceModel,
    folder: Path,
    checker: Checker,
    engines: Sequence[str],
    convert: Callable[[InferenceModel], onnx.ModelProto] = to_onnx,
) -> ExportedCandidate | None:
    """Write the model for each engine that runs products in int8 with scales of each run.

    None where no engine of the target does so rightly, or products of tokens are not what most of the model's weights
    are for.

    Args:
        model: the fp32 model, for whose layers no range is needed.
        folder: must not be there yet.
    """
    layers, products = quantizable_layers(model), products_of_tokens(model)
    able = [engine for engine in engines if writer_of(engine).runs_dynamic]
    if not able or 2 * _count_weights(model, products) < _count_weights(model, layers) or not products:
        return None
    fp32 = convert(model)
    written = {engine: writer_of(engine).dynamic(fp32, model, products) for engine in able}
    meant = quantize_dynamically(fp32, model, products, narrow=False)
    return _without_ranges(name, "int8", model, written, meant, folder, checker)


def export_weights(
    name: str,
    model: InferenceModel,
    folder: Path,
    checker: Checker,
    engines: Sequence[str],
    convert: Callable[[InferenceModel], onnx.ModelProto] = to_onnx,
) -> ExportedCandidate | None:
    """Write the model with its weights alone in int8, for its size, for each engine that reads ONNX and runs it
    rightly; None without any.

    It runs like an fp32 model, and may so in half precision.

    Args:
        folder: must not be there yet.
    """
    able = [engine for engine in engines if writer_of(engine).reads_stored_weights]
    layers = quantizable_layers(model)
    if not able or not layers:
        return None
    stored = store_weights(convert(model), model, layers)
    return _without_ranges(name, "fp32", model, dict.fromkeys(able, stored), stored, folder, checker)


def _without_ranges(
    name: str,
    precision: str,
    model: InferenceModel,
    written: Mapping[str, onnx.ModelProto],
    meant: onnx.ModelProto,
    folder: Path,
    checker: Checker,
) -> ExportedCandidate | None:
    """Save what was written for engines, as far as they compute what is meant; None where none does."""
    folder.mkdir()
    paths: dict[str, Path] = {}
    refused: dict[str, str] = {}
    for engine, file in written.items():
        path = folder / f"{engine}.onnx"
        onnx.save(file, path)
        lost = checker.without_ranges(engine, model, meant, path)
        if lost is None:
            paths[engine] = path
        else:
            refused[engine] = f"as {title_of(engine)} runs it, it {lost}"
            log.info("%s: %s", name, refused[engine])
            path.unlink()
    if not paths:
        folder.rmdir()
        return None
    return ExportedCandidate(
        name=name,
        precision=precision,
        files={engine: path.relative_to(folder.parent).as_posix() for engine, path in paths.items()},
        bytes={engine: size_of(path) for engine, path in paths.items()},
        weight_bytes=0,
        check={engine: round(checker.similarity(model, path), 6) for engine, path in paths.items()},
        refused=refused,
        elsewhere={},
        left_in_float=[],
        only=[*written],
    )


def _count_weights(model: InferenceModel, layers: Sequence[Layer]) -> int:
    return sum(math.prod(model.shape(layer.weight)) for layer in layers)


def calibration_table(scheme: Scheme) -> str:
    """Return the text of `calibration_table.txt` as ACT wrote it: a line `tensor_name scale` an activation.

    It knows symmetric quantization only: an asymmetric range stands there with its largest absolute value.
    """
    return "".join(f"{name} {span.threshold!r}\n" for name, span in scheme.activations.items())


def size_of(path: Path) -> int:
    """Return the size of what an engine loads."""
    files = [path] if path.is_file() else [path / PROGRAM_FILE, path / WEIGHTS_FILE]
    return sum(file.stat().st_size for file in files)


class Writer(ABC):
    """Writes models for one engine; its ONNX models are quantized by `rules`, where it has some of its own."""

    rules: Rules | None = None
    in_float: Collection[str] = ()  # layers that the engine was found to compute wrongly in int8
    runs_dynamic: ClassVar[bool] = False  # products run in int8 with a scale of each run; then it has `dynamic`
    reads_stored_weights: ClassVar[bool] = False  # it reads weights in int8 ahead of what it runs in float

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    @abstractmethod
    def write(
        self, model: InferenceModel, scheme: Scheme | None, folder: Path, fp32_onnx: onnx.ModelProto | None = None
    ) -> Path:
        """Write an fp32 model (`scheme` is None) or its int8 form into an empty folder; return what the engine loads.

        Layers that the engine cannot run in int8 stay in float. `fp32_onnx` is `to_onnx(model)`, where that is known.
        """

    def export(self, export: Export) -> Exported:
        """Write a candidate's files for this engine; `RuntimeError` if one does not compute what the model does."""
        if self.in_float and export.scheme is not None and not self.able(export.model, export.scheme).layers:
            return Exported(None, refused=f"{self.spec.title} computes none of its layers in int8 as NumPy does")
        if export.scheme is None or self.spec.zero_points or export.scheme.symmetric:
            return self.write_files(export)
        why = f"{self.spec.title} knows no zero point in int8: search with `activation_symmetric: [true]`"
        return Exported(None, refused=why)

    @abstractmethod
    def write_files(self, export: Export) -> Exported:
        """Write what `export` does not refuse."""

    def dynamic(self, fp32_onnx: onnx.ModelProto, model: InferenceModel, layers: Sequence[Layer]) -> onnx.ModelProto:
        """Return the model with these products of tokens in int8, their activations rounded by a scale of each run."""
        raise NotImplementedError

    def able(self, model: InferenceModel, scheme: Scheme) -> Scheme:
        """Return the scheme without the layers that the engine cannot run in int8, or computes wrongly."""
        able = without_others(model, scheme, self.spec.int8_operators)
        return only(model, able, set(able.layers) - set(self.in_float)) if self.in_float else able


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

    def write_files(self, export: Export) -> Exported:
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

    def write_files(self, export: Export) -> Exported:
        if export.scheme is None:
            return Exported(export.plain_onnx)
        file = export.folder / f"{self.spec.name}.onnx"
        for form, written in self.forms(export, self.able(export.model, export.scheme)):
            onnx.save(written, file)
            similarity, lost = export.target(file)
            if lost is None:
                return Exported(file, similarity)
            log.info("%s: %s %s (%s)", export.name, file.name, lost, form)
        # More of it is rounded than this model bears: the plain form serves every engine, though more slowly.
        log.info("%s: the plain form is taken for %s", export.name, self.spec.title)
        file.unlink()
        return Exported(export.plain_onnx)

    def forms(self, export: Export, scheme: Scheme) -> Iterator[tuple[str, onnx.ModelProto]]:
        """Yield the int8 models that may be exported, with what to call each; those behind it serve where one loses too
        much."""
        yield "by all rules", self.quantized(export.fp32_onnx, export.model, scheme)
        yield from self._with_fewer_rules(export, scheme)

    def _with_fewer_rules(self, export: Export, scheme: Scheme) -> Iterator[tuple[str, onnx.ModelProto]]:
        """Yield the model with one kind of operators less that is rounded, the one nearest to fp32 first."""
        if self.rules is None or not scheme.further:
            return
        fp32, model, checker = export.fp32_onnx, export.model, export.checker
        kinds = sorted(self.rules.followers & {node.op_type for node in self.quantized(fp32, model, scheme).graph.node})
        less = {kind: self.rules.without(kind) for kind in kinds}
        ranking = {
            kind: checker.on_onnxruntime(fp32, quantize_by_rules(rules, fp32, model, scheme), first=True)
            for kind, rules in less.items()
        }
        for kind in sorted(ranking, key=ranking.__getitem__, reverse=True)[:_FEWER_TRIED]:
            yield f"with `{kind}` in float", quantize_by_rules(less[kind], fp32, model, scheme)


# The least and the largest value of a tensor.
Extremes = tuple[float, float]


@dataclass(frozen=True)
class ExportedVariants:
    """A model as an engine loads it in each precision, and the folder of the samples to run it on."""

    name: str
    samples: Path
    files: dict[RuntimePrecision, Path]


def export_variants(
    name: str,
    model: InferenceModel,
    batch: Mapping[str, Array],
    engine: str,
    precisions: Sequence[RuntimePrecision],
    folder: Path,
    converted: onnx.ModelProto | None = None,
    extremes: Callable[[], Mapping[str, Extremes]] | None = None,
    in_float: Collection[str] = (),
) -> ExportedVariants:
    """Write a model for an engine into an empty folder, int8 over the ranges that it has on one batch.

    Its latency hangs on no range, so that nothing need be searched before. `converted` is what `to_onnx` made of it,
    `extremes` gives what `batch_extremes` reads of the batch, and the layers of `in_float` are not quantized.
    """
    if converted is None and (spec_of(engine).reads_onnx or any(each.startswith("int8") for each in precisions)):
        converted = to_onnx(model)
    samples = folder / "samples"
    Samples({feed: Ragged.of(list(values)) for feed, values in batch.items()}).save(samples)
    files: dict[RuntimePrecision, Path] = {}
    for quantized in (False, True):
        if wanted := [precision for precision in precisions if precision.startswith("int8") == quantized]:
            scheme = None
            if quantized and converted is not None:
                read = extremes() if extremes is not None else batch_extremes(model, batch, converted)
                scheme = _scheme(model, converted, read, not spec_of(engine).zero_points)
            path = writer_of(engine, in_float).write(model, scheme, Path(tempfile.mkdtemp(dir=folder)), converted)
            files |= dict.fromkeys(wanted, path)
    return ExportedVariants(name, samples, files)


def batch_extremes(
    model: InferenceModel, batch: Mapping[str, Array], converted: onnx.ModelProto
) -> dict[str, Extremes]:
    """Return the least and the largest value on one batch of all tensors that a scheme may round, zero included.

    Of the finite ones: latency does not hang on the rest, which calibration refuses by name.
    """
    values = reader(converted, quantizable_layers(model), further_tensors(converted))(batch)
    finite = {name: each[np.isfinite(each)] for name, each in values.items()}
    return {name: (float(each.min(initial=0)), float(each.max(initial=0))) for name, each in finite.items()}


def _scheme(
    model: InferenceModel, converted: onnx.ModelProto, extremes: Mapping[str, Extremes], symmetric: bool
) -> Scheme:
    ranges = {
        name: Range.around_zero(max(-low, high)) if symmetric else Range(low, high)
        for name, (low, high) in extremes.items()
    }
    rest = {name: ranges[name] for name in further_tensors(converted)}
    return replace(make_scheme(model, quantizable_layers(model), ranges), further=rest, extremes=ranges)
