"""Small models in PyTorch's forms, some of them hostile: run by PyTorch's own Python, which gets a folder to fill."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

BATCH, LENGTH = torch.export.Dim("batch"), torch.export.Dim("length", min=2, max=64)


class Picture(nn.Module):
    """A convolutional network with what exporters leave in other forms."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.second, self.dropout, self.last = nn.Conv2d(8, 8, 3, groups=8), nn.Dropout(0.5), nn.Linear(8, 5)
        nn.init.uniform_(self.norm.running_mean)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        x = nn.functional.silu(self.norm(self.first(picture)))
        x = nn.functional.hardswish(self.second(x)).mean((2, 3))
        return self.last(self.dropout(x)).softmax(-1)


class Tokens(nn.Module):
    """A transformer over numbers of tokens, with a mask, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(50, 16), nn.Embedding(64, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
        self.encoder, self.last = nn.TransformerEncoder(layer, 1), nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.words(ids) + self.places(torch.arange(ids.shape[1])[None])
        x = self.encoder(x, src_key_padding_mask=mask == 0)
        shares = (mask / mask.sum(1, keepdim=True))[:, :, None]
        return self.last((x * shares).sum(1)), x


class Hostile:
    """An object whose pickle makes a file as it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, (f"open({str(self.mark)!r}, 'w')",)


def changed(source: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """Write a copy of an archive in which something is different."""
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def main(folder: Path) -> None:
    """Write all models."""
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)  # fused operators, which no exporter knows
    mark = folder / "opened"
    picture, tokens = (torch.rand(2, 3, 16, 16),), (torch.ones(2, 8, dtype=torch.int64),) * 2
    shapes = {"ids": {0: BATCH, 1: LENGTH}, "mask": {0: BATCH, 1: LENGTH}}
    for name, model, examples, free in (
        ("picture", Picture(), picture, {"picture": {0: BATCH}}),
        ("tokens", Tokens(), tokens, shapes),
    ):
        torch.export.save(torch.export.export(model.eval(), examples, dynamic_shapes=free), folder / f"{name}.pt2")
        torch.jit.trace(model, examples, check_trace=False).save(folder / f"{name}.pt")
    torch.jit.script(Picture().eval()).save(folder / "scripted.pt")
    torch.export.save(torch.export.export(Picture().train(), picture), folder / "training.pt2")
    torch.jit.trace(Picture().train(), picture, check_trace=False).save(folder / "training.pt")

    def add_pickle(files: dict[str, bytes]) -> None:
        buffer = io.BytesIO()
        torch.save(Hostile(mark), buffer)
        files["picture/data/weights/model.pt"] = buffer.getvalue()

    def add_object(files: dict[str, bytes]) -> None:
        files["picture/data/constants/opaque_obj_0"] = pickle.dumps(Hostile(mark))

    def add_library(files: dict[str, bytes]) -> None:
        files["picture/data/aotinductor/model/model.so"] = b"\x7fELF"

    def add_formula(files: dict[str, bytes]) -> None:
        program = json.loads(files["picture/models/model.json"])
        value = program["graph_module"]["graph"]["tensor_values"]["picture"]
        value["sizes"][0]["as_expr"]["expr_str"] = f"exec(\"open('{mark}', 'w')\")"
        files["picture/models/model.json"] = json.dumps(program).encode()

    for name, change in (
        ("pickle", add_pickle),
        ("object", add_object),
        ("library", add_library),
        ("formula", add_formula),
    ):
        changed(folder / "picture.pt2", folder / f"{name}.pt2", change)

    def add_save(files: dict[str, bytes]) -> None:
        name = next(name for name in files if "/code/" in name and name.endswith(".py"))
        files[name] = files[name].replace(b"return", f'torch.save(1, "{mark}")\n    return'.encode(), 1)

    changed(folder / "picture.pt", folder / "save.pt", add_save)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
