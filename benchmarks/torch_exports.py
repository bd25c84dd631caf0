"""`make exports`: architectures without trained weights, written by both forms of PyTorch's exporter.

Runs in an environment of its own (the group `exports` of pyproject.toml), because PyTorch wants another NumPy than
Paddle. `python -m benchmarks.formats --models FOLDER` then holds the import against ONNX Runtime.

The networks are those of torchvision, timm, transformers and ultralytics, small where that leaves the operators as they
are, and a U-Net and a CRNN that are built here. A detector of torchvision is written up to its heads; what is behind
them chooses boxes. Says which network a form of the exporter does not take, and why; `not_written.json` beside the
models keeps that.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torchvision

OPSET = 17
NOT_WRITTEN = "not_written.json"
_LENGTH = 24  # of token sequences


@dataclass
class Network:
    """A network, what it is exported with, and the names of inputs' axes, beside the batch, that are free."""

    module: torch.nn.Module
    inputs: dict[str, torch.Tensor]
    free: dict[str, dict[int, str]] = field(default_factory=dict)


class Heads(torch.nn.Module):
    """A detector's backbone and heads."""

    def __init__(self, detector: torch.nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.head(list(self.backbone(images).values()))
        return found["cls_logits"], found["bbox_regression"]


class Output(torch.nn.Module):
    """One output of a network that gives a dictionary."""

    def __init__(self, network: torch.nn.Module, name: str) -> None:
        super().__init__()
        self.network, self.name = network, name

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)[self.name]


class Encoder(torch.nn.Module):
    """A language model's tokens, as its files have them."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


class TypedEncoder(torch.nn.Module):
    """The same of one that is told to which sentence a token belongs."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        found = self.network(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return found.last_hidden_state


class SentenceEncoder(Encoder):
    """The mean of a language model's tokens that are not masked, of length 1."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        tokens = super().forward(input_ids, attention_mask)
        weights = attention_mask.unsqueeze(-1).expand(tokens.size()).float()
        mean = (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, p=2, dim=1)


class UNet(torch.nn.Module):
    """Three levels down and up again, each joined with its like."""

    def __init__(self, learned: bool) -> None:
        super().__init__()
        widths = (16, 32, 64)
        self.down = torch.nn.ModuleList(
            self._convolutions(before, after) for before, after in zip((3, *widths), widths)
        )
        self.up = torch.nn.ModuleList(
            torch.nn.ConvTranspose2d(wide, narrow, 2, 2)
            if learned
            else torch.nn.Sequential(
                torch.nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
                torch.nn.Conv2d(wide, narrow, 1),
            )
            for wide, narrow in ((64, 32), (32, 16))
        )
        self.joined = torch.nn.ModuleList(self._convolutions(2 * width, width) for width in (32, 16))
        self.last = torch.nn.Conv2d(16, 2, 1)

    @staticmethod
    def _convolutions(before: int, after: int) -> torch.nn.Sequential:
        layers: list[torch.nn.Module] = []
        for width in (before, after):
            layers += [torch.nn.Conv2d(width, after, 3, padding=1), torch.nn.BatchNorm2d(after), torch.nn.ReLU()]
        return torch.nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        levels = []
        x = images
        for index, stage in enumerate(self.down):
            x = stage(torch.nn.functional.max_pool2d(x, 2) if index else x)
            levels.append(x)
        for up, joined, level in zip(self.up, self.joined, levels[-2::-1]):
            x = up(x)
            # As many U-Nets do it: images of odd sizes come back shorter.
            height, width = level.shape[2] - x.shape[2], level.shape[3] - x.shape[3]
            x = torch.nn.functional.pad(x, [width // 2, width - width // 2, height // 2, height - height // 2])
            x = joined(torch.cat([level, x], dim=1))
        return self.last(x)


class Crnn(torch.nn.Module):
    """Convolutions down to one row, two recurrent layers of both directions, and scores of characters."""

    def __init__(self, layer: Callable[..., torch.nn.Module]) -> None:
        super().__init__()
        widths = (1, 16, 32, 64)
        self.features = torch.nn.Sequential(
            *(
                torch.nn.Sequential(
                    torch.nn.Conv2d(before, after, 3, padding=1),
                    torch.nn.BatchNorm2d(after),
                    torch.nn.ReLU(),
                    torch.nn.MaxPool2d((2, 2) if after < 64 else (8, 1)),
                )
                for before, after in pairwise(widths)
            )
        )
        self.recurrent = layer(64, 48, num_layers=2, bidirectional=True, batch_first=True)
        self.scores = torch.nn.Linear(96, 40)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        steps = self.features(images).squeeze(2).permute(0, 2, 1)
        return torch.nn.functional.log_softmax(self.scores(self.recurrent(steps)[0]), dim=2)


def _on_pictures(module: torch.nn.Module, side: int) -> Network:
    return Network(module, {"images": torch.rand(2, 3, side, side)})


def _on_lines(layer: Callable[..., torch.nn.Module], width: int | None) -> Network:
    """Return a CRNN for lines of 32 rows; of any width where None is given."""
    inputs = {"images": torch.rand(2, 1, 32, width or 96)}
    return Network(Crnn(layer), inputs, {} if width else {"images": {3: "width"}})


def _on_tokens(encoder: Encoder, *more: str) -> Network:
    shape = (2, _LENGTH)
    drawn = {
        "input_ids": torch.randint(1, 1000, shape),
        "attention_mask": torch.ones(shape, dtype=torch.int64),
        "token_type_ids": torch.zeros(shape, dtype=torch.int64),
    }
    inputs = {name: drawn[name] for name in ("input_ids", "attention_mask", *more)}
    return Network(encoder, inputs, {name: {1: "sequence"} for name in inputs})


def _of_torchvision() -> dict[str, Callable[[], Network]]:
    models, none = torchvision.models, {"weights": None, "weights_backbone": None}
    detection, segmentation = models.detection, models.segmentation
    return {
        "resnet50": lambda: _on_pictures(models.resnet50(), 224),
        "mobilenet_v3": lambda: _on_pictures(models.mobilenet_v3_large(), 224),
        "efficientnet": lambda: _on_pictures(models.efficientnet_b0(), 128),
        "vit_tiny": lambda: _on_pictures(models.VisionTransformer(224, 16, 12, 3, 192, 768), 224),
        "swin_tiny": lambda: _on_pictures(models.swin_t(), 224),
        "convnext_tiny": lambda: _on_pictures(models.convnext_tiny(), 224),
        "deeplab_v3": lambda: _on_pictures(Output(segmentation.deeplabv3_mobilenet_v3_large(**none), "out"), 224),
        "ssdlite": lambda: _on_pictures(Heads(detection.ssdlite320_mobilenet_v3_large(**none)), 320),
        "ssd300": lambda: _on_pictures(Heads(detection.ssd300_vgg16(**none)), 300),
    }


def _of_timm() -> dict[str, Callable[[], Network]]:
    import timm

    return {
        "hrnet": lambda: _on_pictures(timm.create_model("hrnet_w18_small"), 96),
        "efficientnet_same": lambda: _on_pictures(timm.create_model("tf_efficientnet_b0"), 96),
    }


def _of_transformers() -> dict[str, Callable[[], Network]]:
    import transformers

    sizes = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 192}
    sizes |= {"vocab_size": 1000}
    deberta = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_relative_positions": -1}

    def segformer() -> Network:
        config = transformers.SegformerConfig(depths=[1, 1, 1, 1], num_labels=19)
        return _on_pictures(Output(transformers.SegformerForSemanticSegmentation(config), "logits"), 128)

    def distilbert() -> Network:
        config = transformers.DistilBertConfig(vocab_size=1000, dim=96, n_layers=2, n_heads=4, hidden_dim=192)
        return _on_tokens(Encoder(transformers.DistilBertModel(config)))

    def deberta_v3() -> Network:
        # Positions in buckets, keys shared with them, and a norm over their embedding, as in version 3.
        third = {"position_buckets": 16, "share_att_key": True, "norm_rel_ebd": "layer_norm", "type_vocab_size": 0}
        config = transformers.DebertaV2Config(**sizes, **deberta, **third, position_biased_input=False)
        return _on_tokens(Encoder(transformers.DebertaV2Model(config)))

    return {
        "segformer": segformer,
        "bert": lambda: _on_tokens(
            TypedEncoder(transformers.BertModel(transformers.BertConfig(**sizes))), "token_type_ids"
        ),
        "minilm": lambda: _on_tokens(SentenceEncoder(transformers.BertModel(transformers.BertConfig(**sizes)))),
        "distilbert": distilbert,
        "deberta": lambda: _on_tokens(
            Encoder(transformers.DebertaModel(transformers.DebertaConfig(**sizes, **deberta)))
        ),
        "deberta_v2": lambda: _on_tokens(
            Encoder(transformers.DebertaV2Model(transformers.DebertaV2Config(**sizes, **deberta)))
        ),
        "deberta_v3": deberta_v3,
    }


def _of_ultralytics() -> dict[str, Callable[[], Network]]:
    def detector(name: str, kind: str = "DetectionModel") -> Callable[[], Network]:
        def make() -> Network:
            from ultralytics.nn import tasks

            model = getattr(tasks, kind)(name, verbose=False)
            head = model.model[-1]
            # What its own exporter sets before it calls PyTorch's.
            head.export, head.format, head.dynamic, head.max_det = True, "onnx", True, 300
            return _on_pictures(model, 160)

        return make

    yolos = {f"yolo{name}": detector(f"yolo{name}.yaml") for name in ("v5n", "v6n", "v8n", "v9t", "v10n", "11n")}
    yolos |= {f"yolo11n_{task}": detector(f"yolo11n-{task}.yaml", kind) for task, kind in _TASKS.items()}
    return yolos | {"rtdetr": detector("rtdetr-l.yaml", "RTDETRDetectionModel")}


_TASKS = {"seg": "SegmentationModel", "pose": "PoseModel"}


def _built_here() -> dict[str, Callable[[], Network]]:
    return {
        "unet": lambda: Network(UNet(True), {"images": torch.rand(2, 3, 64, 96)}),
        "unet_upsampling": lambda: Network(
            UNet(False), {"images": torch.rand(2, 3, 64, 96)}, {"images": {2: "height", 3: "width"}}
        ),
        "crnn_lstm": lambda: _on_lines(torch.nn.LSTM, None),
        "crnn_lstm_fixed": lambda: _on_lines(torch.nn.LSTM, 96),
        "crnn_gru": lambda: _on_lines(torch.nn.GRU, None),
        "crnn_gru_fixed": lambda: _on_lines(torch.nn.GRU, 96),
    }


def networks() -> dict[str, Callable[[], Network]]:
    """Return what makes each network, by name."""
    families = (_of_torchvision, _of_timm, _of_transformers, _of_ultralytics, _built_here)
    return {name: make for family in families for name, make in family().items()}


def write_traced(network: Network, path: Path) -> None:
    """Write what PyTorch's older exporter makes of a network."""
    torch.onnx.export(
        network.module,
        tuple(network.inputs.values()),
        path,
        input_names=list(network.inputs),
        dynamic_axes={name: {0: "batch", **network.free.get(name, {})} for name in network.inputs},
        opset_version=OPSET,
        dynamo=False,
    )


def write_exported(network: Network, path: Path) -> None:
    """Write what PyTorch's newer exporter makes of a network."""
    batch = torch.export.Dim("batch", min=1, max=1024)
    others: Mapping[str, Any] = {
        name: torch.export.Dim(name, min=2, max=512) for axes in network.free.values() for name in axes.values()
    }
    shapes = tuple(
        {0: batch, **{axis: others[label] for axis, label in network.free.get(name, {}).items()}}
        for name in network.inputs
    )
    torch.onnx.export(
        network.module,
        tuple(network.inputs.values()),
        path,
        input_names=list(network.inputs),
        dynamo=True,
        dynamic_shapes=shapes,
        external_data=False,
        verbose=False,
    )


FORMS = {"traced": write_traced, "exported": write_exported}


def _cause(error: BaseException) -> str:
    """Return the first line of what an error began with."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def main() -> None:
    """Write `NAME_traced.onnx` and `NAME_exported.onnx` for each network, and the causes for which one was not."""
    parser = argparse.ArgumentParser(description="Write models with PyTorch's exporter.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", help="names of networks")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        # Told so, these packages load nothing, report nothing and write nothing into the home folder.
        os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
        os.environ |= dict.fromkeys(("HF_HOME", "MPLCONFIGDIR", "TORCH_HOME", "YOLO_CONFIG_DIR"), scratch)
        not_written: dict[str, str] = {}
        for name, make in networks().items():
            if not arguments.only or name in arguments.only:
                not_written |= _write(name, make, arguments.folder)
    (arguments.folder / NOT_WRITTEN).write_text(json.dumps(not_written, indent=2) + "\n", encoding="utf-8")


def _write(name: str, make: Callable[[], Network], folder: Path) -> dict[str, str]:
    """Write a network in both forms; return the cause by file for each that the exporter does not take."""
    torch.manual_seed(0)
    network = make()
    for parameter in network.module.parameters():
        if not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=0.02)  # a head that starts with zeros would say nothing
    network.module.eval()
    not_written = {}
    for form, write in FORMS.items():
        file = folder / f"{name}_{form}.onnx"
        try:
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                write(network, file)
        except Exception as error:  # the exporter raises all kinds on what it does not take
            not_written[file.name] = _cause(error)
            file.unlink(missing_ok=True)
            print(f"{name}: not {form}: {_cause(error)}", flush=True)
        else:
            print(f"{name} {form}", flush=True)
    return not_written


if __name__ == "__main__":
    main()
