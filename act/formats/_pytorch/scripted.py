"""TorchScript, converted by PyTorch's exporter of it, and run as it is."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from act.errors import InputError
from act.formats._archive import read_archive
from act.formats._pytorch.inference import refuse_training
from act.formats._pytorch.texts import check_code
from act.formats._worker import INPUTS_FILE, Run
from act.samples.dataset import Array

_OPSET = 17
_CODE_BYTES = 64 * 2**20  # of code and what belongs to it, which is packed in the archive
_BATCH, _LENGTH, _SIDE = 2, 16, 64  # of free axes, where the exporter runs the module


def convert(path: Path, folder: Path) -> None:
    """Write the module's ONNX model; its inputs are those of `forward`, of the shapes that the job says."""
    module, declared = _read(path), json.loads((folder / INPUTS_FILE).read_text(encoding="utf-8"))
    names = _input_names(module)
    if set(names) != set(declared):
        raise InputError(
            f"TorchScript says no shapes: give that of each input ({', '.join(names)}) in the job's `model.inputs`, "
            f"which names {', '.join(declared) or 'none'}, such as `x: {{shape: [batch, 3, 224, 224]}}`"
        )
    inputs = {name: declared[name] for name in names}
    batch, examples, outputs = _run_examples(module, inputs)
    torch.onnx.export(
        module,
        tuple(examples),
        str(folder / "model.onnx"),
        dynamo=False,
        opset_version=_OPSET,
        input_names=names,
        output_names=_output_names(module, names, len(outputs)),
        dynamic_axes={name: _free_axes(name, each["shape"], batch > 1) for name, each in inputs.items()},
    )


def load(path: Path) -> Run:
    """Load the module into PyTorch."""
    module = _read(path)
    names = _input_names(module)

    def run(feeds: Mapping[str, Array]) -> Sequence[Array]:
        with torch.no_grad():
            return [each.numpy() for each in _flat(module(*[torch.from_numpy(feeds[name]) for name in names]))]

    return run


def _read(path: Path) -> Any:
    """Return the module of a file in inference mode; `InputError` where it would touch files, or is for training."""
    check_code(read_archive(path, ".py", _CODE_BYTES))
    module = torch.jit.load(str(path), map_location="cpu")
    frozen = not hasattr(module, "training")
    # Freezing takes away what only runs in training; a module that was frozen has no mode any more.
    whole = module if frozen else torch.jit.freeze(module.eval(), optimize_numerics=False)
    refuse_training(_operators(whole.inlined_graph))
    return module


def _operators(block: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Yield the operators of a graph that PyTorch knows by name, and their constants."""
    for node in block.nodes():
        space, _, name = node.kind().partition("::")
        if space == "aten" and node.schema() != "(no schema)":
            schema = torch._C.parse_schema(node.schema())
            operator = getattr(getattr(torch.ops.aten, name, None), schema.overload_name or "default", None)
            values = zip((argument.name for argument in schema.arguments), node.inputs())
            if isinstance(operator, torch._ops.OpOverload):
                yield operator, {name: each.toIValue() for name, each in values}
        for inner in node.blocks():
            yield from _operators(inner)


def _input_names(module: Any) -> list[str]:
    return [each.name for each in module.forward.schema.arguments[1:] if not each.has_default_value()]


def _output_names(module: Any, inputs: Sequence[str], count: int) -> list[str]:
    """Return the names that the outputs have in the module's code, or numbers where they have none."""
    values = list(module.graph.outputs())
    if len(values) == 1 and values[0].node().kind() == "prim::TupleConstruct":
        values = list(values[0].node().inputs())
    names = [value.debugName().partition(".")[0] for value in values]
    fit = len({*names, *inputs}) == count + len(inputs) and all(name.isidentifier() for name in names)
    return names if fit else [f"output_{index}" if count > 1 else "output" for index in range(count)]


def _run_examples(module: Any, inputs: Mapping[str, Any]) -> tuple[int, list[Any], list[Any]]:
    """Run the module on examples of the declared shapes: how many samples it took, which they are, and its outputs.

    A module that was traced with one sample may take no other number.
    """
    free = all(not isinstance(each["shape"][0], int) or each["shape"][0] < 0 for each in inputs.values())
    error: Exception | None = None
    for batch in (_BATCH, 1) if free else (1,):
        examples = [_example(each["shape"], each["dtype"], batch) for each in inputs.values()]
        try:
            with torch.no_grad():
                outputs = _flat(module(*examples))
        except Exception as caught:  # TorchScript raises its own kinds
            error = caught
            continue
        if batch == 1 or all(each.dim() > 0 and len(each) == batch for each in outputs):
            return batch, examples, outputs
    shapes = ", ".join(f"{name} {each['shape']}" for name, each in inputs.items())
    cause = str(error).strip().rpartition("\n")[2]
    raise InputError(f"it does not run on inputs as `model.inputs` has them ({shapes}): {cause}; mend them there")


def _example(shape: Sequence[int | str], dtype: str, batch: int) -> Any:
    side = _SIDE if len(shape) > 3 else _LENGTH
    lengths = [
        each if isinstance(each, int) and each > 0 else side if axis else batch for axis, each in enumerate(shape)
    ]
    kind = getattr(torch, dtype)
    return torch.rand(lengths, dtype=kind) if kind.is_floating_point else torch.ones(lengths, dtype=kind)


def _free_axes(name: str, shape: Sequence[int | str], batch: bool) -> dict[int, str]:
    """Return the names of an input's free axes; axes of one name are equally long."""
    own = {
        axis: each if isinstance(each, str) else f"{name}_{axis}" if axis else "batch"
        for axis, each in enumerate(shape)
        if isinstance(each, str) or each < 0
    }
    return {axis: each for axis, each in own.items() if axis or batch}


def _flat(outputs: Any) -> list[Any]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        outputs = outputs.values()
    return [each for output in outputs if output is not None for each in _flat(output)]
