"""Checks that an exported file computes what the simulated model computes, on real samples.

The Paddle files must be read back as the model in memory, to the bit. The ONNX file runs on ONNX Runtime with its graph
optimisations off, so that it follows the file literally. Two correct implementations still round a few values to
neighbouring integers, and a deep model carries that on, so the integers behind every quantize operator are compared:
on average they must lie much nearer to the simulated model's than the fp32 model's own values do, at least where each
layer reads the simulated model's integers. The file of an engine
rounds elsewhere, and must keep about as much of every part of every output as the simulated model does: literally, and
then as the engine itself runs it, whose kernels are not trusted.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from act.comparison import Comparison, Floats, mean_errors, over_outputs, scores, similarity
from act.program.model import InferenceModel
from act.quantization.activations import reader
from act.quantization.ranges import LEVELS
from act.quantization.scheme import Scheme, quantized_layers
from act.samples.dataset import Array, Ragged, Samples

SAMPLES = 8
COMPARED_SAMPLES = 64  # where one form is chosen among several
LEAST_FP32_ONNX_SIMILARITY = 1 - 1e-4
LARGEST_DEVIATION = 0.05  # in quantization steps, or:
LARGEST_DEVIATION_SHARE = 0.5  # of the fp32 model's own deviation
# Where the outputs are this similar all of it is allowed: fp32 itself is a fraction of a step away then, and no nearer
# than engines that round in another order are to each other.
SAME_OUTPUTS = 1 - 1e-3
# Of similarity, beside the simulated model's loss: over all, and of a single part, which few samples tell little of.
LARGEST_LOSS_RATIO, LARGEST_FURTHER_LOSS, LARGEST_FURTHER_LOSS_OF_PART = 4, 0.05, 0.25
# Of the parts of an output, which may lose more: of thousands some do by chance, in so few samples.
SHARE_OF_CHANCE = 0.01
_GIVEN = ".given"

# Gives the outputs of an engine's int8 file on the samples in a folder, one array a sample; None where it does not run.
RunsInt8 = Callable[[str, Path, Path], list[Ragged] | None]


@dataclass(frozen=True)
class _Loss:
    """What a simulated model loses, which a file of it may lose about as much as.

    Attributes:
        wanted: the fp32 model's outputs.
        expected: the simulated model's mean errors of each part of each output.
    """

    comparison: Comparison
    wanted: Sequence[Array]
    expected: Sequence[Floats]

    def of(self, found: Sequence[Floats]) -> tuple[float, str | None]:
        """Return the similarity that mean errors stand for, and why they will not do, where they will not."""
        kept, simulation = over_outputs(scores(found)), over_outputs(scores(self.expected))
        if 1 - kept > LARGEST_LOSS_RATIO * (1 - simulation) + LARGEST_FURTHER_LOSS:
            return kept, f"loses too much: similarity {kept:.4f} where its scheme has {simulation:.4f}"
        excess = [_further_loss(*pair) for pair in zip(found, self.expected)]
        least, part = self.comparison.worst(excess)
        if 1 - least > LARGEST_FURTHER_LOSS_OF_PART:
            return kept, f"loses {part}, which its scheme keeps"
        return kept, None


class _Outputs:
    """What Paddle gives of a few models on one batch: its executor is slow, and checks ask for the same again."""

    _MOST_MODELS = 3

    def __init__(self, batch: Mapping[str, Array]) -> None:
        self._batch = batch
        self._known: list[tuple[InferenceModel, list[Array]]] = []

    def of(self, model: InferenceModel) -> list[Array]:
        """Return the outputs of a model that no longer changes."""
        known = next((outputs for other, outputs in self._known if other is model), None)
        if known is None:
            return self.with_tensors(model, [])[0]
        self._remember(model, known)
        return known

    def with_tensors(self, model: InferenceModel, names: Sequence[str]) -> tuple[list[Array], list[Array]]:
        """Return the outputs, which are remembered, and further tensors, which may be large and are not."""
        count = len(model.fetch_names)
        values = model.run(self._batch, [*model.fetch_names, *names])
        self._remember(model, values[:count])
        return values[:count], values[count:]

    def _remember(self, model: InferenceModel, outputs: list[Array]) -> None:
        """Put a model last of those that are remembered: candidates share the model that they are made of."""
        others = [each for each in self._known if each[0] is not model]
        self._known = [*others, (model, outputs)][-self._MOST_MODELS :]


class Checker:
    """Compares exported files with the model that they were made from, on the first calibration samples.

    Args:
        samples: for calibration.
        run: runs int8 files on their engines; without it these are not asked.
    """

    def __init__(self, samples: Samples, run: RunsInt8 | None = None) -> None:
        self._run = run
        self._batches = list(samples.head(COMPARED_SAMPLES).batches(SAMPLES))
        self._batch = self._batches[0]
        self._known = _Outputs(self._batch)
        self._outputs: tuple[onnx.ModelProto, list[list[Array]], Comparison] | None = None
        self._losses: tuple[InferenceModel, InferenceModel, _Loss] | None = None

    def fp32(self, model: InferenceModel, onnx_file: Path) -> float:
        """Return the similarity of the fp32 ONNX file's outputs to the model's; `RuntimeError` if low."""
        found = self.similarity(model, onnx_file)
        require(found >= LEAST_FP32_ONNX_SIMILARITY, onnx_file, onnx=found)
        return found

    def similarity(self, model: InferenceModel, onnx_file: Path) -> float:
        """Return the similarity of the outputs of an ONNX file to the model's, whatever the file rounds."""
        return similarity(_run_literally(onnx.load(onnx_file), self._batch), self._known.of(model))

    def int8(
        self,
        model: InferenceModel,
        simulated: InferenceModel,
        scheme: Scheme,
        onnx_file: Path,
        fp32_onnx: onnx.ModelProto,
    ) -> dict[str, float]:
        """Measure how near an int8 ONNX file comes to the simulated quantized model.

        `fp32_onnx` is what `to_onnx` made of the fp32 model.

        Returns:
            `onnx`: similarity of the outputs. `onnx_steps`, `fp32_steps`: how many quantization steps the
            file's integers, and the fp32 model's values, lie from the simulated ones on average; where the
            differences of many layers add up to too much, those of the layer that is furthest off with the simulated
            integers before it. `RuntimeError` where the file computes something else.
        """
        spans, count = scheme.activations, len(model.fetch_names)
        integers = [f"{name}.quantized" for name in spans]
        wanted, wanted_integers = self._known.with_tensors(simulated, integers)
        twin = onnx.load(onnx_file)
        twin.graph.output.extend(onnx.ValueInfoProto(name=name) for name in integers)
        found = _run_literally(twin, self._batch)
        plain = reader(fp32_onnx, quantized_layers(model, scheme))(self._batch)
        rounded = [span.quantize(plain[name]) for name, span in spans.items()]
        result = {
            "onnx": similarity(found[:count], wanted),
            "onnx_steps": _steps(found[count:], wanted_integers),
            "fp32_steps": _steps(rounded, wanted_integers),
        }
        share = 1.0 if result["onnx"] >= SAME_OUTPUTS else LARGEST_DEVIATION_SHARE
        allowed = max(LARGEST_DEVIATION, share * result["fp32_steps"])
        if result["onnx_steps"] > allowed:
            feeds = self._batch | {
                f"{name}{_GIVEN}": _as_in_file(values, made)
                for name, values, made in zip(integers, wanted_integers, found[count:])
            }
            alone = _run_literally(_layers_apart(twin, integers, feeds), feeds)
            allowed = LARGEST_DEVIATION
            result["onnx_steps"] = max(_steps([a], [b]) for a, b in zip(alone[count:], wanted_integers))
        require(result["onnx_steps"] <= allowed, onnx_file, **result)
        return result

    def target(
        self,
        model: InferenceModel,
        simulated: InferenceModel,
        onnx_file: Path,
        fp32_onnx: onnx.ModelProto,
        plain_onnx: Path,
    ) -> tuple[float, str | None]:
        """Return the similarity of an engine's int8 file to the fp32 model, and why it will not do, where it will not.

        Such a file rounds at more places than the simulated model, or at fewer, so that it is held to the same order of
        loss, over all and in each part, not to the same integers. A few samples may do it wrong: it is refused only
        where all that are compared say the same of it and of the plain form, which stands for the simulated model.
        """
        loss, written = self._loss(model, simulated), onnx.load(onnx_file)
        kept, lost = loss.of(loss.comparison.mean_errors(_run_literally(written, self._batch), loss.wanted))
        if lost is not None and len(self._batches) > 1:
            _, comparison = self._fp32_outputs(fp32_onnx)
            plain, found = (self._errors(fp32_onnx, each) for each in (onnx.load(plain_onnx), written))
            kept, lost = _Loss(comparison, [], plain).of(found)
        return kept, lost

    def on_engine(self, engine: str, model: InferenceModel, simulated: InferenceModel, path: Path) -> str | None:
        """Return why an engine's int8 file will not do as that engine runs it, or None where it will.

        None, too, where the engine does not run here, or not this file: the measurement tells of that.
        """
        return self._lost(engine, path, lambda: self._loss(model, simulated))

    def without_ranges(self, engine: str, model: InferenceModel, meant: onnx.ModelProto, path: Path) -> str | None:
        """Return why an int8 file for which no range was found will not do as its engine runs it, like `on_engine`.

        Args:
            meant: what it stands for, every operator as ONNX defines it.
        """
        return self._lost(engine, path, lambda: self._loss_of(model, _run_literally(meant, self._batch)))

    def _lost(self, engine: str, path: Path, loss_of: Callable[[], _Loss]) -> str | None:
        """Return why a file that an engine runs loses more than it should; None where it does not, or does not run."""
        if self._run is None:
            return None
        with tempfile.TemporaryDirectory() as name:
            samples = Path(name) / "samples"
            Samples({feed: Ragged.of(list(values)) for feed, values in self._batch.items()}).save(samples)
            found = self._run(engine, path, samples)
        if found is None:
            return None
        loss = loss_of()
        errors = [loss.comparison.errors(*pair) for pair in zip(zip(*found), zip(*loss.wanted), strict=True)]
        return loss.of(mean_errors(errors))[1]

    def _loss(self, model: InferenceModel, simulated: InferenceModel) -> _Loss:
        if self._losses is None or self._losses[0] is not model or self._losses[1] is not simulated:
            self._losses = model, simulated, self._loss_of(model, self._known.of(simulated))
        return self._losses[2]

    def _loss_of(self, model: InferenceModel, outputs: Sequence[Array]) -> _Loss:
        wanted = self._known.of(model)
        comparison = Comparison(wanted, model.fetch_names)
        return _Loss(comparison, wanted, comparison.mean_errors(outputs, wanted))

    def on_onnxruntime(self, fp32: onnx.ModelProto, written: onnx.ModelProto, first: bool = False) -> float:
        """Return the similarity of a file to the fp32 model, as ONNX Runtime fuses and runs it.

        On the samples where one form is chosen among several, or on the `first` of them alone.
        """
        return over_outputs(scores(self._errors(fp32, written, 1 if first else None)))

    def _errors(self, fp32: onnx.ModelProto, written: onnx.ModelProto, batches: int | None = None) -> list[Floats]:
        """Return the mean errors of the parts of each output on the first so many batches, None: on all."""
        outputs, comparison = self._fp32_outputs(fp32)
        session = open_session(written, literally=False)
        return mean_errors(
            comparison.errors(*pair)
            for batch, wanted in zip(self._batches[:batches], outputs)
            for pair in zip(zip(*session.run(None, dict(batch))), zip(*wanted), strict=True)
        )

    def _fp32_outputs(self, fp32: onnx.ModelProto) -> tuple[list[list[Array]], Comparison]:
        """Return what ONNX Runtime gives of the fp32 model on each batch, once for all files of that model."""
        if self._outputs is None or self._outputs[0] is not fp32:
            session = open_session(fp32, literally=False)
            outputs = [session.run(None, dict(batch)) for batch in self._batches]
            by_sample = [[sample for values in output for sample in values] for output in zip(*outputs)]
            self._outputs = fp32, outputs, Comparison(by_sample)
        return self._outputs[1:]


def open_session(model: onnx.ModelProto, literally: bool) -> Any:
    """Open a model in ONNX Runtime on one thread, as it stands there or fused as far as may be."""
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if literally else levels.ORT_ENABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run_literally(model: onnx.ModelProto, batch: Mapping[str, Array]) -> list[Array]:
    return open_session(model, literally=True).run(None, dict(batch))


def _layers_apart(model: onnx.ModelProto, integers: Sequence[str], feeds: Mapping[str, Array]) -> onnx.ModelProto:
    """Return a model whose layers read the integers that are fed, while it still gives those that it computes."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    given = {name: f"{name}{_GIVEN}" for name in integers}
    for node in result.graph.node:
        node.input[:] = [given.get(name, name) for name in node.input]
    for name in given.values():
        kind = onnx.helper.np_dtype_to_tensor_dtype(feeds[name].dtype)
        result.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, feeds[name].shape))
    return result


def _as_in_file(integers: Array, made: Array) -> Array:
    """Return integers of the simulated model, which are signed, as a file has them: of its dtype and shape."""
    offset = (LEVELS + 1) * (made.dtype == np.uint8)
    return np.asarray(integers + offset).astype(made.dtype).reshape(made.shape)


def _further_loss(found: Floats, expected: Floats) -> Floats:
    """Return how much more of each part is lost than a multiple of what was expected; 0 for what chance may do."""
    lost, allowed = (np.clip(errors, 0, 1) for errors in (found, expected))
    further: Floats = np.maximum(lost - LARGEST_LOSS_RATIO * allowed, 0)
    by_chance = int(SHARE_OF_CHANCE * len(further))
    further[np.argsort(-further)[:by_chance]] = 0
    return further


def _steps(found: list[Array], wanted: list[Array]) -> float:
    """Return the mean distance of integers to those of the simulated model, which are signed."""
    # Paddle2ONNX flattens what a `mul` reads, where Paddle does so inside the operator: same values, other shapes.
    signed = [a.astype(np.float32).reshape(-1) - (LEVELS + 1) * (a.dtype == np.uint8) for a in found]
    return float(np.mean([np.abs(a - b.reshape(-1)).mean() for a, b in zip(signed, wanted)]))


def require_saved(program: InferenceModel, folder: Path) -> None:
    """Raise `RuntimeError` unless Paddle reads a program's files as the program in memory, which then runs alike."""
    if not InferenceModel.load(folder).equals(program):
        raise RuntimeError(f"{folder} does not hold the program that was written")


def require(holds: bool, path: Path, **measured: float) -> None:
    """Raise `RuntimeError`, with what was measured of a file, unless it will do."""
    if not holds:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in measured.items())
        raise RuntimeError(f"{path} does not compute what the simulated model does: {figures}")
