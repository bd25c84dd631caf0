"""The network of `same_network.py` as a SavedModel and in TFLite: run by TensorFlow, in a folder with its weights."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"})

import numpy as np
import tensorflow as tf


class Network(tf.Module):
    """The network over pictures with the channels last."""

    def __init__(self, weights: dict[str, Any]) -> None:
        super().__init__()
        self.w = {name: tf.Variable(values) for name, values in weights.items()}

    @tf.function(input_signature=[tf.TensorSpec((None, 16, 16, 3), tf.float32, name="x")])
    def computes(self, x: Any) -> dict[str, Any]:
        w = self.w
        x = tf.nn.conv2d(x, w["first"], 1, "VALID")
        norm = (w["gamma"], w["shift"], w["mean"], w["variance"])
        x = tf.nn.relu(tf.compat.v1.nn.fused_batch_norm(x, *norm, epsilon=1e-3, is_training=False)[0])
        y = tf.nn.depthwise_conv2d(x, w["depth"], (1, 1, 1, 1), "SAME")
        y = tf.nn.relu(tf.nn.bias_add(y, w["depth_bias"]))
        x = tf.nn.relu(x + tf.nn.bias_add(tf.nn.conv2d(y, w["point"], 1, "VALID"), w["point_bias"]))
        return {"y": tf.nn.softmax(tf.matmul(tf.reduce_mean(x, (1, 2)), w["last"]) + w["last_bias"])}


def main(folder: Path) -> None:
    """Write both."""
    stored = np.load(folder / "weights.npz")
    last = {"first": (2, 3, 1, 0), "depth": (2, 3, 0, 1), "point": (2, 3, 1, 0)}
    network = Network({name: stored[name].transpose(last[name]) if name in last else stored[name] for name in stored})
    function = network.computes.get_concrete_function()
    tf.saved_model.save(network, folder / "saved_model", signatures={"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], network)
    (folder / "network.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
