"""Programs built of blocks that occur in real models: convolutions, residual and attention blocks, heads."""

from collections.abc import Sequence
from typing import Any

from act.program.model import InferenceModel
from act.program.paddle_setup import CPU, paddle

Block = dict[str, Any]
# One for both axes, or each.
Stride = int | tuple[int, int]

F = paddle.nn.functional
FEED = "x"


def build(shape: Sequence[int], blocks: Sequence[Block]) -> InferenceModel:
    """Return the program of blocks one behind the other, with random weights.

    Args:
        shape: of the input, batch axis first.
        blocks: each with its `kind` and the sizes that its builder below reads.
    """
    program, begin, scope = paddle.static.Program(), paddle.static.Program(), paddle.static.Scope()
    with (
        paddle.static.scope_guard(scope),
        paddle.static.program_guard(program, begin),
        paddle.utils.unique_name.guard(),
    ):
        paddle.seed(0)
        # Of any size, as in most models: where it is fixed engines make other kernels.
        x = paddle.static.data(FEED, (-1, *shape[1:]), "float32")
        y = x
        for block in blocks:
            y = _BUILDERS[block["kind"]](y, block)
        paddle.static.Executor(CPU).run(begin)
        whole = paddle.static.normalize_program(program, [x], [y])
    return InferenceModel(whole, scope, [FEED], [y.name])


def _act(x: Any, name: str) -> Any:
    return x if name == "none" else getattr(F, name)(x)


def _conv(x: Any, out: int, k: Any = 1, s: Stride = 1, act: str = "relu", groups: int = 1) -> Any:
    padding = k // 2 if isinstance(k, int) else [side // 2 for side in k]
    layer = paddle.nn.Conv2D(x.shape[1], out, k, s, padding, groups=groups)
    return _act(layer(x), act)


def _depthwise(x: Any, k: int, s: Stride, act: str) -> Any:
    return _conv(x, x.shape[1], k, s, act, x.shape[1])


def _excite(x: Any, ratio: int) -> Any:
    squeezed = _conv(F.adaptive_avg_pool2d(x, 1), max(4, x.shape[1] // ratio))
    return x * _conv(squeezed, x.shape[1], act="hardsigmoid")


def _separable(x: Any, b: Block, last: str | None = None) -> Any:
    y = _depthwise(x, b["k"], b["s"], b["act"])
    return _conv(_excite(y, b["se"]) if b["se"] else y, b["out"], act=last or b["act"])


def _inverted(x: Any, b: Block) -> Any:
    y = _separable(_conv(x, b["wide"], act=b["act"]), b, "none")
    return x + y if y.shape == x.shape else y


def _residual(x: Any, y: Any, stride: Stride) -> Any:
    short = x if y.shape == x.shape else _conv(x, y.shape[1], 1, stride, "none")
    return F.relu(y + short)


def _bottleneck(x: Any, b: Block) -> Any:
    y = _conv(_conv(x, b["inner"]), b["inner"], 3, b["s"], groups=b["groups"])
    return _residual(x, _conv(y, b["out"], act="none"), b["s"])


def _basic(x: Any, b: Block) -> Any:
    return _residual(x, _conv(_conv(x, b["out"], 3, b["s"]), b["out"], 3, act="none"), b["s"])


def _fire(x: Any, b: Block) -> Any:
    y = _conv(x, b["squeeze"])
    return paddle.concat([_conv(y, b["expand"]), _conv(y, b["expand"], 3)], axis=1)


def _dense(x: Any, b: Block) -> Any:
    def normalised(x: Any, out: int, k: int) -> Any:
        """Convolve behind a batch norm, which cannot be folded into the convolution."""
        norm = paddle.nn.BatchNorm2D(x.shape[1])
        norm.eval()
        return _conv(F.relu(norm(x)), out, k, act="none")

    for _ in range(b["count"]):
        x = paddle.concat([x, normalised(normalised(x, 4 * b["growth"], 1), b["growth"], 3)], axis=1)
    return x


def _inception(x: Any, b: Block) -> Any:
    one, two, three, four = b["out"]
    pooled = F.avg_pool2d(x, 3, 1, 1)
    branches = [_conv(x, one), _conv(_conv(x, two), two, b["k"])]
    branches += [_conv(_conv(_conv(x, three), three, 3), three, 3), _conv(pooled, four)]
    return paddle.concat(branches, axis=1)


def _shuffle(x: Any, b: Block) -> Any:
    half, act = b["out"] // 2, b["act"]
    if b["s"] == 1 and x.shape[1] == b["out"]:
        first, x = paddle.split(x, 2, axis=1)
    else:
        first = _conv(_depthwise(x, 3, b["s"], "none"), half, act=act)
    second = _conv(_depthwise(_conv(x, half, act=act), 3, b["s"], "none"), half, act=act)
    y = paddle.concat([first, second], axis=1)
    _, channels, height, width = y.shape
    y = paddle.transpose(paddle.reshape(y, [0, 2, channels // 2, height, width]), [0, 2, 1, 3, 4])
    return paddle.reshape(y, [-1, channels, height, width])


def _pool(x: Any, b: Block) -> Any:
    if min(x.shape[2:]) < b["k"]:
        return x
    pool = F.max_pool2d if b["how"] == "max" else F.avg_pool2d
    return pool(x, b["k"], b["s"], b["k"] // 2 if b["k"] == 3 else 0, ceil_mode=b["k"] == 2)


def _up(x: Any, b: Block) -> Any:
    if b["how"] == "transposed":
        return F.relu(paddle.nn.Conv2DTranspose(x.shape[1], b["out"], 2, 2)(x))
    return _conv(F.interpolate(x, scale_factor=b["times"], mode="nearest"), b["out"], b["k"])


def _encoder(x: Any, b: Block) -> Any:
    """Send tokens [batch, count, size] through one layer of a transformer's encoder."""
    nn = paddle.nn
    count, size, heads = x.shape[1], x.shape[2], b["heads"]
    y = nn.LayerNorm(size)(x)
    joint = paddle.reshape(nn.Linear(size, 3 * size)(y), [0, count, 3, heads, size // heads])
    q, k, v = (paddle.squeeze(part, 0) for part in paddle.split(paddle.transpose(joint, [2, 0, 3, 1, 4]), 3, axis=0))
    scores = paddle.matmul(q * (size // heads) ** -0.5, k, transpose_y=True)
    mixed = paddle.matmul(nn.functional.softmax(scores), v)
    y = nn.Linear(size, size)(paddle.reshape(paddle.transpose(mixed, [0, 2, 1, 3]), [0, count, size]))
    x = x + y
    y = _act(nn.Linear(size, b["wide"] * size)(nn.LayerNorm(size)(x)), b["act"])
    return x + nn.Linear(b["wide"] * size, size)(y)


def _tokens(x: Any, b: Block) -> Any:
    """Send a picture through one layer of an encoder, each pixel a token."""
    _, channels, height, width = x.shape
    y = _conv(x, b["size"], act="none")
    y = paddle.transpose(paddle.reshape(y, [0, b["size"], height * width]), [0, 2, 1])
    y = paddle.transpose(_encoder(y, b), [0, 2, 1])
    return _conv(paddle.reshape(y, [0, b["size"], height, width]), channels, act="none")


def _linear(x: Any, sizes: Sequence[int]) -> Any:
    for place, size in enumerate(sizes):
        x = paddle.nn.Linear(x.shape[-1], size)(x)
        x = F.relu(x) if place + 1 < len(sizes) else x
    return x


def _sequence(x: Any, b: Block) -> Any:
    y = F.adaptive_avg_pool2d(x, (1, x.shape[3]))
    return F.softmax(_linear(paddle.transpose(paddle.squeeze(y, 2), [0, 2, 1]), b["sizes"]))


def _map(x: Any, b: Block) -> Any:
    """Give a map four times as high and wide, a value for each class and pixel, as detectors and segmentations end."""
    y = F.relu(paddle.nn.Conv2DTranspose(x.shape[1], b["out"], 2, 2)(x))
    return F.sigmoid(paddle.nn.Conv2DTranspose(b["out"], b["maps"], 2, 2)(y))


_BUILDERS = {
    "conv": lambda x, b: _conv(x, b["out"], b["k"], b["s"], b["act"]),
    "separable": _separable,
    "inverted": _inverted,
    "bottleneck": _bottleneck,
    "basic": _basic,
    "fire": _fire,
    "dense": _dense,
    "inception": _inception,
    "shuffle": _shuffle,
    "pool": _pool,
    "up": _up,
    "excite": lambda x, b: x + _excite(x, b["ratio"]) if b["joins"] else _excite(x, b["ratio"]),
    "gate": lambda x, b: _act(x, b["act"]),
    "tokens": _tokens,
    "encoder": _encoder,
    "patches": lambda x, b: paddle.transpose(
        paddle.flatten(paddle.nn.Conv2D(3, b["out"], b["k"], b["k"])(x), 2), [0, 2, 1]
    ),
    "mean": lambda x, b: _linear(paddle.flatten(F.adaptive_avg_pool2d(x, 1), 1), b["sizes"]),
    "flat": lambda x, b: _linear(paddle.flatten(x, 1), b["sizes"]),
    "first": lambda x, b: _linear(x[:, 0], b["sizes"]),
    "sequence": _sequence,
    "map": _map,
}
