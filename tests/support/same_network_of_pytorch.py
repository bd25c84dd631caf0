"""The network of `same_network.py` as an exported program: run by PyTorch's own Python, in a folder with weights."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Network(nn.Module):
    """The network over pictures with the channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, eps=1e-3)
        self.depth, self.point = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x)).relu()
        x = (x + self.point(self.depth(x).relu())).relu()
        return self.last(x.mean((2, 3))).softmax(-1)


NAMES = {
    **{"first": "first.weight", "gamma": "norm.weight", "shift": "norm.bias"},
    **{"mean": "norm.running_mean", "variance": "norm.running_var", "depth": "depth.weight"},
    **{"depth_bias": "depth.bias", "point": "point.weight", "point_bias": "point.bias", "last_bias": "last.bias"},
}


def main(folder: Path) -> None:
    """Write it with a batch of any length."""
    stored, network = np.load(folder / "weights.npz"), Network().eval()
    state = {theirs: torch.from_numpy(stored[ours]) for ours, theirs in NAMES.items()}
    state["last.weight"] = torch.from_numpy(stored["last"].T.copy())
    network.load_state_dict(state, strict=False)
    free = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(network, (torch.rand(2, 3, 16, 16),), dynamic_shapes=free)
    torch.export.save(program, folder / "network.pt2")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
