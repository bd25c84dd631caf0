"""The program as a fixed graph of values, with what one sample shows of every tensor.

Only values count as edges, not sizes, nor what a training run would keep: a reshape does not depend on whatever its new
shape was taken from.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.samples.dataset import Array

# Inputs that hold sizes and places, and outputs that nothing reads at inference.
_SIZES = (
    *("Shape", "ShapeTensor", "ShapeTensorList", "SizeTensor", "OutSize", "Scale", "AxisTensor", "ExpandTimes"),
    *("StartsTensor", "StartsTensorList", "EndsTensor", "EndsTensorList", "StridesTensor", "SectionsTensorList"),
    *("expand_shapes_tensor", "repeat_times_tensor"),
)
_FOR_TRAINING = ("XShape", "Mask", "MeanOut", "VarianceOut", "SavedMean", "SavedVariance", "ReserveSpace")
_ALSO_FOR_TRAINING = {"layer_norm": ("Mean", "Variance"), "group_norm": ("Mean", "Variance")}
_MAIN_SLOTS = ("Out", "Output", "Y")
_SIZES_OF = ("shape", "size", "numel")

# A prime, so that no row of a picture is as long.
_PERIOD = 65_521
_NUMBERS = np.random.default_rng(0).normal(size=_PERIOD)

CONVOLUTIONS = ("conv2d", "depthwise_conv2d", "conv3d")
TRANSPOSED_CONVOLUTIONS = ("conv2d_transpose", "depthwise_conv2d_transpose", "conv3d_transpose")
MATRIX_PRODUCTS = ("matmul", "matmul_v2", "bmm", "mul")


@dataclass(frozen=True)
class Tensor:
    """A tensor as one sample shows it, batch axis first, with what `sketch` returns for its values."""

    shape: tuple[int, ...]
    dtype: str
    sketch: tuple[float, ...] = ()

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        number: its place in the program.
        name: its main output.
        reads: tensors whose values it reads, weights left out.
        sizes: tensors that tell it sizes only.
        makes: tensors that it makes, main output first.
    """

    number: int
    name: str
    type: str
    reads: tuple[str, ...]
    sizes: tuple[str, ...]
    weights: tuple[str, ...]
    makes: tuple[str, ...]
    op: Any

    @property
    def is_convolution(self) -> bool:
        return self.type in CONVOLUTIONS or self.type in TRANSPOSED_CONVOLUTIONS

    @property
    def is_layer(self) -> bool:
        return bool(self.weights) and (self.is_convolution or self.type in MATRIX_PRODUCTS)

    @property
    def is_product(self) -> bool:
        """Tell whether it multiplies two activations as matrices."""
        return self.type in MATRIX_PRODUCTS and len(self.reads) == 2

    def attribute(self, name: str, otherwise: Any = None) -> Any:
        """Return an attribute, or what stands for it where there is none."""
        return self.op.attr(name) if self.op.has_attr(name) else otherwise


class Graph:
    """The operators of a model in order, and all its tensors as one sample shows them.

    Attributes:
        sample: a batch of one.
        weights: the shape of every weight.
        tensors: what the sample gives, by name; a branch that is not taken gives nothing.
        producers: number of the operator that makes a tensor; the last where several write it.
        consumers: numbers of the operators that read a tensor, be it for its values or as a size.
    """

    def __init__(self, model: InferenceModel, sample: Mapping[str, Array]) -> None:
        self.model, self.sample = model, sample
        self.feeds, self.fetches = tuple(model.feed_names), tuple(model.fetch_names)
        block = model.program.global_block()
        self.weights = {name: tuple(block.var(name).shape) for name in model.weight_names() if block.has_var(name)}
        ops = [op for op in model.ops if op.output_arg_names]
        self.nodes = [_node(number, op, self.weights) for number, op in enumerate(ops)]
        self.producers = {name: node.number for node in self.nodes for name in node.makes}
        self.consumers: dict[str, list[int]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys([*node.reads, *node.sizes, *node.weights]):
                self.consumers[name].append(node.number)
        dense = paddle.framework.core.VarDesc.VarType.LOD_TENSOR
        made = dict.fromkeys(name for node in self.nodes for name in node.makes)
        wanted = [name for name in made if block.has_var(name) and block.var(name).type == dense]
        values = {**sample, **dict(zip(wanted, model.run(sample, wanted)))}
        arrays = {name: np.asarray(value) for name, value in values.items() if value is not None}
        self.tensors = {name: Tensor(array.shape, array.dtype.name, sketch(array)) for name, array in arrays.items()}

    def producer(self, name: str) -> Node | None:
        """Return the operator that makes a tensor; None for an input or a weight."""
        number = self.producers.get(name)
        return None if number is None else self.nodes[number]

    def consumers_of(self, name: str) -> list[Node]:
        return [self.nodes[number] for number in self.consumers.get(name, ())]

    def producers_before(self, node: Node) -> list[int]:
        """Return the numbers of the operators whose values a node reads; none where it only asks for a size."""
        if node.type in _SIZES_OF:
            return []
        numbers = {self.producers.get(name, node.number) for name in node.reads}
        return sorted(number for number in numbers if number < node.number)


def _node(number: int, op: Any, weights: Collection[str]) -> Node:
    reads: dict[str, None] = {}
    sizes: dict[str, None] = {}
    used: dict[str, None] = {}
    for slot in op.input_names:
        for name in op.input(slot):
            (used if name in weights else sizes if slot in _SIZES else reads)[name] = None
    skipped = (*_FOR_TRAINING, *_ALSO_FOR_TRAINING.get(op.type, ()))
    values = [name for slot in op.output_names if slot not in skipped for name in op.output(slot)]
    makes = tuple(dict.fromkeys([main_output(op), *values]))
    return Node(number, makes[0], str(op.type), tuple(reads), tuple(sizes), tuple(used), makes, op)


def main_output(op: Any) -> str:
    """Return the output of an operator that carries the values."""
    filled = [slot for slot in _MAIN_SLOTS if slot in op.output_names and op.output(slot)]
    return str(op.output(filled[0])[0] if filled else op.output_arg_names[0])


def sketch(value: Array) -> tuple[float, ...]:
    """Return two figures by which tensors of the same values are known again, whatever their shape: the root of the sum
    of squares, and the sum of the values times fixed numbers; none where the values are no numbers.
    """
    if not np.issubdtype(value.dtype, np.number) and value.dtype != np.bool_:
        return ()
    flat = value.reshape(-1).astype(np.float64)
    whole = flat.size // _PERIOD * _PERIOD
    with np.errstate(over="ignore", invalid="ignore"):
        sums = flat[:whole].reshape(-1, _PERIOD).sum(axis=0)
        sums[: flat.size - whole] += flat[whole:]
        return float(np.sqrt(flat @ flat)), float(sums @ _NUMBERS)


def alike(first: Tensor, second: Tensor, tolerance: float = 1e-3) -> bool:
    """Tell whether two tensors hold the same values, up to the rounding of different kernels."""
    if not first.sketch or not second.sketch or np.prod(first.shape) != np.prod(second.shape):
        return False
    size = max(first.sketch[0], second.sketch[0])
    return all(abs(one - other) <= tolerance * size for one, other in zip(first.sketch, second.sketch))
