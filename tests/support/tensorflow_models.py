"""Small models in TensorFlow's, Keras's and TFLite's forms, some of them hostile: run by TensorFlow's own Python."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path
from typing import Any

os.environ.update({"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"})

import h5py
import keras
import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def network(library: Any) -> Any:
    """Make a model of two inputs and two outputs, whose names are not in the alphabet's order."""
    layers = library.layers
    picture, extra = library.Input((8, 8, 3), name="picture"), library.Input((4,), name="extra")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(picture)
    x = layers.BatchNormalization(moving_mean_initializer="ones", beta_initializer="ones")(x)
    x = layers.ReLU(6.0)(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Concatenate()([x, extra])
    scores = layers.Dense(5, activation="softmax", name="scores")(x)
    return library.Model([picture, extra], [scores, layers.Dense(2, name="angle")(x)])


def chain(library: Any, *added: Any) -> Any:
    """Make a model of one input and one output with layers of the caller's in the end."""
    dense = library.layers.Dense(4, activation="relu")
    return library.Sequential([library.Input((6,), name="x"), dense, *added])


class Module(tf.Module):
    """Functions for SavedModels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = tf.Variable(tf.random.stateless_normal((6, 4), (1, 2)))

    @tf.function(input_signature=[tf.TensorSpec((None, 6), tf.float32, name="x")])
    def computes(self, x: Any) -> dict[str, Any]:
        return {"y": tf.nn.relu(x @ self.weight)}


class Python(tf.Module):
    """A function that calls Python."""

    @tf.function(input_signature=[tf.TensorSpec((None, 6), tf.float32, name="x")])
    def computes(self, x: Any) -> dict[str, Any]:
        y = tf.py_function(lambda value: value.numpy() * 2, [x], tf.float32)
        return {"y": tf.ensure_shape(y, (None, 6))}


def frozen(model: Any) -> Any:
    """Return the graph of a model of one input, its variables as constants, with ends called `x` and `y`."""

    @tf.function(input_signature=[tf.TensorSpec((None, 6), tf.float32, name="x")])
    def call(x: Any) -> Any:
        return tf.identity(model(x, training=False), name="y")

    return convert_variables_to_constants_v2(call.get_concrete_function()).graph.as_graph_def()


def quantized(model: Any) -> bytes:
    """Return a model as TFLite in int8."""
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([np.ones((1, 6), np.float32)] for _ in range(2))
    result: bytes = converter.convert()
    return result


def good(folder: Path) -> None:
    """Write the forms that are taken."""
    keras.utils.set_random_seed(1)
    three, two = network(keras), network(tf_keras)
    three.save(folder / "three.keras")
    three.save(folder / "three.h5")
    two.save(folder / "two.keras")
    two.save(folder / "two.h5")
    three.export(folder / "exported", verbose=False)
    (folder / "network.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(two).convert())
    simple = chain(keras, keras.layers.Dense(3))
    (folder / "graph.pb").write_bytes(frozen(simple).SerializeToString())
    module = Module()
    tf.saved_model.save(module, folder / "plain", signatures={"only": module.computes})
    weight = module.weight.numpy()
    alone = tf.function(lambda x: tf.nn.relu(x @ tf.constant(weight)))
    tf.saved_model.save(alone.get_concrete_function(tf.TensorSpec((None, 6), name="x")), folder / "function")
    fixed = tf_keras.Sequential([tf_keras.Input((6,), 1), tf_keras.layers.Dense(4)])
    (folder / "fixed.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(fixed).convert())


def bad(folder: Path) -> None:
    """Write the forms that are refused."""
    module, simple = Module(), chain(keras)
    both = {"one": module.computes, "two": module.computes}
    tf.saved_model.save(module, folder / "signatures", signatures=both)
    unsigned = tf.Module()
    unsigned.weight = tf.Variable([1.0])
    tf.saved_model.save(unsigned, folder / "unsigned")
    python = Python()
    tf.saved_model.save(python, folder / "python", signatures={"serving_default": python.computes})
    for name in ("lambda.keras", "lambda.h5"):
        chain(keras, keras.layers.Lambda(lambda x: x * 2)).save(folder / name)
    chain(tf_keras, tf_keras.layers.Lambda(lambda x: x * 2)).save(folder / "lambda_two.h5")
    simple.save_weights(folder / "alone.weights.h5")
    (folder / "int8.tflite").write_bytes(quantized(chain(tf_keras)))
    whole = tf.lite.TFLiteConverter.from_keras_model(chain(tf_keras)).convert()
    (folder / "cut.tflite").write_bytes(whole[: len(whole) // 2])
    offsets = bytearray(whole)
    offsets[0:4] = b"\xff\xff\xff\x7f"
    (folder / "offsets.tflite").write_bytes(offsets)
    graph = frozen(simple).SerializeToString()
    (folder / "cut.pb").write_bytes(graph[:-7])
    simple.save(folder / "linked.h5")
    with h5py.File(folder / "linked.h5", "a") as file:
        file["model_weights/elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
    simple.save(folder / "bomb.keras")
    with zipfile.ZipFile(folder / "bomb.keras", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(200 * 2**20))
    simple.save(folder / "foreign.h5")
    with h5py.File(folder / "foreign.h5", "a") as file:
        text = file.attrs["model_config"].replace('"module": "keras"', '"module": "os"')
        file.attrs["model_config"] = text
    simple.save(folder / "huge.h5")
    with h5py.File(folder / "huge.h5", "a") as file:
        file.attrs["model_config"] = file.attrs["model_config"].replace('"units": 4', '"units": 4000000000000')


if __name__ == "__main__":
    good(Path(sys.argv[1]))
    bad(Path(sys.argv[1]))
