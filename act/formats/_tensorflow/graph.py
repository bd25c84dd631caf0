"""TensorFlow's graphs: what may not run, and the ONNX model of one whose variables are constants."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import tf2onnx

from act.errors import InputError, quoted
from act.onnx_graph.nested import nodes_of

OPSET = 17
# Operators that run code of the file's author, or reach outside of the model: files, processes, other machines.
_REACH_OUT = (
    *("PyFunc", "PyFuncStateless", "EagerPyFunc", "HostCallback", "XlaHostCompute", "RemoteCall", "Rpc", "TryRpc"),
    *("ReadFile", "WriteFile", "MatchingFiles", "WholeFileReader", "WholeFileReaderV2", "FixedLengthRecordReader"),
    *("FixedLengthRecordReaderV2", "TextLineReader", "TextLineReaderV2", "TFRecordReader", "TFRecordReaderV2"),
    *("LMDBReader", "IdentityReader", "IdentityReaderV2", "LMDBDataset", "SqlDataset", "TextLineDataset"),
    *("TFRecordDataset", "TFRecordDatasetV2", "FixedLengthRecordDataset", "FixedLengthRecordDatasetV2", "CSVDataset"),
    *("CSVDatasetV2", "DatasetToTFRecord", "DatasetToTFRecordV2", "SaveDataset", "SaveDatasetV2", "LoadDataset"),
    *("DistributedSave", "SnapshotDataset", "SnapshotDatasetV2", "DebugIdentity", "DebugIdentityV2"),
    *("DebugNumericSummary", "PrintV2", "Print", "CreateSummaryFileWriter", "CreateSummaryDbWriter", "ImportEvent"),
    *("SdcaOptimizer", "ConfigureDistributedTPU", "TPUExecute", "LoadAndRemapMatrix", "GenerateVocabRemapping"),
    *("InitializeTableFromTextFile", "InitializeTableFromTextFileV2", "Save", "SaveSlices", "DynamicLibrary"),
)
# The same for what every SavedModel has to save and restore itself.
_CHECKPOINTS = ("SaveV2", "RestoreV2", "Restore", "RestoreSlice", "MergeV2Checkpoints")
_ONNX_DOMAINS = ("", "ai.onnx")


def operators_of(graph: Any) -> Iterator[str]:
    """Yield the type of each operator of a graph and of its functions."""
    for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
        yield from (node.op for node in nodes)


def functions_called(nodes: Iterable[Any]) -> list[str]:
    """Return the names of the functions that nodes call."""
    values = [value for node in nodes for value in node.attr.values()]
    return [each.name for value in values for each in (value.func, *value.list.func) if each.name]


def refuse_reaching_out(operators: Iterable[str], checkpoints: bool = False) -> None:
    """Refuse operators that would run foreign code or reach outside of the model, by checkpoints as well if asked."""
    if found := sorted(set(operators) & {*_REACH_OUT, *(_CHECKPOINTS if checkpoints else ())}):
        raise InputError(
            f"holds operators that run code or reach outside of the model ({quoted(found)}), which is never done; "
            "export the part of it that computes"
        )


def write_onnx(graph: Any, inputs: Mapping[str, str], outputs: Mapping[str, str], target: Path) -> None:
    """Convert a graph without variables, and write it.

    Args:
        graph: a `GraphDef`.
        inputs: its tensors by the names that they are to have, in order; outputs likewise.
    """
    ends = {"input_names": list(inputs.values()), "output_names": list(outputs.values())}
    model, _ = tf2onnx.convert.from_graph_def(graph, opset=OPSET, **ends)
    write_named(model, inputs, outputs, target)


def write_named(model: onnx.ModelProto, inputs: Mapping[str, str], outputs: Mapping[str, str], target: Path) -> None:
    """Write a converted model whose ends have the given names and order.

    Raises:
        InputError: an operator was left as it is, because ONNX has no form of it.
    """
    graph = model.graph
    left = {
        node.op_type for node in nodes_of(graph) if node.domain in _ONNX_DOMAINS and not onnx.defs.has(node.op_type)
    }
    if left:
        raise InputError(f"tf2onnx has no ONNX form of {quoted(sorted(left))}; export the model without them")
    renamed = {tensor: name for name, tensor in (*inputs.items(), *outputs.items())}
    # What has one of these names already, and is something else, gives it up.
    inner = {name for node in nodes_of(graph) for name in (*node.input, *node.output)}
    taken = (inner & set(renamed.values())) - set(renamed)
    renamed |= {name: f"{name} (inner)" for name in taken}
    _rename(graph, renamed)
    for ends, names in ((graph.input, inputs), (graph.output, outputs)):
        by_name = {end.name: end for end in ends}
        ordered = [by_name[name] for name in names if name in by_name]
        del ends[:]
        ends.extend(ordered)
    onnx.save(model, target)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Rename tensors of an ONNX graph, in the graphs inside it too."""
    for node in nodes_of(graph):
        for ends in (node.input, node.output):
            for place, name in enumerate(ends):
                ends[place] = names.get(name, name)
    for each in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        each.name = names.get(each.name, each.name)
