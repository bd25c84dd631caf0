"""Architectures of PaddleClas, PaddleSeg, PaddleDetection and PaddleNLP, with drawn weights, written by Paddle 2 or 3.

`python benchmarks/paddle_zoo_exports.py FOLDER [--weights OTHER]` makes a folder for each, with the model (Paddle 3
writes its form, 2.6 its own) and `weights.npz`; with `--weights` they are those of another folder, so that both write
the same networks. The four packages must be on Python's path; `make zoo` sees to that and runs this under both.

Of the packages the modules of the architectures alone are imported: what else they import when they start (data sets,
trainers, servers, clients of model hubs) is old, large, and would download.
"""

from __future__ import annotations

import argparse
import sys
import types
import zlib  # noqa: F401 (before Paddle 2.6, whose own copy breaks it)
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import PIL.Image  # noqa: F401 (likewise)

import paddle  # isort: skip
from paddle import nn  # isort: skip

SIDE, SEGMENTED, DETECTED, TOKENS = 224, 256, 320, 64
"""Sides of pictures in pixels, and the tokens of a sequence."""
EXAMPLES = 4
# Of norms: without it each ReLU cuts off half of what it reads, and noise grows with depth as in no trained network.
_SHIFT = 0.5
_BLOCK, _VOCABULARY, _OF_TWO = 16, 10_000, 2
Input = tuple[str, str, Sequence["int | None"]]
"""Name, dtype and shape; None for axes that are free."""
# What the packages import to download, to read data and to draw. Nothing of it is called to build a network.
_LEFT_OUT = (
    *("aistudio_sdk", "aistudio_sdk.hub", "colorlog", "cv2", "filelock", "huggingface_hub", "huggingface_hub.utils"),
    *("requests", "requests.exceptions", "safetensors", "six", "sklearn", "sklearn.metrics", "tqdm", "tqdm.auto"),
    *("yaml", "paddleclas.ppcls.utils.logger", "paddlenlp.utils.download", "paddlenlp.utils.downloader"),
)
# Packages whose modules are found without running what stands in their `__init__.py`.
_BARE = (
    *("paddleclas", "paddleclas.ppcls", "paddleclas.ppcls.arch", "paddleclas.ppcls.arch.backbone"),
    *("paddleclas.ppcls.arch.backbone.legendary_models", "paddleclas.ppcls.arch.backbone.model_zoo"),
    *("paddleclas.ppcls.utils", "paddleseg", "paddleseg.cvlibs", "paddleseg.models", "paddleseg.models.backbones"),
    *("ppdet", "ppdet.modeling", "ppdet.modeling.assigners", "ppdet.modeling.backbones", "ppdet.modeling.heads"),
    *("ppdet.modeling.losses", "ppdet.modeling.necks", "paddlenlp", "paddlenlp.layers", "paddlenlp.transformers"),
)
_CLASSIFIERS = "paddleclas.ppcls.arch.backbone"


@dataclass(frozen=True)
class Network:
    """A network, with the weights that its package draws, and its inputs."""

    layer: Any
    inputs: Sequence[Input]


class Detector(nn.Layer):
    """A detector of PaddleDetection from the picture to the boxes that are chosen, as its own exporter writes it."""

    def __init__(self, backbone: Any, neck: Any, head: Any) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head

    def forward(self, image: Any, scale_factor: Any) -> Any:
        found = self.head(self.neck(self.backbone({"image": image})))
        boxes, counts, _ = self.head.post_process(found, scale_factor)
        return boxes, counts


class Pretrained(nn.Layer):
    """What PaddleNLP's models need of the class below them, which else loads, stores and generates."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


def prepare_imports() -> None:
    """Put placeholders where modules are left out, and packages without their `__init__.py` where they are bare."""
    sys.modules |= {name: MagicMock() for name in _LEFT_OUT}
    for name in _BARE:
        above, _, last = name.rpartition(".")
        spec = PathFinder.find_spec(name, sys.modules[above].__path__ if above else None)
        if spec is None or spec.submodule_search_locations is None:
            sys.exit(f"{name} is not on Python's path: `make zoo` puts it there")
        sys.modules[name] = module = types.ModuleType(name)
        module.__path__ = list(spec.submodule_search_locations)
        if above:
            setattr(sys.modules[above], last, module)
    # What their modules ask them for.
    _has("ppdet.modeling.losses", GIoULoss=import_module("ppdet.modeling.losses.iou_loss").GIoULoss)
    _has("paddlenlp", __version__=version("paddlenlp"))
    _has("paddlenlp.layers", Linear=nn.Linear)
    _has("paddlenlp.transformers", PretrainedModel=Pretrained, register_base_model=lambda kind: kind)


def _has(package: str, **names: Any) -> None:
    vars(sys.modules[package]).update(names)


def _classifier(module: str, name: str, side: int = SIDE) -> Network:
    make = getattr(import_module(f"{_CLASSIFIERS}.{module}"), name)
    return Network(make(pretrained=False), [("x", "float32", (None, 3, side, side))])


def _segmentation(module: str, name: str, classes: int, backbone: tuple[str, str] | None = None) -> Network:
    settings: dict[str, Any] = {"num_classes": classes}
    if backbone is not None:
        settings["backbone"] = getattr(import_module(f"paddleseg.models.backbones.{backbone[0]}"), backbone[1])()
    layer = getattr(import_module(f"paddleseg.models.{module}"), name)(**settings)
    return Network(layer, [("x", "float32", (None, 3, SEGMENTED, SEGMENTED))])


def _ppyoloe_s() -> Network:
    """Build PP-YOLOE-s as `ppyoloe_crn_s` of PaddleDetection's configurations has it."""
    part, sizes = "ppdet.modeling", {"width_mult": 0.5, "depth_mult": 0.33}
    backbone = import_module(f"{part}.backbones.cspresnet").CSPResNet(
        layers=[3, 6, 6, 3], channels=[64, 128, 256, 512, 1024], return_idx=[1, 2, 3], use_large_stem=True, **sizes
    )
    neck = import_module(f"{part}.necks.custom_pan").CustomCSPPAN(
        in_channels=[each.channels for each in backbone.out_shape],
        out_channels=[768, 384, 192],
        stage_num=1,
        block_num=3,
        act="swish",
        spp=True,
        **sizes,
    )
    choice = {"score_threshold": 0.01, "nms_threshold": 0.7, "nms_top_k": 1000, "keep_top_k": 300}
    head = import_module(f"{part}.heads.ppyoloe_head").PPYOLOEHead(
        in_channels=[each.channels for each in neck.out_shape],
        nms=import_module(f"{part}.layers").MultiClassNMS(**choice),
    )
    if _writes_pir():
        # The package declares the operator in Paddle 2's programs alone.
        _has(f"{part}.ops", multiclass_nms=_multiclass_nms)
    picture = ("image", "float32", (None, 3, DETECTED, DETECTED))
    return Network(Detector(backbone, neck, head), [picture, ("scale_factor", "float32", (None, 2))])


def _multiclass_nms(boxes: Any, scores: Any, **settings: Any) -> tuple[Any, Any, Any]:
    names = ("score_threshold", "nms_top_k", "keep_top_k", "nms_threshold", "normalized", "nms_eta")
    background = settings.get("background_label", -1)
    chosen = paddle._C_ops.multiclass_nms3(boxes, scores, None, *(settings[name] for name in names), background)
    return chosen[0], chosen[2], chosen[1]


def _text_classifier(package: str, kind: str, variant: str) -> Network:
    config = getattr(import_module(f"paddlenlp.transformers.{package}.configuration"), f"{kind}Config")
    modeling = import_module(f"paddlenlp.transformers.{package}.modeling")
    layer = getattr(modeling, f"{kind}ForSequenceClassification")(
        config(**config.pretrained_init_configuration[variant])
    )
    layer.apply(layer._init_weights)
    return Network(layer, [(name, "int64", (None, None)) for name in ("input_ids", "token_type_ids")])


def networks() -> dict[str, Callable[[], Network]]:
    """Return what makes each network, by name, the light ones first."""
    return {
        "shufflenet_v2_x1_0": lambda: _classifier("model_zoo.shufflenet_v2", "ShuffleNetV2_x1_0"),
        "squeezenet1_0": lambda: _classifier("model_zoo.squeezenet", "SqueezeNet1_0"),
        "pplcnet_v2_base": lambda: _classifier("legendary_models.pp_lcnet_v2", "PPLCNetV2_base"),
        "pp_humanseg_lite": lambda: _segmentation("pphumanseg_lite", "PPHumanSegLite", 2),
        "resnet50_vd": lambda: _classifier("legendary_models.resnet", "ResNet50_vd"),
        "pphgnet_tiny": lambda: _classifier("legendary_models.pp_hgnet", "PPHGNet_tiny"),
        "pp_liteseg": lambda: _segmentation("pp_liteseg", "PPLiteSeg", 19, ("stdcnet", "STDC1")),
        "hrnet": lambda: _segmentation("fcn", "FCN", 19, ("hrnet", "HRNet_W18")),
        "unet": lambda: _segmentation("unet", "UNet", 19),
        "ppyoloe_s": _ppyoloe_s,
        "pp_minilm": lambda: _text_classifier("ppminilm", "PPMiniLM", "ppminilm-6l-768h"),
        "ernie_3_0_medium": lambda: _text_classifier("ernie", "Ernie", "ernie-3.0-medium-zh"),
    }


def _writes_pir() -> bool:
    return int(paddle.__version__.partition(".")[0]) >= 3


def drawn(inputs: Sequence[Input], count: int, rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    """Draw samples that a network could be given: pictures, coarse and fine, or tokens with some left blank behind."""
    feeds = {}
    for name, dtype, (_, *shape) in inputs:
        if dtype == "int64":
            is_token = np.arange(TOKENS) < rng.integers(TOKENS // 2, TOKENS + 1, (count, 1))
            feeds[name] = rng.integers(1, _OF_TWO if "type" in name else _VOCABULARY, (count, TOKENS)) * is_token
        elif len(shape) == len(("channel", "row", "column")):
            height, width = (length or SIDE for length in shape[1:])
            coarse = np.kron(rng.normal(size=(count, 3, height // _BLOCK, width // _BLOCK)), np.ones((_BLOCK, _BLOCK)))
            fine = rng.normal(size=(count, 3, height, width))
            feeds[name] = ((coarse + fine) / np.sqrt(2)).astype(np.float32)
        else:
            feeds[name] = np.ones((count, *(length or 1 for length in shape)), np.float32)
    return feeds


def draw_weights(network: Network, rng: np.random.Generator) -> None:
    """Give norms scales and shifts, batch norms the statistics of a drawn batch, and what begins with zeros values."""
    statistics = []
    for layer in network.layer.sublayers():
        is_norm = isinstance(layer, (nn.BatchNorm, nn.BatchNorm2D, nn.LayerNorm))
        if is_norm and layer.weight is not None:
            layer.weight.set_value(rng.uniform(0.5, 1.5, layer.weight.shape).astype(np.float32))
            layer.bias.set_value(rng.normal(_SHIFT, 0.2, layer.bias.shape).astype(np.float32))
        if hasattr(layer, "_variance"):
            statistics.append(layer)
    for parameter in network.layer.parameters():
        if not parameter.numpy().any():
            parameter.set_value(rng.normal(0, _spread(parameter.shape), parameter.shape).astype(np.float32))
    network.layer.eval()
    for layer in statistics:
        layer.training, layer._momentum = True, 0.0  # the statistics of this batch, not of the few so far
    with paddle.no_grad():
        network.layer(*map(paddle.to_tensor, drawn(network.inputs, EXAMPLES, rng).values()))
    network.layer.eval()


def _spread(shape: Sequence[int]) -> float:
    """Return the standard deviation of values for a parameter: of a weight, that keeps the size of what it reads."""
    read = {2: shape[0], 4: int(np.prod(shape[1:]))}.get(len(shape))
    return 0.05 if read is None else float(read**-0.5)


def merge_branches(layer: Any) -> None:
    """Merge the branches that are parallel for training alone, as the packages' exporters do."""
    for each in layer.sublayers():
        for name in ("re_parameterize", "convert_to_deploy"):
            if hasattr(each, name):
                getattr(each, name)()


def main() -> None:
    """Parse the command line, and write the networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, help="a folder that this program wrote before")
    parser.add_argument("--only", nargs="+", help="names of networks")
    arguments = parser.parse_args()
    prepare_imports()
    paddle.disable_static()
    for name, make in networks().items():
        if arguments.only and name not in arguments.only:
            continue
        paddle.seed(0)
        folder = arguments.folder / name
        network = make()
        draw_weights(network, np.random.default_rng(0))
        merge_branches(network.layer)
        if arguments.weights is not None:
            stored = np.load(arguments.weights / name / "weights.npz")
            network.layer.set_state_dict({key: paddle.to_tensor(stored[key]) for key in stored.files})
        specs = [paddle.static.InputSpec(list(shape), dtype, feed) for feed, dtype, shape in network.inputs]
        paddle.jit.save(network.layer, str(folder / "inference"), input_spec=specs)
        np.savez(folder / "weights.npz", **{key: value.numpy() for key, value in network.layer.state_dict().items()})
        print(name, flush=True)


if __name__ == "__main__":
    main()
