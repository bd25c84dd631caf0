"""A model as an engine loads it in each precision, before anything was searched: its latency hangs on no range."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from act.engines.base import RuntimePrecision
from act.engines.spec import spec_of
from act.engines.writer import further_tensors, write_for_engine
from act.onnx_graph.conversion import to_onnx
from act.program.layers import quantizable_layers
from act.program.model import InferenceModel
from act.quantization.activations import reader
from act.quantization.ranges import Range
from act.quantization.scheme import Scheme, make_scheme
from act.samples.dataset import Array, Ragged, Samples
from act.settings import EngineName


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
    engine: EngineName,
    precisions: Sequence[RuntimePrecision],
    folder: Path,
    converted: onnx.ModelProto | None = None,
) -> ExportedVariants:
    """Write a model for an engine into an empty folder, int8 over the ranges that it has on one batch.

    Args:
        converted: what `to_onnx` made of the model, when the caller has it already.
    """
    converted = converted or to_onnx(model)
    samples = folder / "samples"
    Samples({feed: Ragged.of(list(values)) for feed, values in batch.items()}).save(samples)
    files: dict[RuntimePrecision, Path] = {}
    for members in (("fp32", "bf16"), ("int8", "int8+bf16")):
        wanted = [precision for precision in precisions if precision in members]
        if wanted:
            place = Path(tempfile.mkdtemp(dir=folder))
            scheme = _scheme(model, batch, converted, not spec_of(engine).zero_points) if "int8" in members else None
            path = write_for_engine(engine, model, scheme, place, converted)
            files |= dict.fromkeys(wanted, path)
    return ExportedVariants(name, samples, files)


def _scheme(model: InferenceModel, batch: Mapping[str, Array], converted: onnx.ModelProto, symmetric: bool) -> Scheme:
    layers, further = quantizable_layers(model), further_tensors(converted)
    values = reader(converted, layers, further)(batch)
    ranges = {name: _range(each, symmetric) for name, each in values.items()}
    scheme = make_scheme(model, layers, ranges)
    rest = {name: ranges[name] for name in further}
    return replace(scheme, further=rest, extremes=ranges)


def _range(values: Array, symmetric: bool) -> Range:
    """Return the range of the finite values: latency does not hang on the rest, which calibration refuses by name."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min(initial=0)), float(finite.max(initial=0))
    return Range.around_zero(max(-low, high)) if symmetric else Range(low, high)
