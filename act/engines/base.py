"""The interface of inference engines: each is used by one worker process for one model, and measures nothing itself."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

from act.samples.dataset import Array

# How a model runs, not how it is stored: `bf16` runs fp32 files in bfloat16, `int8+bf16` runs a quantized file with
# bfloat16 for whatever is not quantized.
RuntimePrecision = Literal["fp32", "bf16", "fp16", "int8", "int8+bf16"]

Runner = Callable[[Mapping[str, Array]], list[Array]]


class ExecutedKernel(NamedTuple):
    """A kernel of a loaded model: the engine's name of it, and the tensors of the file that it stands for."""

    kind: str
    precision: str  # int8, bf16, fp16 or fp32
    names: list[str]


class Engine(ABC):
    """One inference engine on one device."""

    offered: ClassVar[tuple[RuntimePrecision, ...]] = ("fp32",)
    multiplying: ClassVar[Collection[str]] = ()  # the kinds of kernels that multiply matrices
    conversions: ClassVar[Collection[str]] = ()  # those that only quantize or dequantize

    @abstractmethod
    def version(self) -> str:
        """Return the version of the engine's library."""

    def lacks(self) -> str | None:
        """Return what this machine or the engine's build lacks to run at all, with the cure; None where nothing is."""
        return None

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        """Return what this engine can run on this machine, found out where CPUs differ."""
        return self.offered

    @abstractmethod
    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        """Make a model, a `.onnx` file or a folder with Paddle's two, ready to run in one of `precisions()`.

        One inference may use so many threads.
        """

    def load_unoptimised(self, path: Path, threads: int) -> None:
        """Load a model in fp32 without what the library does to make it faster, where that can be left out."""
        self.load(path, "fp32", threads)

    @abstractmethod
    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        """Run one inference; NumPy in, NumPy out, so that every engine pays for the same copies.

        Feeds are C-contiguous; the outputs come in order, owned by the caller. The batch axis is first in both.
        """

    def streams(self, count: int) -> list[Runner]:
        """Return `count` ways to `run` the loaded model at the same time, each from a thread of its own.

        Each inference uses as many threads as `load` was told; empty where the engine cannot do this.
        """
        return []

    def profile(self, feeds: Mapping[str, Array], runs: int) -> list[dict[str, Any]]:
        """Measure the time that each kernel of the loaded model takes, in the order in which they run.

        Returns:
            For each kernel `kind`, the `precision` that it runs in, `makes` (the precision of its output, where that
            may be another), `shape` of its output, `seconds` (mean over the quicker half of the runs), `inputs`
            (`shape` and `precision` of each activation), `weights` (the shapes of constants, without single values),
            `operators` (the ONNX types that it was made of, in order), `attributes` (of the ONNX operators: `group`,
            `strides`, `kernel_shape`, where they have them; and `channels_last` and `blocked`) and, where it tells,
            `names` (as `kernels` gives them); empty where the engine does not tell.
        """
        return []

    def kernels(self) -> list[ExecutedKernel]:
        """Return every kernel, where the engine tells; may load the model once more.

        ONNX nodes must bear the name of their first output.
        """
        return []

    def operators(self) -> dict[str, dict[str, Any]]:
        """Count the kernels, as `count` does; may load the model once more."""
        return self.count(self.kernels())

    @classmethod
    def count(cls, kernels: Iterable[ExecutedKernel]) -> dict[str, dict[str, Any]]:
        """Return for each precision how many kernels of each kind multiply, and how many of each only convert."""
        multiplying: dict[str, Counter[str]] = {}
        conversions: Counter[str] = Counter()
        for kind, precision, _ in kernels:
            if kind in cls.multiplying:
                multiplying.setdefault(precision, Counter())[kind] += 1
            elif kind in cls.conversions:
                conversions[kind] += 1
        return {
            "multiplying": {precision: dict(kinds.most_common()) for precision, kinds in multiplying.items()},
            "conversions": dict(conversions.most_common()),
        }

    def describe(self) -> dict[str, Any]:
        """Return what the engine says it did with the loaded model: plain JSON values."""
        return {}
