"""A simpler program that computes the same, so that quantization sees each layer as the engines will run it.

What is not certain to compute the same stays as it is: programs with control flow, variables that are written twice,
layers with channels last, weights that something else reads too.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.model import InferenceModel
from act.program.passes.batch_norms import fold_batch_norms
from act.program.passes.means import pool_means
from act.program.passes.pads import fold_pads
from act.program.passes.scalars import fold_scalars

IDENTITIES = {
    "assign": "gives what it is given",
    "dropout": "does nothing at inference",
    "scale": "multiplies by 1 and adds 0",
}


@dataclass
class Changes:
    """What was done to the program.

    Attributes:
        batch_norms: gamma of each folded batch norm, float32 [channels], by the weight that it was folded into.
        renamed: the tensor that holds now what another held, by the other's name.
    """

    folded_batch_norms: int = 0
    removed_identities: int = 0
    folded_reshapes: int = 0
    transposed_weights: int = 0
    folded_scalars: int = 0
    pooled_means: int = 0
    folded_pads: int = 0
    batch_norms: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)


def set_inference_mode(model: InferenceModel) -> None:
    """Let batch norms and dropouts behave as at inference, as the engines do whatever the program says."""
    for block in model.program.blocks:
        for op in block.ops:
            if op.has_attr("is_test"):
                op._set_attr("is_test", True)


def normalise(model: InferenceModel, fixed: Collection[str] = ()) -> tuple[InferenceModel, Changes]:
    """Return a normalised copy of a model in inference mode, with the same inputs and outputs, and what was changed.

    Args:
        fixed: tensors whose values stay as they are, whatever the tensors are called in the end.
    """
    result, changes = model.copy(), Changes()
    if result.program.num_blocks == 1:
        for op in [op for op in result.ops if is_identity(op)]:
            source, target = op.input("X")[0], op.output("Out")[0]
            if _bypass(result, op):
                changes.renamed[target] = source
        changes.removed_identities = len(changes.renamed)
        _multiply_for_dropouts(result)
        changes.folded_reshapes = sum(_store_reshaped(result, op) for op in result.ops if op.type == "reshape2")
        changes.transposed_weights = sum(_store_transposed(result, op) for op in result.ops if op.type == "matmul_v2")
        changes.batch_norms = fold_batch_norms(result)
        changes.folded_batch_norms = len(changes.batch_norms)
        changes.folded_pads = fold_pads(result)
        changes.folded_scalars = fold_scalars(result, {changes.renamed.get(name, name) for name in fixed})
        changes.pooled_means = pool_means(result)
    return result, changes


def is_identity(op: Any) -> bool:
    """Tell whether an operator of `IDENTITIES` gives what it reads."""
    if op.type == "dropout":
        # `downgrade_in_infer` multiplies by 1 - dropout_prob at inference.
        return bool(op.attr("dropout_implementation") == "upscale_in_train" or op.attr("dropout_prob") == 0)
    if op.type == "scale":
        return op.attr("scale") == 1 and op.attr("bias") == 0 and not op.input("ScaleTensor")
    return bool(op.type == "assign")


def _multiply_for_dropouts(model: InferenceModel) -> None:
    """Multiply by a weight instead of each dropout that scales at inference, which has no gradient there."""
    for op in [op for op in model.ops if op.type == "dropout" and not is_identity(op)]:
        source, target = op.input("X")[0], op.output("Out")[0]
        kept = model.add_weight(f"{target}.kept", np.array([1 - op.attr("dropout_prob")], np.float32))
        model.insert("elementwise_mul", {"X": [source], "Y": [kept]}, {"Out": [target]}, {"axis": -1}, before=op)
        model.remove(op)


def _bypass(model: InferenceModel, op: Any) -> bool:
    """Let what reads an identity's output read its input instead, and remove the identity."""
    source, target = op.input("X")[0], op.output("Out")[0]
    if target in model.fetch_names or len(model.producers(source)) > 1 or len(model.producers(target)) > 1:
        return False
    model.redirect(target, source)
    model.remove(op)
    return True


def _store_reshaped(model: InferenceModel, op: Any) -> bool:
    """Store a reshaped weight as a weight: Paddle reshapes the bias of a convolution at every inference."""
    source, target = op.input("X")[0], op.output("Out")[0]
    asked_at_runtime = any(slot in op.input_names and op.input(slot) for slot in ("Shape", "ShapeTensor"))
    known = model.is_weight(source) and -1 not in model.shape(target)
    if asked_at_runtime or not known or target in model.fetch_names or len(model.producers(target)) > 1:
        return False
    model.remove(op)
    model.add_weight(target, model.weight(source).reshape(model.shape(target)))
    return True


def _store_transposed(model: InferenceModel, op: Any) -> bool:
    """Store a transposed weight as it is multiplied: Paddle2ONNX would put a `Transpose` ahead of each product."""
    name = op.input("Y")[0]
    if (
        not op.attr("trans_y")
        or not model.owns_weight(name)
        or name in model.fetch_names
        or len(model.shape(name)) != 2
    ):
        return False
    model.set_weight(name, model.weight(name).T)
    op._set_attr("trans_y", False)
    return True
