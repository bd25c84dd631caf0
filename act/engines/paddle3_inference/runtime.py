"""Paddle 3's predictor, in a process under the interpreter of its own environment.

It runs the programs of Paddle 3 as they are (`inference.json`) and those of Paddle 2 (`.pdmodel`), which it translates.
Paddle 3.3 uses oneDNN's kernels beside its own, and where it brings a tensor from one to the other, it gives some
programs wrong numbers (three axes, or an operator that oneDNN does not have). So what oneDNN computes is compared with
Paddle's own kernels on the first inference, and left where it differs.
"""

import importlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from act.engines.base import Engine, Runner, RuntimePrecision
from act.environments import PADDLE3
from act.machine import BF16_FLAGS, cpu_flags
from act.samples.dataset import Array

_CACHED_SHAPES = 16
# Of an output that oneDNN's kernels may differ from Paddle's own, as a share of its largest value.
_LARGEST_DEVIATION = {"fp32": 1e-3, "bf16": 0.1}
# A program and its weights in a folder, in the order in which they are looked for.
_NAMES = (("inference.json", "inference.pdiparams"), ("model.pdmodel", "model.pdiparams"))


class Paddle3Inference(Engine):
    """Paddle 3's predictor with oneDNN kernels."""

    def __init__(self) -> None:
        try:
            self._paddle: Any = importlib.import_module("paddle")
        except ImportError as error:
            raise ImportError(PADDLE3.lacks() or str(error)) from None
        self._inference: Any = importlib.import_module("paddle.inference")

    def version(self) -> str:
        return str(self._paddle.__version__)

    def lacks(self) -> str | None:
        # Without an environment of its own, it is run by ours.
        return None if self.version().startswith("3.") else PADDLE3.lacks()

    def precisions(self) -> tuple[RuntimePrecision, ...]:
        return ("fp32", "bf16") if cpu_flags().intersection(BF16_FLAGS) else ("fp32",)

    def load(self, path: Path, precision: RuntimePrecision, threads: int) -> None:
        self._configure, self._precision = partial(self._configured, path, precision, threads), precision
        self._compared = False
        self._create(with_onednn=True)

    def _create(self, with_onednn: bool) -> None:
        config = self._configure(with_onednn)
        self._predictor = self._inference.create_predictor(config)
        self._described = {"onednn": with_onednn, "threads": int(config.cpu_math_library_num_threads())}

    def _configured(self, path: Path, precision: RuntimePrecision, threads: int, with_onednn: bool) -> Any:
        config = self._inference.Config(*_files(path))
        config.disable_glog_info()
        config.switch_ir_optim(True)
        config.set_cpu_math_library_num_threads(threads)
        config.disable_gpu()
        if not with_onednn:
            config.disable_mkldnn()
            return config
        config.enable_mkldnn()
        config.set_mkldnn_cache_capacity(_CACHED_SHAPES)
        if precision == "bf16":
            config.enable_mkldnn_bfloat16()
        return config

    def run(self, feeds: Mapping[str, Array]) -> list[Array]:
        if self._compared:
            return _predict(self._predictor, feeds)
        self._compared = True
        found: list[Array] | None = None
        # Paddle 3.3 gives oneDNN's resizing an attribute that it cannot convert.
        with suppress(NotImplementedError):
            found = _predict(self._predictor, feeds)
        kept = self._predictor, self._described
        self._create(with_onednn=False)
        wanted = _predict(self._predictor, feeds)
        if found is None or _deviation(found, wanted) > _LARGEST_DEVIATION[self._precision]:
            if self._precision != "fp32":
                raise RuntimeError(f"Paddle 3's {self._precision} kernels do not compute what its fp32 ones do")
            return wanted
        self._predictor, self._described = kept
        return found

    def streams(self, count: int) -> list[Runner]:
        return [partial(_predict, self._predictor.clone()) for _ in range(count)]

    def describe(self) -> dict[str, Any]:
        return self._described


def _files(path: Path) -> tuple[str, str]:
    """Return the program of a folder, or the one named, and its weights; an empty name where it has none.

    With one name alone Paddle takes it for a folder.
    """
    if path.is_dir():
        program, weights = next(
            ((path / program, path / weights) for program, weights in _NAMES if (path / program).is_file()),
            (path / _NAMES[0][0], path / _NAMES[0][1]),
        )
    else:
        program, weights = path, path.with_suffix(".pdiparams")
    return str(program), str(weights) if weights.is_file() else ""


def _predict(predictor: Any, feeds: Mapping[str, Array]) -> list[Array]:
    for name in predictor.get_input_names():
        predictor.get_input_handle(name).copy_from_cpu(feeds[name])
    predictor.run()
    return [np.asarray(predictor.get_output_handle(name).copy_to_cpu()) for name in predictor.get_output_names()]


def _deviation(found: Sequence[Array], wanted: Sequence[Array]) -> float:
    """Return max|a - b| / max|b| of the output of real numbers where that is largest."""
    pairs = [(a, b) for a, b in zip(found, wanted) if b.dtype.kind == "f" and b.size]
    return max((float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12)) for a, b in pairs), default=0.0)
