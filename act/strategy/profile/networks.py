"""Networks to measure kernels in: drawn at random from the blocks that occur in real models, with their sizes.

A kernel is measured inside a network and not by itself, because there it meets the layouts, the caches and the fusing
that it meets in a model; nn-Meter (Zhang et al., 2021) measures kernels one by one and finds what is fused by tests. A
network is a list of blocks, plain data; weights are random, on which latency does not depend.
"""

import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from act.program.blocks import Block, Stride
from act.strategy.latency.model import Measured, cross_predict

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
    *(128, 144, 160, 184, 192, 192, 200, 224, 232, 240, 256, 256, 256, 288, 320, 384, 384, 464, 480, 512, 512, 576),
    *(640, 672, 768, 768, 960, 1024, 1024, 1280, 1536, 2048, 2048),
)
_ACTIVATIONS = (*["relu"] * 3, *["relu6"] * 2, *["hardswish"] * 3, "swish", "leaky_relu", "none")
_KERNELS = (1, 3, 3, 3, 5, 7, (1, 3), (3, 1), (1, 7), (7, 1))
# MACs of one network, between which it is drawn evenly in logarithms.
LEAST_WORK, MOST_WORK = 5e6, 5e9
FEWEST_BLOCKS, MOST_BLOCKS = 8, 24
MOST_VALUES = 2**23
FAMILIES = (
    *("plain", "separable", "inverted", "bottleneck", "grouped", "basic", "fire", "dense", "inception", "shuffle"),
    *("pool", "up", "excite", "attention", "gate"),
)
# Networks that are drawn before the model is asked what it predicts worst.
ROUND = 16
# How many times as often as usual a kind of block is drawn, at least and at most.
RAREST, MOST_OFTEN = 0.4, 3.0
# Of blocks whose kind has another name.
_FAMILY = {"conv": "plain", "tokens": "attention"}
_GROUPS = (8, 16, 32, 32, 64)


@dataclass(frozen=True)
class Network:
    """A network to build: the shape of its input, batch axis first, and its blocks in order."""

    name: str
    shape: tuple[int, ...]
    blocks: Sequence[Block]


def draw(number: int, seed: int, weights: Mapping[str, float] | None = None) -> Network:
    """Draw a network, the same for the same arguments; `weights` tell how often each of `FAMILIES` is drawn, else 1."""
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
    blocks = [_of("conv", out=channels, k=kernel, s=stride, act=activation)]
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
            block = _of("pool", k=rng.choice((2, 3)), s=halved, how=rng.choice(("max", "avg")))
            if rng.random() < 0.5 and channels * height * width < MOST_VALUES / 4:
                block = _of("separable", out=channels, k=3, s=halved, act=activation, se=0)
            after, high, wide, work = _follow(block, channels, height, width)
        blocks.append(block)
        channels, height, width = after, high, wide
        work_left -= work
    blocks.append(_head(rng, purpose, channels, height, width))
    return Network(f"drawn {seed}/{number}", shape, blocks)


def planned_networks(count: int, seed: int, measured: Mapping[str, Sequence[Measured]]) -> Iterator[Network]:
    """Yield so many networks; each is drawn when it is asked for, and those before must be measured by then.

    After each round the learned model is cross-validated on what was measured of each network, in all precisions and
    numbers of threads, and more is drawn of the blocks in whose networks it was most wrong. So a profile that was
    stopped goes on with the very networks that it would have measured.
    """
    drawn: list[Network] = []
    weights: Mapping[str, float] = {}
    for number in range(count):
        if number and number % ROUND == 0:
            weights = family_weights(drawn, measured)
        drawn.append(draw(number, seed, weights))
        yield drawn[-1]


def family_weights(drawn: Sequence[Network], measured: Mapping[str, Sequence[Measured]]) -> Mapping[str, float]:
    """Return how often each kind of block is drawn, from the errors of the networks that have it."""
    wrong: dict[str, list[float]] = defaultdict(list)
    for each, prediction in cross_predict([each for network in drawn for each in measured.get(network.name, ())]):
        wrong[each.name].append(abs(float(np.log(prediction.seconds / each.seconds))))
    usual = float(np.mean([error for errors in wrong.values() for error in errors])) if wrong else 0.0
    if usual <= 0:
        return {}
    weights = dict.fromkeys(FAMILIES, 1.0)
    for family in FAMILIES:
        having = [network.name for network in drawn if family in map(family_of, network.blocks)]
        if errors := [error for name in having for error in wrong[name]]:
            weights[family] = float(np.clip(np.mean(errors) / usual, RAREST, MOST_OFTEN))
    return weights


def _width(rng: random.Random, least: int = 8, most: int = 2048) -> int:
    kind = rng.random()
    if kind < 0.65:
        return rng.choice([count for count in _CHANNELS if least <= count <= most] or [least])
    count = 2 ** rng.uniform(math.log2(least), math.log2(most))
    return max(least, round(count / 8) * 8) if kind < 0.85 else max(least, round(count))


def _next_width(rng: random.Random, channels: int, shrink: bool) -> int:
    """Draw the next width: real models widen where they shrink."""
    if not shrink and rng.random() < 0.5:
        return channels
    low, high = (channels, channels * 2.5) if shrink else (channels * 0.5, channels * 2)
    return _width(rng, max(8, int(low)), max(9, min(2048, int(high))))


def _of(kind: str, **sizes: Any) -> Block:
    return {"kind": kind, **sizes}


def _block(rng: random.Random, family: str, channels: int, stride: Stride) -> Block:
    act = rng.choice(_ACTIVATIONS)
    out = _next_width(rng, channels, stride != 1)
    ends = {"out": out, "s": stride}
    if family == "plain":
        return _of("conv", k=rng.choice(_KERNELS), act=act, **ends)
    if family == "separable":
        return _of("separable", se=rng.choice((0, 0, 4)), k=rng.choice((3, 3, 5)), act=act, **ends)
    if family == "inverted":
        wide = channels * rng.choice((1, 2, 3, 4, 6, 6))
        return _of("inverted", wide=wide, se=rng.choice((0, 4)), k=rng.choice((3, 5)), act=act, **ends)
    if family == "bottleneck":
        return _of("bottleneck", inner=_width(rng, max(8, out // 4 - 8), max(9, out // 2)), groups=1, **ends)
    if family == "grouped":
        groups = rng.choice(_GROUPS)
        return _of("bottleneck", inner=max(1, round(out / 2 / groups)) * groups, groups=groups, **ends)
    if family == "basic":
        return _of("basic", **ends)
    if family == "fire":
        return _of("fire", squeeze=_width(rng, 8, 96), expand=_width(rng, 16, 320))
    if family == "dense":
        return _of("dense", growth=rng.choice((12, 24, 32, 48)), count=rng.choice((2, 3, 4)))
    if family == "inception":
        return _of("inception", out=[_width(rng, 16, 384) for _ in range(4)], k=rng.choice((3, 5)))
    if family == "shuffle":
        return _of("shuffle", out=max(8, out // 2 * 2), s=stride, act=rng.choice(("relu", "swish")))
    if family == "pool":
        size, down = rng.choice((2, 3)), rng.choice((1, stride if stride != 1 else 2))
        return _of("pool", k=size, s=down, how=rng.choice(("max", "max", "avg")))
    if family == "up":
        how, times = rng.choice((("nearest", rng.choice(_ENLARGED)), ("nearest", 2), ("transposed", 2)))
        k = 2 if how == "transposed" else rng.choice((1, 3))
        return _of("up", out=out if out <= 512 else 256, how=how, times=times, k=k)
    if family == "excite":
        return _of("excite", ratio=rng.choice((2, 4, 4, 16)), joins=rng.random() < 0.5)
    if family == "attention":
        heads = rng.choice((2, 4, 8))
        size = rng.choice((64, 96, 120, 128, 192, 256)) // heads * heads
        return _of("tokens", size=size, heads=heads, wide=rng.choice((2, 4)), act=rng.choice(("gelu", "swish")))
    return _of("gate", act=rng.choice(("relu", "hardswish", "swish", "sigmoid", "tanh")))


def family_of(block: Block) -> str:
    """Return which of `FAMILIES` a block is of; of those that begin or end a network its kind."""
    if block["kind"] == "bottleneck" and block["groups"] > 1:
        return "grouped"
    return _FAMILY.get(block["kind"], str(block["kind"]))


def _follow(block: Block, channels: int, height: int, width: int) -> tuple[int, int, int, float]:
    """Return channels, height and width behind a block, and about how many MACs it takes."""
    stride, times = block.get("s", 1), block.get("times", 1)
    down, right = stride if isinstance(stride, tuple) else (stride, stride)
    high, wide = times * -(-height // down), times * -(-width // right)
    out, work = _out_and_macs(block, channels, height * width, high * wide)
    return out, high, wide, work


def _out_and_macs(b: Block, channels: int, before: int, area: int) -> tuple[int, float]:
    """Return the channels behind a block and its MACs, from the pixels of its input and of its output."""
    kind, out, k = b["kind"], b.get("out", channels), b.get("k", 1)
    if kind == "conv":
        return out, area * channels * out * (k**2 if isinstance(k, int) else math.prod(k))
    if kind == "up":
        return out, area * channels * out * (1 if b["how"] == "transposed" else k**2)
    if kind == "separable":
        return out, area * channels * (out + k**2)
    if kind == "inverted":
        return out, b["wide"] * (before * channels + area * (out + k**2))
    if kind == "bottleneck":
        return out, area * (2 * channels * out + b["inner"] * out + 9 * b["inner"] ** 2 / b["groups"])
    if kind == "basic":
        return out, area * out * (9 * channels + 9 * out + channels)
    if kind == "fire":
        return 2 * b["expand"], area * b["squeeze"] * (channels + 10 * b["expand"])
    if kind == "dense":
        return channels + b["growth"] * b["count"], area * b["count"] * b["growth"] * (4 * channels + 36 * b["growth"])
    if kind == "inception":
        return sum(out), area * (channels * sum(out) + out[1] ** 2 * k**2 + out[2] ** 2 * 18)
    if kind == "shuffle":
        return out, area * out * channels
    if kind == "tokens":
        size = b["size"]
        return channels, before * (2 * channels * size + size**2 * (4 + 2 * b["wide"]) + 2 * before * size)
    return channels, 0.0


def _head(rng: random.Random, purpose: str, channels: int, height: int, width: int) -> Block:
    if purpose == "map":
        return _of("map", out=rng.choice((16, 24, 64)), maps=rng.choice((1, 1, 2, 21)))
    if rng.random() < (0.6 if purpose == "line" else 0.1):
        return _of("sequence", sizes=[rng.choice((97, 1000, 6625))])
    if channels * height * width <= 30_000 and rng.random() < 0.4:
        return _of("flat", sizes=[rng.choice((512, 1024, 4096)), rng.choice((10, 100, 1000))])
    sizes = [rng.choice((10, 100, 1000, 1000))]
    return _of("mean", sizes=[rng.choice((512, 1024, 1280)), *sizes] if rng.random() < 0.3 else sizes)


def _transformer(name: str, rng: random.Random) -> Network:
    size, heads = rng.choice(
        ((64, 2), (128, 2), (128, 4), (192, 3), (256, 4), (312, 12), (384, 6), (512, 8), (768, 12))
    )
    patch, side, layers = rng.choice((8, 16, 16)), rng.choice((64, 96, 128, 192, 224)), rng.choice((2, 3, 4))
    block = _of("encoder", size=size, heads=heads, wide=4, act=rng.choice(("gelu", "gelu", "relu")))
    first = _of("first", sizes=[rng.choice((2, 10, 1000))])
    blocks = [_of("patches", out=size, k=patch), *[block] * layers, first]
    return Network(f"drawn transformer {name}", (1, 3, side, side), blocks)
