"""Identities removed: operators that give what they read."""

from __future__ import annotations

from typing import Any

from act.program.model import InferenceModel


def remove_identities(model: InferenceModel) -> int:
    """Let what reads an identity's output read its input instead, and return how many operators that took away."""
    return sum(_is_identity(op) and _bypass(model, op) for op in model.ops)


def _is_identity(op: Any) -> bool:
    if op.type == "dropout":
        # `downgrade_in_infer` multiplies by 1 - dropout_prob at inference.
        return bool(op.attr("dropout_implementation") == "upscale_in_train" or op.attr("dropout_prob") == 0)
    if op.type == "scale":
        return op.attr("scale") == 1 and op.attr("bias") == 0 and not op.input("ScaleTensor")
    return bool(op.type == "assign")


def _bypass(model: InferenceModel, op: Any) -> bool:
    source, target = op.input("X")[0], op.output("Out")[0]
    if target in model.fetch_names or len(model.producers(source)) > 1 or len(model.producers(target)) > 1:
        return False
    model.redirect(target, source)
    model.remove(op)
    return True
