"""Exact rewrites of an fp32 ONNX graph into the form that integer kernels know."""

from collections.abc import Collection, Iterator

import numpy as np
import onnx
from onnx import helper

from act.onnx_graph.graph import Graph, attribute, inferred, slope_and_middle
from act.samples.dataset import Array

_SAME = 1e-4
_GATES = ("HardSwish", "HardSigmoid")


def _with_addition(graph: Graph, kind: str) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto, str]]:
    """Yield each node of a type that an `Add` alone reads, the `Add`, and the name of what it adds."""
    for node in graph.of_type(kind):
        addition = graph.only_consumer(node.output[0])
        if addition is not None and addition.op_type == "Add":
            yield node, addition, next((name for name in addition.input if name != node.output[0]), node.output[0])


def products_to_gemm(graph: Graph) -> None:
    """Make one `Gemm` of the `MatMul` of a table by a constant and the `Add` of a constant vector."""
    shapes = inferred(graph.model())
    types = {each.name: each.type.tensor_type for each in (*shapes.input, *shapes.value_info)}
    ranks = {name: len(each.shape.dim) for name, each in types.items() if each.HasField("shape")}
    for product, addition, bias in _with_addition(graph, "MatMul"):
        known = graph.is_constant(product.input[1]) and graph.is_constant(bias) and ranks.get(product.input[0]) == 2
        if known and graph.constant(bias).shape == graph.constant(product.input[1]).shape[1:]:
            gemm = helper.make_node("Gemm", [*product.input, bias], list(addition.output))
            graph.replace([product, addition], [gemm])


def split_hard_swish(graph: Graph) -> None:
    """Write `HardSwish` as what it is, the product of its input and its input's `HardSigmoid`."""
    for node in graph.of_type("HardSwish"):
        source, result = node.input[0], node.output[0]
        gate = helper.make_node("HardSigmoid", [source], [f"{result}.gate"], alpha=1 / 6, beta=0.5)
        graph.replace([node], [gate, helper.make_node("Mul", [source, gate.output[0]], [result])])


def ends_of_gates(graph: Graph) -> dict[str, float]:
    """Return the tensors that only `HardSwish` and `HardSigmoid` read, with the number below which they give zero."""
    ends: dict[str, float] = {}
    for name in dict.fromkeys(name for node in graph.nodes for name in node.output):
        consumers = graph.consumers(name)
        if consumers and name not in graph.outputs and all(node.op_type in _GATES for node in consumers):
            ends[name] = min(_end_of_gate(node) for node in consumers)
    return ends


def _end_of_gate(node: onnx.NodeProto) -> float:
    if node.op_type == "HardSwish":
        return -3.0
    slope, middle = slope_and_middle(node)
    return min(-middle / slope, 0.0) if slope > 0 else -np.inf


def gate_residuals(graph: Graph) -> None:
    """Write `x + x g` as `x (1 + g)`, where the gate `g` has one value a channel: one pass over `x` less."""
    for product, addition, source in _with_addition(graph, "Mul"):
        gate = next((name for name in product.input if name != source), source)
        if source not in product.input or not _is_gate_of_channels(graph, graph.producer(gate)):
            continue
        one = graph.add_constant("one", np.array(1, dtype=np.float32))
        opened = helper.make_node("Add", [gate, one], [f"{gate}.opened"])
        scaled = helper.make_node("Mul", [source, opened.output[0]], list(addition.output))
        graph.replace([product, addition], [opened, scaled])


def _is_gate_of_channels(graph: Graph, node: onnx.NodeProto | None) -> bool:
    """Tell whether a node is a gate that comes from a `GlobalAveragePool`, with one thing after another in between."""
    if node is None or node.op_type not in ("Sigmoid", "HardSigmoid"):
        return False
    while node is not None and node.op_type in ("Sigmoid", "HardSigmoid", "Relu", "Conv"):
        node = graph.producer(node.input[0])
    return node is not None and node.op_type == "GlobalAveragePool"


def bias_of_transposed(graph: Graph) -> None:
    """Make the `Add` of one value a channel after a `ConvTranspose` its bias."""
    for layer, addition, name in _with_addition(graph, "ConvTranspose"):
        values = graph.constant(name) if graph.is_constant(name) and len(layer.input) == 2 else np.zeros(0)
        if values.ndim in (3, 4) and values.shape[-3] == values.size:
            bias = graph.add_constant(flat(name), values.reshape(-1))
            merged = helper.make_node("ConvTranspose", [*layer.input, bias], list(addition.output))
            merged.attribute.extend(layer.attribute)
            graph.replace([layer, addition], [merged])


def flat(name: str) -> str:
    """Return the name of a bias in one axis, as a `ConvTranspose` takes it."""
    return f"{name}.flat"


def factors_into_depthwise(graph: Graph) -> tuple[dict[str, Array], dict[str, str]]:
    """Take out every `Mul` by one number, or by one a channel, of what only depthwise convolutions read.

    Their weights take it up, channel by channel; an `Add` between, of one number or one a channel, is divided by it.

    Returns:
        By weight, what its output channels are to be multiplied by, float32 [channels] > 0; and for tensors that
        are now smaller or larger than they were, the one that an `Add` makes them of.
    """
    factors: dict[str, Array] = {}
    changed: dict[str, str] = {}
    for product in graph.of_type("Mul"):
        scaled = _by_channel(graph, product)
        addition = graph.only_consumer(product.output[0])
        shifted = _by_channel(graph, addition) if addition is not None and addition.op_type == "Add" else None
        result = product if shifted is None or addition is None else addition
        consumers = graph.consumers(result.output[0])
        if scaled is None or (scaled[1] <= 0).any() or result.output[0] in graph.outputs or not consumers:
            continue
        if not all(_is_depthwise(graph, consumer, result.output[0]) for consumer in consumers):
            continue
        for consumer in consumers:
            channels = graph.constant(consumer.input[1]).shape[0]
            factors[consumer.input[1]] = np.repeat(scaled[1], channels // scaled[1].size)
        if shifted is None:
            for consumer in consumers:
                graph.set_input(consumer, 0, scaled[0])
        elif addition is not None:
            summand = (shifted[1] / scaled[1]).astype(np.float32)
            # What was one number, before each channel had a factor, is one again.
            summand = summand[:1] if np.ptp(summand) <= _SAME * np.abs(summand).max() else summand.reshape(-1, 1, 1)
            changed[addition.output[0]] = scaled[0]
            graph.set_inputs(addition, [scaled[0], graph.add_constant(f"{addition.output[0]}.summand", summand)])
        graph.remove(product)
    return factors, changed


def _by_channel(graph: Graph, node: onnx.NodeProto) -> tuple[str, Array] | None:
    """Return the activation and the values, float32 [1 or channels], where a node combines it with one a channel."""
    names = [name for name in node.input if graph.is_constant(name)]
    if len(names) != 1:
        return None
    values = graph.constant(names[0])
    if values.size > 1 and not (values.ndim in (3, 4) and values.shape[-3] == values.size):
        return None
    return next(name for name in node.input if name != names[0]), values.reshape(-1)


def _is_depthwise(graph: Graph, node: onnx.NodeProto, name: str) -> bool:
    """Tell whether a node is a convolution of this tensor with one input channel for each output channel."""
    if node.op_type != "Conv" or node.input[0] != name or not graph.is_constant(node.input[1]):
        return False
    weight = graph.constant(node.input[1])
    return weight.shape[1] == 1 and attribute(node, "group", 1) == weight.shape[0]


def take_out_shifts(graph: Graph, behind: Collection[str]) -> dict[str, float]:
    """Take out every `Add` of one number behind an operator of some types, which then makes what the `Add` made.

    Returns:
        What is to be added to a tensor, by its name: QDQ can do so by its zero point, or else `put_back_shift`.
    """
    shifts: dict[str, float] = {}
    for addition in graph.of_type("Add"):
        constants = [graph.constant(name) for name in addition.input if graph.is_constant(name)]
        source = next((name for name in addition.input if not graph.is_constant(name)), "")
        producer = graph.producer(source)
        if (
            len(constants) != 1
            or constants[0].size != 1
            or constants[0].ndim > 1
            or graph.only_consumer(source) is None
        ):
            continue
        if producer is not None and producer.op_type in behind:
            shifts[addition.output[0]] = float(constants[0].reshape(-1)[0])
            graph.remove(addition)
            graph.set_output(producer, 0, addition.output[0])
    return shifts


def put_back_shift(graph: Graph, name: str, shift: float) -> None:
    """Add to a tensor what was taken out."""
    producer = graph.producer(name)
    assert producer is not None
    source = f"{name}.unshifted"
    graph.set_output(producer, list(producer.output).index(name), source)
    constant = graph.add_constant(f"{name}.shift", np.array(shift, dtype=np.float32))
    graph.replace([producer], [producer, helper.make_node("Add", [source, constant], [name])])


def input_to_depth(graph: Graph) -> dict[str, tuple[int, int]]:
    """Let a first convolution with stride 2 read blocks of 2 x 2 pixels as channels, with stride 1: the same sums.

    An engine takes longer to gather pixels of three bytes than to multiply them. Done where sides are known and even.

    Returns:
        By weight, the zero rows and columns that `blocks` puts ahead of it; its tensor here is changed already.
    """
    changed: dict[str, tuple[int, int]] = {}
    for node in [node for node in graph.of_type("Conv") if node.input[0] in graph.inputs]:
        size, weight = np.array([side or 1 for side in graph.shape_of_input(node.input[0])[2:]]), node.input[1]
        plain = attribute(node, "auto_pad", b"NOTSET") == b"NOTSET" and attribute(node, "group", 1) == 1
        even = len(size) == 2 and not (size % 2).any()
        strided = list(attribute(node, "strides", [])) == [2, 2] and set(attribute(node, "dilations", [1])) == {1}
        if not (plain and even and strided and graph.is_constant(weight) and len(graph.consumers(weight)) == 1):
            continue
        values = graph.constant(weight)
        kernel, (before, behind) = np.array(values.shape[2:]), np.reshape(attribute(node, "pads", [0] * 4), (2, 2))
        ahead = before % 2
        first = (before + ahead) // 2
        outputs = (size + before + behind - kernel) // 2 + 1
        last = outputs - 1 + (kernel + ahead + 1) // 2 - first - size // 2
        if last.min() >= 0:
            deep, changed[weight] = f"{node.input[0]}.deep", (int(ahead[0]), int(ahead[1]))
            graph.add_constant(weight, blocks(values, changed[weight]))
            pads = [*first.tolist(), *last.tolist()]
            convolution = helper.make_node("Conv", [deep, *node.input[1:]], list(node.output), pads=pads)
            blocked = helper.make_node("SpaceToDepth", [node.input[0]], [deep], blocksize=2)
            graph.replace([node], [*([blocked] if graph.producer(deep) is None else []), convolution])
    return changed


def blocks(weight: Array, ahead: tuple[int, int]) -> Array:
    """Return the weight of a convolution over blocks of 2 x 2 pixels, with channels in `SpaceToDepth`'s order.

    Args:
        weight: [outputs, channels, height, width]; it becomes [outputs, 4 * channels, height / 2, width / 2].
        ahead: rows and columns of zeros to put before it; behind it comes what makes the sizes even.
    """
    outputs, channels, *kernel = weight.shape
    margins = [(before, (side + before) % 2) for side, before in zip(kernel, ahead)]
    padded = np.pad(weight, [(0, 0), (0, 0), *margins])
    height, width = (side // 2 for side in padded.shape[2:])
    apart = padded.reshape(outputs, channels, height, 2, width, 2).transpose(0, 3, 5, 1, 2, 4)
    return np.ascontiguousarray(apart.reshape(outputs, 4 * channels, height, width))
