"""A BERT-like encoder, trained here on MNIST's rows as words, with fewer heads and less width, and in int8.

28 rows of 28 pixels are a sequence of 28 vectors; two layers with eight heads. `TransformerPrune` and its training see
4,096 training images without their labels; what is kept is chosen by 2,000 others; all is judged by the test images.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from act.program.paddle_setup import paddle
from benchmarks import mobilenet
from benchmarks.training import jobs

ROWS, PIXELS, CLASSES = 28, 28, 10
WIDTH, HEADS, FEED_FORWARD, LAYERS = 128, 8, 512, 2
EPOCHS, BATCH, RATE, SEED = 1, 64, 1e-3, 0
UNLABELLED, SEEN = 4096, 2000
LEAST_ACCURACY, LARGEST_LOSS = 0.95, 0.01
RATIO = 0.5
TRAINING = {"epochs": 10, "batch_size": 64, "learning_rate": 5e-4, "transformer": {"pruned_ratio": RATIO}}
INT8 = ["HyperParameterOptimization", "QuantPost"]

Rows = npt.NDArray[np.float32]


class Encoder(paddle.nn.Layer):
    """Rows [N, rows, pixels] in, logits [N, classes] out, by way of the first place, as BERT does it.

    Args:
        rows: length of the sequence.
        pixels: values of each of its vectors.
        width: of the encoder.
        heads: of its attention.
        feed_forward: width of its feed-forward layers.
        layers: how many.
        classes: that are told apart.
    """

    def __init__(
        self, rows: int, pixels: int, width: int, heads: int, feed_forward: int, layers: int, classes: int
    ) -> None:
        super().__init__()
        self.embed = paddle.nn.Linear(pixels, width)
        self.position = self.create_parameter([1, rows, width])
        self.norm = paddle.nn.LayerNorm(width)
        layer = paddle.nn.TransformerEncoderLayer(width, heads, feed_forward, dropout=0.0, activation="gelu")
        self.encoder = paddle.nn.TransformerEncoder(layer, layers)
        self.pooler = paddle.nn.Linear(width, width)
        self.head = paddle.nn.Linear(width, classes)

    def forward(self, x: Any) -> Any:
        """Return the logits."""
        found = self.encoder(self.norm(self.embed(x) + self.position))
        return self.head(paddle.tanh(self.pooler(found[:, 0])))


def compare(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Return all results, and the figures that were not reached."""
    with tempfile.TemporaryDirectory() as name:
        train, test = mobilenet.read_digits(mobilenet.fetch(Path(name)))
    trained = len(train.labels) - mobilenet.KEPT_FROM_TRAINING
    rows = _rows(train)
    (folder / "model").mkdir()
    _train(rows[:trained], train.labels[:trained], folder / "model")
    kept = slice(trained, trained + SEEN)
    _save(folder / "search", rows[:UNLABELLED], rows[kept], train.labels[kept])
    _save(folder / "test", rows[:8], _rows(test), test.labels)
    job: dict[str, Any] = {"metric": "top1", "model": folder / "model", "data": folder / "search"}
    search: dict[str, Any] = {
        "ptq_search": {"max_quant_count": 8},
        "refine": {"candidates": 0},
        "calibration": {"batch_num": [8]},
    }
    every = {
        "int8": jobs.settings(**job, **search, strategy=INT8),
        "pruned": jobs.settings(**job, **search, strategy=["TransformerPrune", *INT8], prune=dict(TRAINING)),
        "test": jobs.settings(metric="top1", model=folder / "model", data=folder / "test"),
    }
    jobs.write(folder, every)
    jobs.run(folder, "test", ("prepare",))
    models: dict[str, jobs.Model] = {}
    for name in ("int8", "pruned"):
        jobs.run(folder, name)
        for candidate, (path, precision) in jobs.exported(folder, name).items():
            if candidate == "fp32":
                models.setdefault("fp32", jobs.Model(path, "fp32"))
                models.setdefault("bf16", jobs.Model(path, "bf16"))
            elif precision == "fp32":
                models["pruned"] = jobs.Model(path, "fp32")
                models["pruned bf16"] = jobs.Model(path, "bf16")
            else:
                models[candidate if name == "int8" else f"pruned {candidate}"] = jobs.Model(path, "int8")
    jobs.measure(models, folder / "artifacts" / "test" / "prepare" / "evaluation", "top1")
    found = jobs.figures(models, "fp32")
    print(f"\n{jobs.table(found)}")
    return {"models": found, "pruning": jobs.told(folder, "pruned")}, misses(found)


def misses(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return every figure that was not reached, in words."""
    missed = []
    if found["fp32"]["quality"] < LEAST_ACCURACY:
        missed.append(f"the encoder tells {found['fp32']['quality']:.4f} of the images, {LEAST_ACCURACY} are wanted")
    pruned = found["pruned"]
    if pruned["loss"]["value"] > LARGEST_LOSS:
        missed.append(f"with fewer heads and less width {pruned['loss']['value']:.4f} is lost, {LARGEST_LOSS} allowed")
    if pruned["times_fp32"]["low"] <= 1:
        missed.append(f"with fewer heads and less width {pruned['times_fp32']['value']:.2f} times as fast as fp32")
    int8 = [entry["loss"]["value"] for name, entry in found.items() if name.startswith("pruned int8")]
    if not int8:
        missed.append("the search gave no int8 model of the pruned encoder")
    elif min(int8) > LARGEST_LOSS:
        missed.append(f"pruned and in int8 {min(int8):.4f} is lost at least, {LARGEST_LOSS} allowed")
    return missed


def _rows(digits: mobilenet.Digits) -> Rows:
    """Return images as rows, float32 [count, rows, pixels] in [-1, 1]."""
    return (digits.pictures.astype(np.float32) / 255 - 0.5) / 0.5


def _save(folder: Path, calibration: Rows, evaluation: Rows, labels: mobilenet.Labels) -> None:
    folder.mkdir()
    np.savez(folder / "calibration.npz", x=calibration)
    np.savez(folder / "evaluation.npz", x=evaluation, label=labels)


def _train(rows: Rows, labels: mobilenet.Labels, folder: Path) -> None:
    """Train, and save an inference model."""
    paddle.disable_static()
    try:
        paddle.seed(SEED)
        network = Encoder(ROWS, PIXELS, WIDTH, HEADS, FEED_FORWARD, LAYERS, CLASSES)
        each = len(labels) // BATCH
        steps = EPOCHS * each
        rate = paddle.optimizer.lr.LambdaDecay(RATE, lambda number: mobilenet.rate_share(min(1.0, number / steps)))
        optimizer = paddle.optimizer.AdamW(rate, parameters=network.parameters(), weight_decay=0.01)
        generator = np.random.default_rng(SEED)
        for number in range(steps):
            if number % each == 0:
                order = generator.permutation(len(labels))
            chosen = order[number % each * BATCH :][:BATCH]
            logits = network(paddle.to_tensor(rows[chosen]))
            loss = paddle.nn.functional.cross_entropy(logits, paddle.to_tensor(labels[chosen]))
            loss.backward()
            optimizer.step()
            optimizer.clear_grad()
            rate.step()
            if number % 50 == 0:
                print(f"  step {number} of {steps}, loss {float(loss):.3f}", flush=True)
        network.eval()
        spec = paddle.static.InputSpec([None, ROWS, PIXELS], "float32", "x")
        paddle.jit.save(network, str(folder / "model"), input_spec=[spec])
    finally:
        paddle.enable_static()
