"""A Paddle program without its tail, and the tail: what stands behind its last layers and is kept as it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from act.errors import InputError
from act.onnx_graph.conversion import NotConvertible
from act.onnx_graph.multiclass_nms import convert
from act.program.files import PROGRAM_FILE
from act.program.graph import CONVOLUTIONS, MATRIX_PRODUCTS, TRANSPOSED_CONVOLUTIONS
from act.program.model import InferenceModel
from act.program.parts import part
from act.tail.frontier import SMALLEST_LAYER, Operator, find_cut
from act.tail.split import SplitModel, Tail

_LAYERS = frozenset(
    (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, *MATRIX_PRODUCTS, "fc", "rnn", "lstm", "gru", "cudnn_lstm")
)
# Shapes that hang on the data.
_CHOOSES = frozenset(
    (
        *("multiclass_nms", "multiclass_nms2", "multiclass_nms3", "matrix_nms", "locality_aware_nms", "nms"),
        *("masked_select", "where_index", "unique", "unique_consecutive", "while", "conditional_block"),
        *("generate_proposals", "generate_proposals_v2", "ctc_align", "beam_search", "beam_search_decode"),
        *("lod_reset", "sequence_pad", "sequence_unpad", "edit_distance"),
    )
)
# No gradient, or one that means nothing: numbers of places, chance.
_NUMBERS = frozenset(
    ("top_k", "top_k_v2", "arg_max", "arg_min", "argsort", "multinomial", "bernoulli", "sampling_id", "gaussian_random")
)
# Of operators that choose: outputs that tell of each sample how much was chosen.
_COUNTS = ("NmsRoisNum", "RoisNum", "RpnRoisNum")
_WRITTEN = "@written "  # between the name of a tensor and how often it was written before
_REAL = ("float16", "float32", "float64", "uint16")


def split(model: InferenceModel) -> SplitModel:
    """Return a program in two parts; the body is the model itself where nothing is to be cut off."""
    ops = model.ops
    operators, latest = _operators(model)
    firsts = {spec.shape[0] for spec in model.feed_specs() if spec.shape} | {-1, 1}

    def fits(value: str) -> bool:
        name = _name(value)
        shape = model.shape(name)
        # One number for all samples is no matter of a tail: whoever reads the model refuses it.
        counts = shape[0] in firsts if shape else name in model.fetch_names
        return model.dtype(name) in _REAL and counts

    cut = find_cut(operators, model.feed_names, [latest[name] for name in model.fetch_names], fits)
    if cut is None:
        return SplitModel(model, None)
    ends = [_name(value) for value in cut.outputs]
    outputs = [name for name in model.fetch_names if latest[name] not in cut.outputs]
    if not set(ends).isdisjoint(outputs):  # what the tail reads and what it writes there have one name
        return SplitModel(model, None)
    body = part(model, _needed(operators, cut.outputs), model.feed_names, ends)
    made = {name for number in cut.tail for name in operators[number].makes}
    read = {_name(value) for number in cut.tail for value in operators[number].reads if value not in made}
    inputs = [name for name in (*model.feed_names, *ends) if name in read]
    program = part(model, set(cut.tail), list(dict.fromkeys(inputs)), outputs)
    kinds = list(dict.fromkeys(str(ops[number].type) for number in cut.tail))
    return SplitModel(
        body,
        Tail(
            operators=kinds,
            outputs=model.fetch_specs(),
            whole=_whole(model, [ops[number] for number in cut.tail]),
            own_form=1,
            to_onnx=lambda: _converted(program),
            to_program=lambda: program,
            save_body=lambda folder: _save(body, folder),
        ),
        whole=model,
    )


def _converted(program: InferenceModel) -> onnx.ModelProto:
    try:
        return convert(program)
    except NotConvertible as error:
        raise InputError(f"Paddle2ONNX cannot convert it: {error.cause}") from None


def _save(model: InferenceModel, folder: Path) -> Path:
    model.save(folder)
    return folder / PROGRAM_FILE


def _operators(model: InferenceModel) -> tuple[list[Operator], dict[str, str]]:
    """Return the operators as the rule for the cut sees them, and the value that each tensor has in the end.

    Loops write over what they read: each writing makes another value, named as the tensor and how often it was written.
    """
    latest: dict[str, str] = {name: name for name in model.feed_names}
    written: Counter[str] = Counter()
    result = []
    for op in model.ops:
        names = list(dict.fromkeys(op.input_arg_names))
        weights = [name for name in names if model.is_weight(name)]
        is_layer = op.type in _LAYERS and any(np.prod(model.shape(name)) >= SMALLEST_LAYER for name in weights)
        read = tuple(latest.get(name, name) for name in names)
        for name in dict.fromkeys(op.output_arg_names):
            latest[name] = f"{name}{_WRITTEN}{written[name]}" if written[name] else name
            written[name] += 1
        made = tuple(latest[name] for name in dict.fromkeys(op.output_arg_names))
        result.append(Operator(read, made, is_layer, op.type in _CHOOSES or op.type in _NUMBERS))
    return result, latest


def _name(value: str) -> str:
    return value.partition(_WRITTEN)[0]


def _needed(operators: Sequence[Operator], outputs: Collection[str]) -> set[int]:
    """Return the numbers of the operators that make some values, and all that these hang on."""
    wanted, found = set(outputs), set()
    for number, op in reversed(list(enumerate(operators))):
        if not wanted.isdisjoint(op.makes):
            found.add(number)
            wanted.update(op.reads)
    return found


def _whole(model: InferenceModel, tail: Sequence[Any]) -> list[int]:
    """Return the numbers of the outputs whose first axis counts what was chosen of all samples."""
    chosen: set[str] = set()
    for op in tail:
        slots: Collection[str] = ()
        if op.type in _CHOOSES or not chosen.isdisjoint(op.input_arg_names):
            slots = [slot for slot in op.output_names if op.type not in _CHOOSES or slot not in _COUNTS]
        chosen.update(name for slot in slots for name in op.output(slot))
    return [number for number, name in enumerate(model.fetch_names) if name in chosen or not model.shape(name)]
