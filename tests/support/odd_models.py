"""Tiny models on the edge of what the pipeline takes, each saved with samples of its own; built in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from act.metrics.ctc_exact import read_ctc
from act.program.model import InferenceModel
from act.program.paddle_setup import CPU, paddle
from act.samples.dataset import PADDING, Array, Ragged, Samples
from act.settings import Metric

Inputs = Mapping[str, tuple[tuple[int, ...], str]]
CLASSES = 5


@dataclass(frozen=True)
class Odd:
    """A model and its data.

    Attributes:
        inputs: shape, with the batch axis first, and dtype of each.
        network: from the inputs, in order, to the output or the outputs.
        draw: the feeds of one sample, without the batch axis.
        change: the weights once they are drawn, by name; may change them in place.
        metric: `top1` and `ctc_exact` give the samples labels, which are what the model says itself.
    """

    inputs: Inputs
    network: Callable[..., Any]
    draw: Callable[[np.random.Generator], dict[str, Array]]
    change: Callable[[InferenceModel], None] = field(default=lambda model: None)
    metric: Metric = "similarity"

    def model(self) -> InferenceModel:
        """Build the inference model; its weights are normal, so that nothing saturates."""
        program, startup, scope = paddle.static.Program(), paddle.static.Program(), paddle.static.Scope()
        with (
            paddle.static.scope_guard(scope),
            paddle.utils.unique_name.guard(),
            paddle.static.program_guard(program, startup),
        ):
            feeds = [paddle.static.data(name, list(shape), dtype) for name, (shape, dtype) in self.inputs.items()]
            found = self.network(*feeds)
            outputs = list(found) if isinstance(found, tuple) else [found]
            paddle.static.Executor(CPU).run(startup)
            program = paddle.static.normalize_program(program, feeds, outputs)
        fetches = [op.input("X")[0] for op in program.global_block().ops if op.type == "fetch"]
        model = InferenceModel(program, scope, list(self.inputs), fetches)
        rng = np.random.default_rng(0)
        for name in model.weight_names():
            shape = model.weight(name).shape
            # A variance must be positive, whatever else a vector is for.
            drawn = rng.uniform(0.5, 1.5, shape) if len(shape) == 1 else rng.normal(size=shape, scale=_scale(shape))
            model.set_weight(name, drawn.astype(np.float32))
        self.change(model)
        return model

    def samples(self, model: InferenceModel, count: int, seed: int) -> Samples:
        """Draw samples, and their labels where the metric asks for them."""
        rng = np.random.default_rng(seed)
        rows = [self.draw(rng) for _ in range(count)]
        feeds = {name: Ragged.of([row[name] for row in rows]) for name in self.inputs}
        if self.metric == "similarity":
            return Samples(feeds)
        outputs = [model.run(batch)[0][0] for batch in Samples(feeds).batches(1)]
        if self.metric == "top1":
            return Samples(feeds, Ragged.of([np.array([np.argmax(output)]) for output in outputs]))
        lines = [read_ctc(output) for output in outputs]
        longest = max(map(len, lines))
        return Samples(feeds, Ragged.of([np.array(line + [PADDING] * (longest - len(line))) for line in lines]))


def _scale(shape: Sequence[int]) -> float:
    """Return the scale with which values neither grow nor shrink much from layer to layer."""
    return float(np.prod(shape[1:] if len(shape) == 4 else shape[:1])) ** -0.5


def _conv(x: Any, channels: int, groups: int = 1, kernel: int = 3) -> Any:
    shape = [channels, x.shape[1] // groups, kernel, kernel]
    weight = paddle.static.create_parameter(shape, "float32")
    return paddle.nn.functional.conv2d(x, weight, padding=kernel // 2, groups=groups)


def _matmul(x: Any, width: int, turned: bool = False) -> Any:
    shape = [width, x.shape[-1]] if turned else [x.shape[-1], width]
    return paddle.matmul(x, paddle.static.create_parameter(shape, "float32"), transpose_y=turned)


def _relu(x: Any) -> Any:
    return paddle.nn.functional.relu(x)


def _picture(height: int = 8, width: int = 8) -> Callable[[np.random.Generator], dict[str, Array]]:
    return lambda rng: {"x": rng.normal(size=(3, height, width)).astype(np.float32)}


def _head(x: Any, classes: int = CLASSES) -> Any:
    return paddle.nn.functional.softmax(_matmul(x.mean(axis=[2, 3]), classes))


def _over_the_batch(x: Any) -> Any:
    """Compute with the mean over the batch, so that samples together give something else than apart."""
    return _plain(x + 0.1 * paddle.mean(x, axis=0, keepdim=True))


def _plain(x: Any) -> Any:
    return _head(_relu(_conv(_relu(_conv(x, 8)), 8)))


PICTURE: Inputs = {"x": ((-1, 3, 8, 8), "float32")}
ANY_PICTURE: Inputs = {"x": ((-1, 3, -1, -1), "float32")}


def _picture_and_ids(x: Any, ids: Any) -> Any:
    table = paddle.static.create_parameter([11, 8], "float32")
    words = _relu(_matmul(paddle.nn.functional.embedding(ids, table), 8)).mean(axis=1)
    return _matmul(_relu(_conv(x, 8)).mean(axis=[2, 3]) + words, CLASSES)


def _tokens(ids: Any) -> Any:
    table = paddle.static.create_parameter([11, 8], "float32")
    return paddle.nn.functional.softmax(
        _matmul(_relu(_matmul(paddle.nn.functional.embedding(ids, table), 16)), CLASSES)
    )


def _fully_convolutional(x: Any) -> Any:
    return _conv(_relu(_conv(x, 8)), CLASSES)


def _reader(x: Any) -> Any:
    rows = paddle.transpose(_relu(_conv(x, 8)).mean(axis=2), [0, 2, 1])
    return paddle.nn.functional.softmax(_matmul(rows, CLASSES))


def _any_picture(rng: np.random.Generator) -> dict[str, Array]:
    height, width = (int(size) for size in rng.integers(6, 10, size=2))
    return _picture(height, width)(rng)


def _any_tokens(rng: np.random.Generator) -> dict[str, Array]:
    return {"ids": rng.integers(11, size=int(rng.integers(2, 7)))}


def _silent_last_weight(model: InferenceModel) -> None:
    name = next(op.input("Y")[0] for op in reversed(model.ops) if op.type == "matmul_v2")
    model.set_weight(name, np.zeros_like(model.weight(name)))


def _silent_first_weight(model: InferenceModel) -> None:
    """Make all that the second layer reads zero."""
    name = next(op.input("Filter")[0] for op in model.ops if op.type == "conv2d")
    model.set_weight(name, np.zeros_like(model.weight(name)))


def _infinite_inside(x: Any) -> Any:
    """Build a network with infinite activations whose outputs are finite."""
    return _head(_relu(_conv(paddle.exp(_conv(x, 8) * 1000.0), 8)).clip(0.0, 1.0))


def _overflow(x: Any) -> Any:
    return _matmul((_conv(x, 8) * 1e30 * 1e30).mean(axis=[2, 3]), CLASSES)


def _nothing(x: Any) -> Any:
    return paddle.nn.functional.max_pool2d(_relu(x), 2)


def _shared_weight(x: Any) -> Any:
    weight = paddle.static.create_parameter([3, 3, 3, 3], "float32")
    for _ in range(2):
        x = _relu(paddle.nn.functional.conv2d(x, weight, padding=1))
    return _head(x)


def _norm_left_over(x: Any) -> Any:
    return _head(paddle.static.nn.batch_norm(_relu(_conv(x, 8)), is_test=True))


def _silent_channel(model: InferenceModel) -> None:
    name = next(op.input("Filter")[0] for op in model.ops if op.type == "conv2d")
    weight = model.weight(name)
    weight[2] = 0
    model.set_weight(name, weight)


def _turned(x: Any) -> Any:
    return _matmul(_matmul(_conv(x, 4), 6, turned=True).flatten(1), CLASSES, turned=True)


def _turned_activation(x: Any) -> Any:
    weight = paddle.static.create_parameter([8, 6], "float32")
    return _matmul(paddle.matmul(_conv(x, 4), weight, transpose_x=True).flatten(1), CLASSES)


def _ranks(x: Any) -> Any:
    rows = _matmul(_matmul(x, 6).flatten(2), 7)
    return _matmul(_relu(rows).flatten(1), CLASSES)


def _rank_one(x: Any) -> Any:
    weight = paddle.static.create_parameter([8], "float32")
    return paddle.matmul(x, weight).flatten(1)


def _zero_over_zero(x: Any) -> Any:
    """Build a network that gives no number for a black picture."""
    means = _relu(_conv(x, 8)).mean(axis=[2, 3])
    return _matmul(means / means.max(axis=1, keepdim=True), CLASSES)


def _deformable(x: Any) -> Any:
    """Build a convolution whose places are moved about, which ONNX has from opset 19 on."""
    offset = paddle.static.nn.conv2d(x, 18, 3, padding=1)
    weight = paddle.static.create_parameter([4, 3, 3, 3], "float32")
    out = paddle.vision.ops.deform_conv2d(x, offset, weight, padding=1)
    return paddle.static.nn.fc(paddle.nn.functional.relu(out), CLASSES)


def _grouped(x: Any) -> Any:
    return _head(_relu(_conv(_conv(_conv(x, 8), 8, groups=2), 8, groups=8)))


def _one_class(x: Any) -> Any:
    return _head(_relu(_conv(x, 8)), 1)


def _two_outputs(x: Any) -> Any:
    middle = _relu(_conv(x, 8))
    return _head(middle), paddle.argmax(middle, axis=1)


def _integer_output(x: Any) -> Any:
    return paddle.argmax(_relu(_conv(x, 8)), axis=1)


def _reshaped(x: Any) -> Any:
    """Build a network that takes one size, though it says any."""
    return _matmul(paddle.reshape(_conv(x, 4), [-1, 4 * 8 * 8]), CLASSES)


def _transposed_same(x: Any) -> Any:
    """Build a network of which OpenVINO makes one row and one column more than Paddle."""
    weight = paddle.static.create_parameter([8, 8, 3, 3], "float32")
    wide = paddle.nn.functional.conv2d_transpose(_relu(_conv(x, 8)), weight, stride=2, padding="SAME")
    return _conv(_relu(wide), CLASSES)


def _no_batch_axis(x: Any) -> Any:
    return _conv(x, 8).mean()


def _channels_last(x: Any) -> Any:
    weight = paddle.static.create_parameter([8, 3, 3, 3], "float32")
    return _matmul(paddle.nn.functional.conv2d(x, weight, data_format="NHWC").mean(axis=[1, 2]), CLASSES)


def _fc(x: Any) -> Any:
    return paddle.static.nn.fc(_relu(_conv(x, 8)), CLASSES, num_flatten_dims=1)


def _tied(ids: Any) -> Any:
    table = paddle.static.create_parameter([11, 8], "float32")
    rows = _relu(_matmul(paddle.nn.functional.embedding(ids, table), 8))
    return paddle.matmul(rows, table, transpose_y=True)


ODD: dict[str, Odd] = {
    "picture_and_ids": Odd(
        {**PICTURE, "ids": ((-1, -1), "int64")},
        _picture_and_ids,
        lambda rng: {**_picture()(rng), **_any_tokens(rng)},
        metric="top1",
    ),
    "tokens": Odd({"ids": ((-1, -1), "int64")}, _tokens, _any_tokens),
    "ids_out_of_range": Odd({"ids": ((-1, 4), "int64")}, _tokens, lambda rng: {"ids": rng.integers(40, size=4)}),
    "tied": Odd({"ids": ((-1, -1), "int64")}, _tied, _any_tokens),
    "fully_convolutional": Odd(ANY_PICTURE, _fully_convolutional, _any_picture),
    "reader": Odd(ANY_PICTURE, _reader, _any_picture, metric="ctc_exact"),
    "constant": Odd(PICTURE, _plain, _picture(), _silent_last_weight),
    "silent_inside": Odd(PICTURE, _plain, _picture(), _silent_first_weight),
    "infinite_inside": Odd(PICTURE, _infinite_inside, _picture()),
    "overflow": Odd(PICTURE, _overflow, _picture()),
    "zero_over_zero": Odd(PICTURE, _zero_over_zero, _picture(), metric="top1"),
    "nothing": Odd(PICTURE, _nothing, _picture()),
    "one_class": Odd(PICTURE, _one_class, _picture(), metric="top1"),
    "two_outputs": Odd(PICTURE, _two_outputs, _picture()),
    "integer_output": Odd(PICTURE, _integer_output, _picture()),
    "reshaped": Odd(ANY_PICTURE, _reshaped, _picture(), metric="top1"),
    "transposed_same": Odd(PICTURE, _transposed_same, _picture()),
    "no_batch_axis": Odd(PICTURE, _no_batch_axis, _picture()),
    "fixed_batch": Odd({"x": ((1, 3, 8, 8), "float32")}, _plain, _picture()),
    "batch_of_one": Odd({"x": ((1, 3, 8, 8), "float32")}, _over_the_batch, _picture()),
    "batch_of_four": Odd({"x": ((4, 3, 8, 8), "float32")}, _plain, _picture()),
    "channels_last": Odd(
        {"x": ((-1, 8, 8, 3), "float32")},
        _channels_last,
        lambda rng: {"x": rng.normal(size=(8, 8, 3)).astype(np.float32)},
    ),
    "deformable": Odd(PICTURE, _deformable, _picture()),
    "shared_weight": Odd(PICTURE, _shared_weight, _picture()),
    "norm_left_over": Odd(PICTURE, _norm_left_over, _picture()),
    "turned": Odd(PICTURE, _turned, _picture()),
    "turned_activation": Odd(PICTURE, _turned_activation, _picture()),
    "ranks": Odd(PICTURE, _ranks, _picture()),
    "rank_one": Odd(PICTURE, _rank_one, _picture()),
    "grouped": Odd(PICTURE, _grouped, _picture(), _silent_channel),
    "fc": Odd(PICTURE, _fc, _picture()),
}
