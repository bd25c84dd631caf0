"""Networks to measure kernels in: drawn at random from the blocks that occur in real models, with their sizes.

A kernel is measured inside a network and not by itself, because there it meets the layouts, the caches and the fusing
that it meets in a model; nn-Meter (Zhang et al., 2021) measures kernels one by one and finds what is fused by tests. A
network is a list of blocks, plain data; weights are random, on which latency does not depend.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from act.program.model import InferenceModel
from act.program.paddle_setup import CPU, paddle

Block = dict[str, Any]
# One for both axes, or each.
Stride = int | tuple[int, int]

FEED = "x"
_SIDES = (32, 56, 64, 96, 112, 128, 160, 192, 224, 224, 224, 256, 299, 320)
# Heights and widths of lines of text.
_LINES = ((32, 100), (48, 192), (48, 320), (32, 320))
# What a network tells, classes of a picture, a map of it, the letters of a line of text, and how often it is drawn.
_PURPOSES = {"classes": 0.6, "map": 0.2, "line": 0.2}
# A map is made of at least so many pixels.
_MAP_PIXELS = 1600
# Maps of several sizes are brought to one: so many times as often as others they are enlarged, by one of these factors.
_MORE_UP = 4.0
_ENLARGED = (2, 2, 2, 4, 8)
# Channels of well-known models; pruned ones have any number.
_CHANNELS = (
    *(8, 12, 16, 16, 24, 24, 32, 32, 32, 40, 48, 48, 56, 58, 64, 64, 64, 72, 80, 88, 96, 96, 112, 116, 120, 128, 128),
    *(
        128,
        144,
        160,
        184,
        192,
        192,
        200,
        224,
        232,
        240,
        256,
        256,
        256,
        288,
        320,
        384,
        384,
        464,
        480,
        512,
        512,
        576,
        640,
    ),
    *(672, 768, 768, 960, 1024, 1024, 1280, 1536, 2048, 2048),
)
_ACTIVATIONS = (
    *("relu", "relu", "relu", "relu6", "relu6", "hardswish", "hardswish", "hardswish", "swish", "leaky_relu", "none"),
)
_KERNELS = (1, 3, 3, 3, 5, 7, (1, 3), (3, 1), (1, 7), (7, 1))
# Multiply-adds of one network, between which it is drawn evenly in logarithms.
LEAST_WORK, MOST_WORK = 5e6, 5e9
FEWEST_BLOCKS, MOST_BLOCKS = 8, 24
MOST_VALUES = 2**23
FAMILIES = (
    *("plain", "separable", "inverted", "bottleneck", "grouped", "basic", "fire", "dense", "inception", "shuffle"),
    *("pool", "up", "excite", "attention", "gate"),
)
# Of blocks whose kind has another name.
_FAMILY = {"conv": "plain", "tokens": "attention"}
_GROUPS = (8, 16, 32, 32, 64)


@dataclass(frozen=True)
class Network:
    """A network to build.

    Attributes:
        name: tells it from others.
        shape: of the input, batch axis first.
        blocks: in order.
    """

    name: str
    shape: tuple[int, ...]
    blocks: Sequence[Block]


def draw(number: int, seed: int, weights: Mapping[str, float] | None = None) -> Network:
    """Draw a network; the same for the same arguments.

    Args:
        number: which.
        seed: of all.
        weights: how often each of `FAMILIES` is drawn; all alike when left out.
    """
    rng = random.Random(f"{seed}/{number}")
    purpose = rng.choices(list(_PURPOSES), list(_PURPOSES.values()))[0]
    often = {"up": _MORE_UP} if purpose == "map" else {}
    chances = [often.get(family, 1.0) * max(0.0, (weights or {}).get(family, 1.0)) for family in FAMILIES]
    home = rng.choices(FAMILIES, chances, k=2)  # networks repeat a kind of block
    shape = (1, 3, *rng.choice(_LINES)) if purpose == "line" else (1, 3, *[rng.choice(_SIDES)] * 2)
    budget = work_left = 2 ** rng.uniform(math.log2(LEAST_WORK), math.log2(MOST_WORK))
    if rng.random() < 0.1:
        return _transformer(f"{seed}/{number}", rng)
    channels = _width(rng, 16, 96)
    kernel = rng.choice((3, 3, 3, 7, 5))
    stride = 2 if min(shape[2:]) > 56 else rng.choice((1, 2))
    activation = rng.choice(_ACTIVATIONS)
    blocks: list[Block] = [{"kind": "conv", "out": channels, "k": kernel, "s": stride, "act": activation}]
    height, width = (-(-side // stride) for side in shape[2:])
    # Lines of text lose their height first, so that their letters stay apart.
    halved: Stride = (2, 1) if purpose == "line" and rng.random() < 0.8 else 2
    while len(blocks) < FEWEST_BLOCKS or (len(blocks) < MOST_BLOCKS and work_left > 0):
        family = rng.choice(home) if rng.random() < 0.6 else rng.choices(FAMILIES, chances)[0]
        fits = min(height, width) >= (8 if halved == 2 else 2) and (purpose != "map" or height * width > _MAP_PIXELS)
        shrink = fits and rng.random() < (0.7 if height * width > 3000 else 0.3)
        block = _block(rng, family, channels, halved if shrink else 1)
        after, high, wide, work = _follow(block, channels, height, width)
        if after * high * wide > MOST_VALUES or work > max(work_left, 0.1 * budget):
            if not fits:
                break
            block = {"kind": "pool", "k": rng.choice((2, 3)), "s": halved, "how": rng.choice(("max", "avg"))}
            if rng.random() < 0.5 and channels * height * width < MOST_VALUES / 4:
                block = {"kind": "separable", "out": channels, "k": 3, "s": halved, "act": activation, "se": 0}
            after, high, wide, work = _follow(block, channels, height, width)
        blocks.append(block)
        channels, height, width = after, high, wide
        work_left -= work
    blocks.append(_head(rng, purpose, channels, height, width))
    return Network(f"drawn {seed}/{number}", shape, blocks)


def _width(rng: random.Random, least: int = 8, most: int = 2048) -> int:
    kind = rng.random()
    if kind < 0.65:
        return rng.choice([count for count in _CHANNELS if least <= count <= most] or [least])
    count = 2 ** rng.uniform(math.log2(least), math.log2(most))
    return max(least, round(count / 8) * 8) if kind < 0.85 else max(least, round(count))


def _next_width(rng: random.Random, channels: int, shrink: bool) -> int:
    """Real models widen where they shrink."""
    if not shrink and rng.random() < 0.5:
        return channels
    low, high = (channels, channels * 2.5) if shrink else (channels * 0.5, channels * 2)
    return _width(rng, max(8, int(low)), max(9, min(2048, int(high))))


def _block(rng: random.Random, family: str, channels: int, stride: Stride) -> Block:
    act = rng.choice(_ACTIVATIONS)
    out = _next_width(rng, channels, stride != 1)
    if family == "plain":
        return {"kind": "conv", "out": out, "k": rng.choice(_KERNELS), "s": stride, "act": act}
    if family == "separable":
        excite = rng.choice((0, 0, 4))
        return {"kind": "separable", "out": out, "k": rng.choice((3, 3, 5)), "s": stride, "act": act, "se": excite}
    if family == "inverted":
        wide = round(channels * rng.choice((1, 2, 3, 4, 6, 6)))
        excite = rng.choice((0, 4))
        return {
            "kind": "inverted",
            "out": out,
            "k": rng.choice((3, 5)),
            "s": stride,
            "act": act,
            "wide": wide,
            "se": excite,
        }
    if family == "bottleneck":
        inner = _width(rng, max(8, out // 4 - 8), max(9, out // 2))
        return {"kind": "bottleneck", "out": out, "inner": inner, "s": stride, "groups": 1}
    if family == "grouped":
        groups = rng.choice(_GROUPS)
        inner = max(1, round(out / 2 / groups)) * groups
        return {"kind": "bottleneck", "out": out, "inner": inner, "s": stride, "groups": groups}
    if family == "basic":
        return {"kind": "basic", "out": out, "s": stride}
    if family == "fire":
        return {"kind": "fire", "squeeze": _width(rng, 8, 96), "expand": _width(rng, 16, 320)}
    if family == "dense":
        return {"kind": "dense", "growth": rng.choice((12, 24, 32, 48)), "count": rng.choice((2, 3, 4))}
    if family == "inception":
        return {"kind": "inception", "out": [_width(rng, 16, 384) for _ in range(4)], "k": rng.choice((3, 5))}
    if family == "shuffle":
        return {"kind": "shuffle", "out": max(8, out // 2 * 2), "s": stride, "act": rng.choice(("relu", "swish"))}
    if family == "pool":
        return {
            "kind": "pool",
            "k": rng.choice((2, 3)),
            "s": rng.choice((1, stride if stride != 1 else 2)),
            "how": rng.choice(("max", "max", "avg")),
        }
    if family == "up":
        how, times = rng.choice((("nearest", rng.choice(_ENLARGED)), ("nearest", 2), ("transposed", 2)))
        k = 2 if how == "transposed" else rng.choice((1, 3))
        return {"kind": "up", "out": out if out <= 512 else 256, "how": how, "times": times, "k": k}
    if family == "excite":
        return {"kind": "excite", "ratio": rng.choice((2, 4, 4, 16)), "joins": rng.random() < 0.5}
    if family == "attention":
        heads = rng.choice((2, 4, 8))
        size = rng.choice((64, 96, 120, 128, 192, 256))
        size -= size % heads
        return {
            "kind": "tokens",
            "size": size,
            "heads": heads,
            "wide": rng.choice((2, 4)),
            "act": rng.choice(("gelu", "swish")),
        }
    return {"kind": "gate", "act": rng.choice(("relu", "hardswish", "swish", "sigmoid", "tanh"))}


def family_of(block: Block) -> str:
    """Which of `FAMILIES` a block is of; of those that begin or end a network its kind."""
    if block["kind"] == "bottleneck" and block["groups"] > 1:
        return "grouped"
    return _FAMILY.get(block["kind"], str(block["kind"]))


def _follow(block: Block, channels: int, height: int, width: int) -> tuple[int, int, int, float]:
    """Channels, height and width behind a block, and about how many multiply-adds it takes."""
    kind, stride = block["kind"], block.get("s", 1)
    down, right = stride if isinstance(stride, tuple) else (stride, stride)
    high, wide = -(-height // down), -(-width // right)
    area, out = high * wide, block.get("out", channels)
    if kind == "conv":
        taps = block["k"] ** 2 if isinstance(block["k"], int) else block["k"][0] * block["k"][1]
        return out, high, wide, area * channels * out * taps
    if kind == "separable":
        return out, high, wide, area * channels * (out + block["k"] ** 2)
    if kind == "inverted":
        return out, high, wide, block["wide"] * (height * width * channels + area * (out + block["k"] ** 2))
    if kind == "bottleneck":
        inner = block["inner"]
        return out, high, wide, area * (2 * channels * out + inner * out + 9 * inner**2 / block["groups"])
    if kind == "basic":
        return out, high, wide, area * out * (9 * channels + 9 * out + channels)
    if kind == "fire":
        return 2 * block["expand"], high, wide, area * block["squeeze"] * (channels + 10 * block["expand"])
    if kind == "dense":
        after = channels + block["growth"] * block["count"]
        return after, high, wide, area * block["count"] * (channels * 4 * block["growth"] + 36 * block["growth"] ** 2)
    if kind == "inception":
        return sum(out), high, wide, area * (channels * sum(out) + out[1] ** 2 * block["k"] ** 2 + out[2] ** 2 * 18)
    if kind == "shuffle":
        return out, high, wide, area * out * channels
    if kind == "pool":
        return channels, high, wide, 0.0
    if kind == "up":
        times = block["times"]
        taps = 1 if block["how"] == "transposed" else block["k"] ** 2
        return out, times * height, times * width, times**2 * height * width * channels * out * taps
    if kind == "tokens":
        size = block["size"]
        work = height * width * (2 * channels * size + size**2 * (4 + 2 * block["wide"]) + 2 * height * width * size)
        return channels, high, wide, work
    return channels, high, wide, 0.0


def _head(rng: random.Random, purpose: str, channels: int, height: int, width: int) -> Block:
    if purpose == "map":
        return {"kind": "map", "out": rng.choice((16, 24, 64)), "maps": rng.choice((1, 1, 2, 21))}
    if rng.random() < (0.6 if purpose == "line" else 0.1):
        return {"kind": "sequence", "sizes": [rng.choice((97, 1000, 6625))]}
    if channels * height * width <= 30_000 and rng.random() < 0.4:
        return {"kind": "flat", "sizes": [rng.choice((512, 1024, 4096)), rng.choice((10, 100, 1000))]}
    sizes = [rng.choice((10, 100, 1000, 1000))]
    return {"kind": "mean", "sizes": [rng.choice((512, 1024, 1280)), *sizes] if rng.random() < 0.3 else sizes}


def _transformer(name: str, rng: random.Random) -> Network:
    size, heads = rng.choice(
        ((64, 2), (128, 2), (128, 4), (192, 3), (256, 4), (312, 12), (384, 6), (512, 8), (768, 12))
    )
    patch = rng.choice((8, 16, 16))
    side = rng.choice((64, 96, 128, 192, 224))
    layers = rng.choice((2, 3, 4))
    block = {"kind": "encoder", "size": size, "heads": heads, "wide": 4, "act": rng.choice(("gelu", "gelu", "relu"))}
    blocks: list[Block] = [
        {"kind": "patches", "out": size, "k": patch},
        *[block] * layers,
        {"kind": "first", "sizes": [rng.choice((2, 10, 1000))]},
    ]
    return Network(f"drawn transformer {name}", (1, 3, side, side), blocks)


def build(network: Network) -> InferenceModel:
    """The network as a Paddle program with random weights."""
    program, begin, scope = paddle.static.Program(), paddle.static.Program(), paddle.static.Scope()
    with (
        paddle.static.scope_guard(scope),
        paddle.static.program_guard(program, begin),
        paddle.utils.unique_name.guard(),
    ):
        paddle.seed(0)
        # Of any size, as in most models: where it is fixed engines make other kernels.
        x = paddle.static.data(FEED, (-1, *network.shape[1:]), "float32")
        y = x
        for block in network.blocks:
            y = _BUILDERS[block["kind"]](y, block)
        executor = paddle.static.Executor(CPU)
        executor.run(begin)
        whole = paddle.static.normalize_program(program, [x], [y])
    return InferenceModel(whole, scope, [FEED], [y.name])


def _act(x: Any, name: str) -> Any:
    return x if name == "none" else getattr(paddle.nn.functional, name)(x)


def _conv(x: Any, out: int, k: Any = 1, s: Stride = 1, act: str = "relu", groups: int = 1) -> Any:
    padding = k // 2 if isinstance(k, int) else [side // 2 for side in k]
    layer = paddle.nn.Conv2D(x.shape[1], out, k, s, padding, groups=groups)
    return _act(layer(x), act)


def _depthwise(x: Any, k: int, s: Stride, act: str) -> Any:
    return _conv(x, x.shape[1], k, s, act, x.shape[1])


def _excite(x: Any, ratio: int) -> Any:
    squeezed = _conv(paddle.nn.functional.adaptive_avg_pool2d(x, 1), max(4, x.shape[1] // ratio))
    return x * _conv(squeezed, x.shape[1], act="hardsigmoid")


def _separable(x: Any, b: Block) -> Any:
    y = _depthwise(x, b["k"], b["s"], b["act"])
    return _conv(_excite(y, b["se"]) if b["se"] else y, b["out"], act=b["act"])


def _inverted(x: Any, b: Block) -> Any:
    y = _depthwise(_conv(x, b["wide"], act=b["act"]), b["k"], b["s"], b["act"])
    y = _conv(_excite(y, b["se"]) if b["se"] else y, b["out"], act="none")
    return x + y if y.shape == x.shape else y


def _residual(x: Any, y: Any, stride: Stride) -> Any:
    short = x if y.shape == x.shape else _conv(x, y.shape[1], 1, stride, "none")
    return paddle.nn.functional.relu(y + short)


def _bottleneck(x: Any, b: Block) -> Any:
    y = _conv(_conv(x, b["inner"]), b["inner"], 3, b["s"], groups=b["groups"])
    return _residual(x, _conv(y, b["out"], act="none"), b["s"])


def _basic(x: Any, b: Block) -> Any:
    return _residual(x, _conv(_conv(x, b["out"], 3, b["s"]), b["out"], 3, act="none"), b["s"])


def _fire(x: Any, b: Block) -> Any:
    y = _conv(x, b["squeeze"])
    return paddle.concat([_conv(y, b["expand"]), _conv(y, b["expand"], 3)], axis=1)


def _dense(x: Any, b: Block) -> Any:
    for _ in range(b["count"]):
        y = _normalised(_normalised(x, 4 * b["growth"], 1), b["growth"], 3)
        x = paddle.concat([x, y], axis=1)
    return x


def _normalised(x: Any, out: int, k: int) -> Any:
    """A convolution behind a batch norm, which cannot be folded into it."""
    norm = paddle.nn.BatchNorm2D(x.shape[1])
    norm.eval()
    return _conv(paddle.nn.functional.relu(norm(x)), out, k, act="none")


def _inception(x: Any, b: Block) -> Any:
    one, two, three, four = b["out"]
    pooled = paddle.nn.functional.avg_pool2d(x, 3, 1, 1)
    branches = [
        _conv(x, one),
        _conv(_conv(x, two), two, b["k"]),
        _conv(_conv(_conv(x, three), three, 3), three, 3),
        _conv(pooled, four),
    ]
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
    pool = paddle.nn.functional.max_pool2d if b["how"] == "max" else paddle.nn.functional.avg_pool2d
    return pool(x, b["k"], b["s"], b["k"] // 2 if b["k"] == 3 else 0, ceil_mode=b["k"] == 2)


def _up(x: Any, b: Block) -> Any:
    if b["how"] == "transposed":
        return paddle.nn.functional.relu(paddle.nn.Conv2DTranspose(x.shape[1], b["out"], 2, 2)(x))
    return _conv(paddle.nn.functional.interpolate(x, scale_factor=b["times"], mode="nearest"), b["out"], b["k"])


def _encoder(x: Any, b: Block) -> Any:
    """Tokens [batch, count, size] through one layer of a transformer's encoder."""
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
    """A picture through one layer of an encoder, each pixel a token."""
    _, channels, height, width = x.shape
    y = _conv(x, b["size"], act="none")
    y = paddle.transpose(paddle.reshape(y, [0, b["size"], height * width]), [0, 2, 1])
    y = paddle.transpose(_encoder(y, b), [0, 2, 1])
    return _conv(paddle.reshape(y, [0, b["size"], height, width]), channels, act="none")


def _patches(x: Any, b: Block) -> Any:
    y = paddle.nn.Conv2D(3, b["out"], b["k"], b["k"])(x)
    return paddle.transpose(paddle.flatten(y, 2), [0, 2, 1])


def _linear(x: Any, sizes: Sequence[int]) -> Any:
    for place, size in enumerate(sizes):
        x = paddle.nn.Linear(x.shape[-1], size)(x)
        x = paddle.nn.functional.relu(x) if place + 1 < len(sizes) else x
    return x


def _sequence(x: Any, b: Block) -> Any:
    y = paddle.nn.functional.adaptive_avg_pool2d(x, (1, x.shape[3]))
    return paddle.nn.functional.softmax(_linear(paddle.transpose(paddle.squeeze(y, 2), [0, 2, 1]), b["sizes"]))


def _map(x: Any, b: Block) -> Any:
    """Four times as high and wide, a value for each class and pixel, as detectors and segmentations end."""
    y = paddle.nn.functional.relu(paddle.nn.Conv2DTranspose(x.shape[1], b["out"], 2, 2)(x))
    return paddle.nn.functional.sigmoid(paddle.nn.Conv2DTranspose(b["out"], b["maps"], 2, 2)(y))


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
    "patches": _patches,
    "mean": lambda x, b: _linear(paddle.flatten(paddle.nn.functional.adaptive_avg_pool2d(x, 1), 1), b["sizes"]),
    "flat": lambda x, b: _linear(paddle.flatten(x, 1), b["sizes"]),
    "first": lambda x, b: _linear(x[:, 0], b["sizes"]),
    "sequence": _sequence,
    "map": _map,
}
