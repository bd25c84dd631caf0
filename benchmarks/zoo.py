"""The eight models that exports are compared on, prepared by the pipeline; made here, without any download.

The PP-OCRv4 recogniser and detector have trained weights. The classifiers have random ones, which is as good for
latency: their batch norms get scales of their own and the statistics of random pictures, so that folding them changes
the weights and activations stay of one size. PP-LCNet (Cui et al., 2021, "PP-LCNet: A Lightweight CPU Convolutional
Neural Network") is written down here, the others are Paddle's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from act.artifacts import replace_folder, write_json
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.samples.dataset import Samples
from benchmarks.bench import PAGE, ROOT, run_stage

CACHE = ROOT / "benchmarks" / "cache" / "zoo"
STAMP = "stamp.json"
SEED = 0
SIDE, CALIBRATION, EVALUATION = 224, 16, 4
PARTS = ("benchmarks/zoo.py", "tasks/prepare/**/*.py", "act/program/**/*.py", "act/samples/dataset.py")

Network = Callable[[], Any]


@dataclass(frozen=True)
class Prepared:
    """A model as `prepare` leaves it.

    Attributes:
        name: one of `MODELS`.
        folder: what the stage wrote: `model/`, `calibration/`, `evaluation/`.
    """

    name: str
    folder: Path

    @property
    def samples(self) -> Path:
        """Folder of the samples to time on."""
        return self.folder / "evaluation"

    @property
    def reference(self) -> Path:
        """Folder of the fp32 outputs for them."""
        return self.folder / "reference"

    def model(self) -> InferenceModel:
        """Load the normalised fp32 model."""
        return InferenceModel.load(self.folder / "model")

    def calibration(self) -> Samples:
        """Load the calibration samples."""
        return Samples.load(self.folder / "calibration")


def prepared(name: str, cache: Path = CACHE) -> Prepared:
    """Return one of `MODELS` or `FURTHER`, made and prepared when this very code has not done so before."""
    folder, digest = cache / name, _digest()
    if not _is_made(folder, digest):
        with replace_folder(folder) as fresh:
            (fresh / "examples").symlink_to(ROOT / "examples")
            (fresh / "params.yaml").write_text(
                yaml.safe_dump({"jobs": {name: {**MODELS, **FURTHER}[name](fresh)}}), encoding="utf-8"
            )
            run_stage("prepare", name, fresh)
            write_json(fresh / STAMP, {"made_by": digest})
    return Prepared(name, folder / "artifacts" / name / "prepare")


def _digest() -> str:
    digest = hashlib.sha256()
    for part in PARTS:
        for path in sorted(ROOT.glob(part)):
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _is_made(folder: Path, digest: str) -> bool:
    try:
        return bool(json.loads((folder / STAMP).read_text(encoding="utf-8"))["made_by"] == digest)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _shipped(task: str, width: int, height: int, model: str, _: Path) -> dict[str, Any]:
    """Return the settings of one of the examples, on a few drawn lines or pages."""
    job: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["jobs"]["classifier"]
    job["data"].update(task=task, width=width, height=height, calibration=CALIBRATION, evaluation=EVALUATION)
    if task == "recognition":
        job["data"]["alphabet"] = model
    return {**job, "model": {"path": model}, "metric": "similarity"}


def _classifier(network: Network, folder: Path) -> dict[str, Any]:
    """Save a network with random weights into the folder; return its settings, on random pictures."""
    rng = np.random.default_rng(SEED)
    (folder / "data").mkdir()
    for role, count in (("calibration", CALIBRATION), ("evaluation", EVALUATION)):
        np.savez(folder / "data" / f"{role}.npz", x=pictures(rng, count))
    paddle.disable_static()
    try:
        paddle.seed(SEED)
        _save(network(), pictures(rng, CALIBRATION // 2), rng, folder / "source")
    finally:
        paddle.enable_static()
    job = _shipped("direction", 192, 48, "source", folder)
    return {**job, "data": {"reader": "arrays", "path": "data"}}


def pictures(rng: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Draw random pictures, coarse and fine, float32 [count, 3, 224, 224], of about unit variance."""
    coarse = np.kron(rng.normal(size=(count, 3, SIDE // 16, SIDE // 16)), np.ones((16, 16)))
    return ((coarse + rng.normal(size=(count, 3, SIDE, SIDE))) / np.sqrt(2)).astype(np.float32)


def _save(network: Any, images: Any, rng: np.random.Generator, folder: Path) -> None:
    """Give the batch norms scales, shifts and the statistics of the images, and save for inference."""
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            channels = layer.weight.shape[0]
            layer.weight.set_value(rng.uniform(0.5, 1.5, channels).astype(np.float32))
            layer.bias.set_value(rng.normal(0, 0.2, channels).astype(np.float32))
            layer._momentum = 0.0  # the statistics of the last batch, not of the few so far
    network.train()
    with paddle.no_grad():
        network(paddle.to_tensor(images))
    network.eval()
    specification = [paddle.static.InputSpec([None, 3, SIDE, SIDE], "float32", "x")]
    paddle.jit.save(network, str(folder / "model"), input_spec=specification)


def _pp_lcnet() -> Any:
    """Build PP-LCNet x1.0 with 1,000 classes."""
    nn = paddle.nn
    # Kernel, channels in, channels out, stride, squeeze and excitation.
    blocks = [(3, 16, 32, 1, False), (3, 32, 64, 2, False), (3, 64, 64, 1, False), (3, 64, 128, 2, False)]
    blocks += [(3, 128, 128, 1, False), (3, 128, 256, 2, False), *[(5, 256, 256, 1, False)] * 5]
    blocks += [(5, 256, 512, 2, True), (5, 512, 512, 1, True)]

    class Excitation(nn.Layer):  # type: ignore[name-defined]
        def __init__(self, channels: int) -> None:
            super().__init__()
            squeeze, excite = nn.Conv2D(channels, channels // 4, 1), nn.Conv2D(channels // 4, channels, 1)
            self.scale = nn.Sequential(nn.AdaptiveAvgPool2D(1), squeeze, nn.ReLU(), excite, nn.Hardsigmoid())

        def forward(self, x: Any) -> Any:
            return x * self.scale(x)

    def convolution(kernel: int, before: int, after: int, stride: int, groups: int = 1) -> list[Any]:
        layer = nn.Conv2D(before, after, kernel, stride, kernel // 2, groups=groups, bias_attr=False)
        return [layer, nn.BatchNorm2D(after), nn.Hardswish()]

    layers = convolution(3, 3, 16, 2)
    for kernel, before, after, stride, excited in blocks:
        layers += convolution(kernel, before, before, stride, before)
        layers += [Excitation(before)] if excited else []
        layers += convolution(1, before, after, 1)
    head = [nn.AdaptiveAvgPool2D(1), nn.Conv2D(512, 1280, 1, bias_attr=False), nn.Hardswish(), nn.Dropout(0.2)]
    return nn.Sequential(*layers, *head, nn.Flatten(), nn.Linear(1280, 1000))


# Of other shapes than those eight, to try a prediction on.
FURTHER: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "alexnet": partial(_classifier, paddle.vision.models.alexnet),
    "densenet121": partial(_classifier, paddle.vision.models.densenet121),
    "googlenet": partial(_classifier, paddle.vision.models.googlenet),
    "inception_v3": partial(_classifier, paddle.vision.models.inception_v3),
    "mobilenet_v2": partial(_classifier, paddle.vision.models.mobilenet_v2),
    "mobilenet_v3_small": partial(_classifier, paddle.vision.models.mobilenet_v3_small),
    "resnet18": partial(_classifier, paddle.vision.models.resnet18),
    "resnext50": partial(_classifier, paddle.vision.models.resnext50_32x4d),
    "shufflenet_v2_swish": partial(_classifier, paddle.vision.models.shufflenet_v2_swish),
    "squeezenet1_1": partial(_classifier, paddle.vision.models.squeezenet1_1),
    "vgg11": partial(_classifier, paddle.vision.models.vgg11),
    "classifier": partial(_shipped, "direction", 192, 48, "examples/ppocr-classifier.yaml"),
}

MODELS: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "mobilenet_v1": partial(_classifier, paddle.vision.models.mobilenet_v1),
    "mobilenet_v3": partial(_classifier, paddle.vision.models.mobilenet_v3_large),
    "resnet50": partial(_classifier, paddle.vision.models.resnet50),
    "shufflenet_v2": partial(_classifier, paddle.vision.models.shufflenet_v2_x1_0),
    "squeezenet": partial(_classifier, paddle.vision.models.squeezenet1_0),
    "pp_lcnet": partial(_classifier, _pp_lcnet),
    "recogniser": partial(_shipped, "recognition", 320, 48, "examples/ppocr-recogniser.yaml"),
    "detector": partial(_shipped, "detection", PAGE, PAGE, "examples/ppocr-detector.yaml"),
}
