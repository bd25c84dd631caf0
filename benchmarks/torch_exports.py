"""`make exports`: architectures of torchvision without trained weights, written by both forms of PyTorch's exporter.

Runs in an environment of its own (the group `exports` of pyproject.toml), because PyTorch wants another NumPy than
Paddle. `python -m benchmarks.formats --models FOLDER` then holds the import against ONNX Runtime. A detector is written
up to its heads; what stands behind them chooses boxes, and is not imported.
"""

import argparse
from pathlib import Path

import torch
import torchvision

OPSET = 17


class Heads(torch.nn.Module):
    """A detector's backbone and heads."""

    def __init__(self, detector: torch.nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.head(list(self.backbone(images).values()))
        return found["cls_logits"], found["bbox_regression"]


class Output(torch.nn.Module):
    """The main output of a network that gives a dictionary."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)["out"]


def networks() -> dict[str, tuple[torch.nn.Module, int]]:
    """Return the networks, and the height and width of their pictures."""
    models = torchvision.models
    return {
        "resnet50": (models.resnet50(), 224),
        "mobilenet_v3": (models.mobilenet_v3_large(), 224),
        "vit_tiny": (models.VisionTransformer(224, 16, 12, 3, 192, 768), 224),
        "swin_tiny": (models.swin_t(), 224),
        "convnext_tiny": (models.convnext_tiny(), 224),
        "deeplab_v3": (
            Output(models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None)),
            224,
        ),
        "ssdlite": (
            Heads(models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)),
            320,
        ),
    }


def main() -> None:
    """Write `NAME_traced.onnx` and `NAME_exported.onnx` for each network."""
    parser = argparse.ArgumentParser(description="Write models with PyTorch's exporter.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name, (network, side) in networks().items():
        for parameter in network.parameters():
            if not parameter.detach().any():
                torch.nn.init.normal_(parameter, std=0.02)  # a head that starts with zeros would say nothing
        network.eval()
        pictures = torch.rand(2, 3, side, side)
        torch.onnx.export(
            network,
            (pictures,),
            folder / f"{name}_traced.onnx",
            input_names=["images"],
            dynamic_axes={"images": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
        batch = torch.export.Dim("batch", min=1, max=1024)
        torch.onnx.export(
            network,
            (pictures,),
            folder / f"{name}_exported.onnx",
            dynamo=True,
            dynamic_shapes=({0: batch},),
            external_data=False,
        )
        print(name, flush=True)


if __name__ == "__main__":
    main()
