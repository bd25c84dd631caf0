"""Networks with drawn weights, written by the Paddle that runs this file: by Paddle 3 in its form, by 2.6 in its own.

`python benchmarks/paddle3_exports.py FOLDER [--weights OTHER]` makes a folder for each network, with the model and
`weights.npz`; with `--weights` they are those of the networks in another folder, so that both write the same networks.
`python -m benchmarks.paddle3` runs it under both and holds the import against them.
"""

import argparse
import zlib  # noqa: F401 (before Paddle 2.6, whose own copy breaks it)
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image  # noqa: F401 (likewise)

import paddle  # isort: skip
from paddle import nn  # isort: skip

F = nn.functional
Spec = tuple[str, str, Sequence[Any]]
PICTURE: Spec = ("image", "float32", (None, 3, 64, 64))


class Encoder(nn.Layer):
    """Two layers of a transformer over token ids, with a mask that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, 32)
        self.layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, activation="gelu"), 2)
        self.head = nn.Linear(32, 3)

    def forward(self, ids: Any, mask: Any) -> Any:
        hidden = (1 - mask.astype("float32")).unsqueeze([1, 2]) * -1e4
        tokens = self.layers(self.embedding(ids), hidden)
        return self.head(tokens[:, 0]), tokens.mean(1)


class Recurrent(nn.Layer):
    """A recurrent layer and a class for each step."""

    def __init__(self, kind: Any, **settings: Any) -> None:
        super().__init__()
        self.layer = kind(16, 24, **settings)
        self.head = nn.Linear(24 * (2 if settings.get("direction") == "bidirect" else 1), 5)

    def forward(self, x: Any) -> Any:
        return F.softmax(self.head(self.layer(x)[0]))


class Segmentation(nn.Layer):
    """An encoder, maps resized by size, by scale and to the size of another, and a class for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2D(3, 8, 3, 2, 1), nn.GroupNorm(2, 8)
        self.up, self.instance = nn.Conv2DTranspose(8, 8, 2, 2), nn.InstanceNorm2D(8)
        self.head = nn.Conv2D(8, 4, 1)

    def forward(self, image: Any) -> Any:
        low = F.relu(self.norm(self.stem(image)))
        high = self.instance(self.up(low))
        whole = F.interpolate(F.adaptive_avg_pool2d(low, 2), size=paddle.shape(low)[2:], mode="bilinear")
        low = paddle.concat([low, whole], 1)[:, :8] + F.leaky_relu(low, 0.1)
        joined = F.pad(F.interpolate(low, scale_factor=2, mode="nearest") + high, [1, 1, 1, 1], mode="reflect")
        scores = F.interpolate(self.head(joined), size=[64, 64], mode="bilinear", align_corners=True)
        return scores.argmax(1, dtype="int32"), F.hardswish(scores)


class Shapes(nn.Layer):
    """Operators on shapes, indices and constants, many of them with lengths that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes, self.scale = nn.PReLU(4), self.create_parameter([4, 1, 1])

    def forward(self, x: Any, classes: Any) -> Any:
        batch, (_, channels, height, width) = paddle.shape(x)[0], x.shape
        y = x.reshape([-1, 2, channels // 2, height * width]).transpose([0, 2, 1, 3]).flatten(1, 2)
        y = self.slopes(y.reshape([batch, channels, height, width])) * self.scale
        first, second = paddle.split(y, 2, 1)
        best, places = paddle.topk(y.flatten(1), 5)
        wide = paddle.expand(self.scale.unsqueeze(0), [batch, -1, height, width])
        sums = y.sum([2, 3]) + y.max(axis=[2, 3]) + y.prod(axis=-1).prod(axis=-1) + paddle.logsumexp(y, [2, 3])
        filled = paddle.full_like(y, 3.0) + paddle.zeros([1, 4, 1, 1]) + paddle.ones([batch, 4, 1, 1])
        counted = paddle.arange(0, 4).astype("float32").reshape([1, 4, 1, 1]) + y.clip(-1, 1)
        picked = paddle.gather(y, paddle.to_tensor([0, 2]), axis=1)
        return (
            *(
                paddle.split(y, [1, 3], 1)[1],
                paddle.stack([first, second], 1),
                best,
                places,
                wide,
                sums,
                filled,
                counted,
            ),
            *(picked, paddle.tril(y) + paddle.triu(y), F.one_hot(classes, 6), F.unfold(x, 3), F.pixel_shuffle(x, 2)),
            *(F.channel_shuffle(x, 2), y[:, ::2, 1:-1], paddle.cumsum(y, axis=1), F.normalize(y, axis=1)),
            *(paddle.roll(y, 1, 2), paddle.tile(y, [1, 2, 1, 1]), paddle.where(y > 0, y, paddle.zeros_like(y))),
            *(F.scaled_dot_product_attention(y, y, y), paddle.einsum("bchw,bchv->bcwv", y, y)),
        )


class Activations(nn.Layer):
    """The sum of all activations that networks have, behind one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        x = result = self.layer(x)
        for function in (
            *(F.gelu, F.softplus, F.silu, F.elu, F.mish, F.log_sigmoid, F.hardtanh, F.softshrink, F.swish, F.relu6),
            *(F.hardshrink, F.tanhshrink, F.softsign, F.selu, F.celu, F.hardsigmoid, F.hardswish, F.leaky_relu, F.tanh),
        ):
            result = result + function(x)
        return result


def networks() -> dict[str, tuple[Callable[[], Any], Sequence[Spec]]]:
    """Return what makes each network, and its inputs."""
    models = paddle.vision.models
    both = {"num_layers": 2, "direction": "bidirect"}
    return {
        "resnet18": (models.resnet18, [PICTURE]),
        "resnet50": (models.resnet50, [PICTURE]),
        "mobilenet_v1": (lambda: models.mobilenet_v1(scale=0.25), [PICTURE]),
        "mobilenet_v2": (lambda: models.mobilenet_v2(scale=0.25), [PICTURE]),
        "mobilenet_v3": (lambda: models.mobilenet_v3_small(scale=0.5), [PICTURE]),
        "shufflenet_v2": (models.shufflenet_v2_x0_25, [PICTURE]),
        "squeezenet": (models.squeezenet1_0, [PICTURE]),
        "densenet121": (models.densenet121, [PICTURE]),
        "vgg11": (lambda: models.vgg11(batch_norm=True, num_classes=0, with_pool=False), [PICTURE]),
        "encoder": (Encoder, [("ids", "int64", (None, None)), ("mask", "int64", (None, None))]),
        "lstm": (lambda: Recurrent(nn.LSTM, **both), [("x", "float32", (None, None, 16))]),
        "gru": (lambda: Recurrent(nn.GRU), [("x", "float32", (None, 10, 16))]),
        "segmentation": (Segmentation, [("image", "float32", (None, 3, None, None))]),
        "shapes": (Shapes, [("x", "float32", (None, 4, 8, 8)), ("classes", "int64", (None,))]),
        "activations": (Activations, [("x", "float32", (None, 4, 8))]),
    }


def main() -> None:
    """Parse the command line, and write the networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, help="a folder that this program wrote before")
    arguments = parser.parse_args()
    paddle.disable_static()
    for name, (make, inputs) in networks().items():
        paddle.seed(0)
        network, folder = make(), arguments.folder / name
        network.eval()
        if arguments.weights is not None:
            stored = np.load(arguments.weights / name / "weights.npz")
            network.set_state_dict({key: paddle.to_tensor(stored[key]) for key in stored.files})
        specs = [paddle.static.InputSpec(list(shape), dtype, feed) for feed, dtype, shape in inputs]
        paddle.jit.save(network, str(folder / "inference"), input_spec=specs)
        np.savez(folder / "weights.npz", **{key: value.numpy() for key, value in network.state_dict().items()})


if __name__ == "__main__":
    main()
