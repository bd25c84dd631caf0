"""A layer of a transformer, small, with what makes those hard to quantize."""

from __future__ import annotations

from typing import Any

import numpy as np

from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from tests.support.prepare_networks import build

nn = paddle.nn
TOKENS = (2, 5, 8)
OUTLIER = 3


def encoder(x: Any) -> Any:
    """Build a layer of a transformer that normalizes behind its residual connections, as BERT does."""
    x = nn.LayerNorm(8)(x)
    query, key, value = (nn.Linear(8, 8)(x) for _ in range(3))
    attention = nn.functional.softmax(query @ key.transpose([0, 2, 1]))
    x = nn.LayerNorm(8)(x + nn.Linear(8, 8)(attention @ value))
    return nn.LayerNorm(8)(x + nn.Linear(16, 8)(nn.functional.gelu(nn.Linear(8, 16)(x))))


def transformer(outlier: float = 1) -> InferenceModel:
    """Return the encoder with weights of both signs, and a channel that is so many times as large as the others."""
    model = build(encoder, TOKENS)
    rng = np.random.default_rng(2)
    for name in model.weight_names():
        values = rng.normal(size=model.shape(name)).astype(np.float32)
        if model.consumers(name)[0].type == "layer_norm":
            values[OUTLIER] *= outlier
        model.set_weight(name, values)
    return model
