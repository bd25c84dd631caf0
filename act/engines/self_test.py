"""The self-test of an engine's int8 kernels, before anything that it says of int8 is believed.

For each kind of layer in a model, single layers of the same shapes multiply integers that are drawn at random, signed
and unsigned ones. The engine's own writer writes them, the engine runs them, and NumPy computes in integers what must
come of it. All steps are powers of two, so that everything on the way in is exact in float32. What comes out is the
sum in float or, where the engine rounds what a layer makes, its integer.
"""

from __future__ import annotations

import itertools
import logging
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from act.engines.process import EngineFailure, EngineProcess
from act.engines.spec import Spec, spec_of
from act.engines.writer import writer_of
from act.errors import InputError
from act.program.graph import Graph
from act.program.layers import OUTPUT_AXES, Layer, quantizable_layers
from act.program.model import InferenceModel
from act.program.single_layers import SingleLayer, side_by_side
from act.quantization.ranges import LEVELS, Range
from act.quantization.rounding import paddings_of
from act.quantization.scheme import Scheme
from act.quantization.weights import along
from act.results.analyze import WrongKernel
from act.samples.dataset import Array, Ragged, Samples

log = logging.getLogger(__name__)

LIMIT_SECONDS = 60.0
MOST_KINDS = 24
MOST_WEIGHTS = 2**24
"""Values of all layers together that are tested in one engine."""
MOST_MACS = 2**22
"""Of one layer and sample; larger ones read a smaller picture, or fewer tokens."""
BATCH = 2
_SIDE, _TOKENS = 28, 16  # at most
_STEP = 2.0**-5  # of what layers read; output channels have one of those of weights each
_WEIGHT_STEPS = 2.0 ** np.arange(-9, -7)
_LARGEST_BIAS = 2**12
_SHARE_OF_LARGEST = 0.05
# In steps of what comes out: half a one for rounding it, as much again for an engine's own steps of the weights.
_ALLOWED = 1.0

Floats = npt.NDArray[np.float64]

_OF_CONVOLUTIONS = ("strides", "paddings", "padding_algorithm", "dilations", "groups", "data_format")
_ATTRIBUTES = {
    "conv2d": _OF_CONVOLUTIONS,
    "depthwise_conv2d": _OF_CONVOLUTIONS,
    "conv2d_transpose": (*_OF_CONVOLUTIONS, "output_padding"),
    "matmul_v2": (),
    "mul": ("x_num_col_dims", "y_num_col_dims"),
}


@dataclass(frozen=True)
class Kind:
    """A layer's operator, the shapes of its weight and of what it reads (no batch axis), and its attributes."""

    op_type: str
    weight: tuple[int, ...]
    input: tuple[int, ...]
    attributes: tuple[tuple[str, Any], ...]

    @property
    def group(self) -> tuple[Any, ...]:
        """Return what chooses a kernel, but for the numbers of channels."""
        given = dict(self.attributes)
        grouping = (given.get("groups", 1) > 1, self._is_depthwise())
        return self.op_type, self.weight[2:], given.get("strides"), given.get("dilations"), *grouping

    @property
    def is_convolution(self) -> bool:
        """Tell whether its weight has a window."""
        return len(self.weight) == 4

    @property
    def macs(self) -> int:
        """Return how many MACs it takes for one sample, were its stride 1."""
        inputs = self.input[0] if self.is_convolution else self.weight[0]
        return math.prod(self.weight) * math.prod(self.input) // inputs

    def _is_depthwise(self) -> bool:
        return self.is_convolution and dict(self.attributes)["groups"] == self.input[0]

    def __str__(self) -> str:
        given = dict(self.attributes)
        if not self.is_convolution:
            return f"{self.op_type} of {self.weight[0]} to {self.weight[1]} values"
        outputs = self.weight[1] if self.op_type == "conv2d_transpose" else self.weight[0]
        words = [f"{self.op_type} {self.weight[2]}x{self.weight[3]}, {self.input[0]} to {outputs} channels"]
        words += [f"stride {given['strides'][0]}"] if max(given["strides"]) > 1 else []
        words += [f"dilation {given['dilations'][0]}"] if max(given["dilations"]) > 1 else []
        words += [f"{given['groups']} groups"] if given["groups"] > 1 and not self._is_depthwise() else []
        return ", ".join(words)


def wrong_kernels(engine: str, graph: Graph, threads: int, process: EngineProcess | None = None) -> list[WrongKernel]:
    """Return what an engine computes wrongly in int8 of the kinds of layers that a model has; empty where all is right.

    An engine that does not run here, or does not answer in time, has nothing wrong: others tell of that.

    Args:
        graph: of the model, whose layers give the shapes.
        process: of the engine, in which the test begins; with None it starts one.
    """
    spec, started = spec_of(engine), time.monotonic()
    layers = _kinds(graph, spec)
    kinds = _chosen(list(dict.fromkeys(layers.values())))
    rng = np.random.default_rng(0)
    signs = (True, False) if spec.zero_points else (True,)
    cases = [_Case.draw(kind, signed, rng) for kind in kinds for signed in signs]
    test = _Test(spec, threads, started + LIMIT_SECONDS, process)
    found = test.wrong(cases)
    wrong = []
    for group, causes in itertools.groupby(sorted(found, key=lambda each: str(each[0].kind.group)), _group_of):
        names = [name for name, kind in layers.items() if kind.group == group]
        case, cause = next(causes)
        wrong.append(WrongKernel(kind=str(case), cause=cause, layers=names))
    for each in wrong:
        told = "analyze: %s is wrong in int8: %s: %s; %d layers of this kind stay in float on it"
        log.warning(told, spec.title, each.kind, each.cause, len(each.layers))
    if test.right:
        log.info(f"analyze: {spec.title} computes {len(test.right)} kinds of int8 layers as NumPy does")
    return wrong


def _group_of(found: tuple[_Case, str]) -> tuple[Any, ...]:
    return found[0].kind.group


def _kinds(graph: Graph, spec: Spec) -> dict[str, Kind]:
    """Return the kind of each layer that an engine has int8 kernels for, by the layer's name."""
    layers = quantizable_layers(graph.model, spec.int8_operators)
    found = ((layer.name, _kind(graph, layer)) for layer in layers if layer.activation in graph.tensors)
    return {name: kind for name, kind in found if kind is not None}


def _kind(graph: Graph, layer: Layer) -> Kind | None:
    """Return the kind of a layer, which reads no more than the test has time for; None where it cannot be tested."""
    op, shape = graph.model.producer(layer.name), graph.tensors[layer.activation].shape[1:]
    weight = graph.model.shape(layer.weight)
    given = {name: _plain(op.attr(name)) for name in _ATTRIBUTES[layer.op_type]}
    if layer.op_type == "conv2d_transpose" and given["padding_algorithm"] != "EXPLICIT":
        return None
    if not shape or math.prod(weight) > MOST_WEIGHTS:
        return None
    if len(weight) == 4:
        extents = [(size - 1) * by + 1 for size, by in zip(weight[2:], given["dilations"])]
        sides = [max(extent, min(side, _SIDE)) for side, extent in zip(shape[1:], extents)]
        while math.prod(weight) * math.prod(sides) > MOST_MACS and sides != extents:
            sides = [max(extent, side // 2) for side, extent in zip(sides, extents)]
        shape = (shape[0], *sides)
    else:
        before = given.get("x_num_col_dims", len(shape)) - 1
        shape = (*(min(length, _TOKENS) for length in shape[:before]), *shape[before:])
    return Kind(layer.op_type, weight, shape, tuple(given.items()))


def _plain(value: Any) -> Any:
    """Return an attribute as it can be compared and hashed."""
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _chosen(kinds: Sequence[Kind]) -> list[Kind]:
    """Return the kinds to test: first one of each group, then others, those of the most MACs first."""
    by_work = sorted(kinds, key=lambda kind: -kind.macs)
    first = list({kind.group: kind for kind in reversed(by_work)}.values())[::-1]
    ordered = dict.fromkeys([*first, *by_work])
    totals = itertools.accumulate(math.prod(kind.weight) for kind in ordered)
    return [kind for kind, total in zip(ordered, totals) if total <= MOST_WEIGHTS][:MOST_KINDS]


@dataclass(frozen=True)
class _Case:
    """A layer with its integers, and what it makes of them."""

    kind: Kind
    signed: bool
    input: Floats  # integers, [BATCH, ...]
    weight: Floats  # integers in the weight's shape
    bias: Floats  # in units of the products, [output channels]
    steps: Floats  # of the weight's output channels

    @classmethod
    def draw(cls, kind: Kind, signed: bool, rng: np.random.Generator) -> _Case:
        low, high = (-LEVELS, LEVELS) if signed else (0, 2 * LEVELS + 1)
        given = rng.integers(low, high, (BATCH, *kind.input), endpoint=True)
        # Even ones, of which a writer that wants 7 bits loses nothing; and some of the largest, off which engines that
        # know no steps read theirs.
        weight = 2 * rng.integers(-(LEVELS // 2), LEVELS // 2, kind.weight, endpoint=True)
        axis = OUTPUT_AXES[kind.op_type]
        channels = kind.weight[axis]
        is_largest = rng.random(weight.shape) < _SHARE_OF_LARGEST
        np.moveaxis(is_largest, axis, -1)[(0,) * (weight.ndim - 1)] = True
        weight = np.where(is_largest, LEVELS * rng.choice([-1, 1], weight.shape), weight)
        bias = rng.integers(-_LARGEST_BIAS, _LARGEST_BIAS, channels)
        steps = rng.choice(_WEIGHT_STEPS, channels)
        return cls(kind, signed, *(each.astype(np.float64) for each in (given, weight, bias, steps)))

    def __str__(self) -> str:
        return f"{self.kind}, {'signed' if self.signed else 'unsigned'} activations"

    @property
    def range(self) -> Range:
        return Range.around_zero(LEVELS * _STEP) if self.signed else Range(0.0, (2 * LEVELS + 1) * _STEP)

    def output(self, op: Any) -> Floats:
        """Return what the layer makes, computed in integers; `op` is Paddle's operator of it."""
        sums = _sums(self.kind, op, self.input, self.weight)
        axis = 1 if self.kind.is_convolution else sums.ndim - 1
        bias, steps = (along(each, axis, sums.ndim) for each in (self.bias, self.steps))
        result: Floats = (sums + bias) * steps * _STEP
        return result


def _sums(kind: Kind, op: Any, values: Floats, weight: Floats) -> Floats:
    """Return sums of products, exact as long as they stay below 2^53."""
    if not kind.is_convolution:
        rank = dict(kind.attributes).get("x_num_col_dims", values.ndim - 1)
        product: Floats = values.reshape(-1, weight.shape[0]) @ weight
        return product.reshape(*values.shape[:rank], -1)
    strides, dilations = op.attr("strides"), op.attr("dilations")
    extent = [(size - 1) * by + 1 for size, by in zip(weight.shape[2:], dilations)]
    paddings = paddings_of(op, values.shape[2:], extent, strides)
    taps = list(np.ndindex(*weight.shape[2:]))
    if kind.op_type == "conv2d_transpose":
        return _transposed(op, values, weight, extent, paddings, taps)
    padded = np.pad(values, ((0, 0), (0, 0), *paddings))
    sides = [(have - need) // by + 1 for have, need, by in zip(padded.shape[2:], extent, strides)]
    groups = int(op.attr("groups"))
    total = np.zeros((len(values), groups, len(weight) // groups, math.prod(sides)))
    for row, column in taps:
        down, across = _places((row, column), dilations, sides, strides)
        read = padded[:, :, down, across].reshape(len(values), groups, weight.shape[1], -1)
        total += weight[:, :, row, column].reshape(groups, -1, weight.shape[1]) @ read
    return total.reshape(len(values), len(weight), *sides)


def _transposed(
    op: Any,
    values: Floats,
    weight: Floats,
    extent: Sequence[int],
    paddings: Sequence[tuple[int, int]],
    taps: Sequence[tuple[int, ...]],
) -> Floats:
    """Return the sums of a transposed convolution: each value adds a multiple of the kernel to what is around it."""
    strides, dilations, sides = op.attr("strides"), op.attr("dilations"), values.shape[2:]
    more = op.attr("output_padding") or [0, 0]
    whole = [(side - 1) * by + need + end for side, by, need, end in zip(sides, strides, extent, more)]
    total = np.zeros((len(values), weight.shape[1], *whole))
    for row, column in taps:
        down, across = _places((row, column), dilations, sides, strides)
        added = weight[:, :, row, column].T @ values.reshape(*values.shape[:2], -1)
        total[:, :, down, across] += added.reshape(len(values), -1, *sides)
    (top, bottom), (left, right) = paddings
    return total[:, :, top : whole[0] - bottom, left : whole[1] - right]


def _places(tap: Sequence[int], dilations: Sequence[int], sides: Sequence[int], strides: Sequence[int]) -> list[slice]:
    """Return the rows and the columns that one tap of a kernel meets in all positions."""
    starts = [index * by for index, by in zip(tap, dilations)]
    ends = [start + (side - 1) * by + 1 for start, side, by in zip(starts, sides, strides)]
    return list(map(slice, starts, ends, strides))


@dataclass
class _Test:
    """The test of one engine, until the time is up."""

    spec: Spec
    threads: int
    deadline: float
    process: EngineProcess | None  # for the first file
    right: set[Kind] = field(default_factory=set)

    def wrong(self, cases: Sequence[_Case]) -> list[tuple[_Case, str]]:
        """Return the cases that are wrong, each with the cause.

        All run in one file. Where the engine refuses that, or dies of it, each group of kinds has a file of its own;
        what it refuses then is wrong.
        """
        left = self.deadline - time.monotonic()
        if not cases or left <= 0:
            return []
        model = _model(cases)
        outputs = [case.output(model.producer(f"y{n}")) for n, case in enumerate(cases)]
        try:
            found = self._run(model, _scheme(cases, outputs), cases, left)
        except EngineFailure as failure:
            if failure.kind in ("missing", "unsupported", "timeout"):
                log.info(f"analyze: {self.spec.title}'s int8 kernels were not tested: {failure}")
                return []
            groups: dict[Any, list[_Case]] = {}
            for case in cases:
                groups.setdefault(case.kind.group, []).append(case)
            if len(groups) == 1:
                return [(cases[0], str(failure))]
            return [found for group in groups.values() for found in self.wrong(group)]
        except InputError as error:
            log.info(f"analyze: {self.spec.title}'s int8 kernels were not tested: {error}")
            return []
        causes = [_difference(*pair) for pair in zip(found, outputs)]
        wrong = [(case, cause) for case, cause in zip(cases, causes) if cause is not None]
        self.right |= {case.kind for case in cases} - {case.kind for case, _ in wrong}
        return wrong

    def _run(self, model: InferenceModel, scheme: Scheme, cases: Sequence[_Case], seconds: float) -> list[Array]:
        """Return the outputs of all cases, batch axis first."""
        writer = writer_of(self.spec.name)
        if writer.rules is not None:
            # A layer alone is the last of its model.
            writer.rules = replace(writer.rules, round_ends=True)
        feeds = {f"x{n}": Ragged.of(list((case.input * _STEP).astype(np.float32))) for n, case in enumerate(cases)}
        with tempfile.TemporaryDirectory() as name:
            samples, folder = Path(name) / "samples", Path(name) / "model"
            Samples(feeds).save(samples)
            folder.mkdir()
            path = writer.write(model, scheme, folder)
            started, self.process = self.process, None
            with (
                EngineProcess(self.spec.name, path, "int8", self.threads, seconds)
                if started is None
                else nullcontext(started)
            ) as process:
                process.renew(seconds)
                process.load(path, "int8")
                return [np.stack(list(each)) for each in process.outputs(samples, batch=BATCH)]


def _difference(found: Array, wanted: Floats) -> str | None:
    """Tell how far an engine's output is from the sums, and from their integers where it rounds; None where it is not.

    The integers have 127 steps up to the largest sum.
    """
    if found.shape != wanted.shape:
        return f"it makes {list(found.shape)} where the layer makes {list(wanted.shape)}"
    step = _largest(wanted) / LEVELS
    off = np.abs(found - wanted) / step
    wrong = off > _ALLOWED
    if not wrong.any():
        return None
    share, most = 100 * float(wrong.mean()), float(off.max())
    return f"{share:.3g} % of the values differ from NumPy's, by up to {most:.3g} of {LEVELS} steps"


def _largest(values: Floats) -> float:
    return float(np.abs(values).max(initial=_STEP * float(_WEIGHT_STEPS[0])))


def _model(cases: Sequence[_Case]) -> InferenceModel:
    """Return an fp32 model of all cases side by side."""
    layers = []
    for case in cases:
        kind = case.kind
        steps = along(case.steps, OUTPUT_AXES[kind.op_type], len(kind.weight))
        weight, bias = (case.weight * steps).astype(np.float32), (case.bias * case.steps * _STEP).astype(np.float32)
        given = {name: list(each) if isinstance(each, tuple) else each for name, each in kind.attributes}
        layers.append(SingleLayer(kind.op_type, given, kind.input, weight, bias))
    return side_by_side(layers)


def _scheme(cases: Sequence[_Case], outputs: Sequence[Floats]) -> Scheme:
    """Return the scheme of `_model`, with the ranges of what the layers make under both names that it has in ONNX."""
    spans = {n: Range.around_zero(_largest(output)) for n, output in enumerate(outputs)}
    return Scheme(
        layers=tuple(f"y{n}" for n in spans),
        activations={f"x{n}": case.range for n, case in enumerate(cases)},
        weights={f"w{n}": (LEVELS * case.steps).astype(np.float32) for n, case in enumerate(cases)},
        integers={f"w{n}": case.weight.astype(np.int8) for n, case in enumerate(cases)},
        further={f"{end}{n}": span for n, span in spans.items() for end in "yz"},
    )
