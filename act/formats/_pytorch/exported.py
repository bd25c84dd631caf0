"""Exported programs, converted by PyTorch's exporter of them, and run as they are."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from act.formats._pytorch.checked_archive import checked_archive
from act.formats._pytorch.inference import refuse_training
from act.formats._worker import Run
from act.samples.dataset import Array

_OPSET = 18  # what the exporter's own translations are written in


def convert(path: Path, folder: Path) -> None:
    """Write the program's ONNX model, with the names of its inputs and outputs."""
    converted = torch.onnx.export(_read(path), dynamo=True, opset_version=_OPSET, verbose=False)
    converted.save(folder / "model.onnx")


def load(path: Path) -> Run:
    """Load the program into PyTorch."""
    program = _read(path)
    names, specification = program.graph_signature.user_inputs, program.call_spec.in_spec
    module = program.module(check_guards=False)

    def run(feeds: Mapping[str, Array]) -> Sequence[Array]:
        values = [torch.from_numpy(feeds[name]) for name in names]
        arguments, keywords = pytree.tree_unflatten(values, specification)
        with torch.no_grad():
            found = module(*arguments, **keywords)
        return [each.numpy() for each in pytree.tree_leaves(found) if each is not None]

    return run


def _read(path: Path) -> Any:
    """Return the program of a file; `InputError` where reading it could run code, or where it is for training."""
    program = torch.export.load(checked_archive(path))
    refuse_training(_operators(program))
    return program


def _operators(program: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            if isinstance(node.target, torch._ops.OpOverload):
                arguments = [argument.name for argument in node.target._schema.arguments]
                constants = {**dict(zip(arguments, node.args)), **node.kwargs}
                yield node.target, {key: value for key, value in constants.items() if type(value) in (bool, float)}
