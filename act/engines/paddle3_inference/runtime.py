"""Paddle 3's predictor, in a process under the interpreter of its own environment.

It runs the programs of Paddle 3 as they are (`inference.json`) and those of Paddle 2 (`.pdmodel`), which it translates.
"""

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from act.engines.base import Engine, Runner, RuntimePrecision
from act.environments import PADDLE3
from act.machine import BF16_FLAGS, cpu_flags
from act.samples.dataset import Array

_CACHED_SHAPES = 16
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
        self._configure = partial(self._configured, path, precision, threads)
        self._create(with_onednn=True)

    def _create(self, with_onednn: bool) -> None:
        config = self._configure(with_onednn)
        self._predictor = self._inference.create_predictor(config)
        self._described = {"onednn": with_onednn, "threads": int(config.cpu_math_library_num_threads())}

    def _configured(self, path: Path, precision: RuntimePrecision, threads: int, with_onednn: bool) -> Any:
        config = self._inference.Config(*map(str, _files(path)))
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
        try:
            return _predict(self._predictor, feeds)
        except NotImplementedError:
            # Paddle 3.3 gives oneDNN's resizing an attribute that it cannot convert; its own kernels run it.
            if not self._described["onednn"]:
                raise
            self._create(with_onednn=False)
            return _predict(self._predictor, feeds)

    def streams(self, count: int) -> list[Runner]:
        return [partial(_predict, self._predictor.clone()) for _ in range(count)]

    def describe(self) -> dict[str, Any]:
        return self._described


def _files(path: Path) -> list[Path]:
    """Return the program of a folder, or the one named, and its weights, if it has any."""
    if path.is_dir():
        program, weights = next(
            ((path / program, path / weights) for program, weights in _NAMES if (path / program).is_file()),
            (path / _NAMES[0][0], path / _NAMES[0][1]),
        )
    else:
        program, weights = path, path.with_suffix(".pdiparams")
    return [program, weights] if weights.is_file() else [program]


def _predict(predictor: Any, feeds: Mapping[str, Array]) -> list[Array]:
    for name in predictor.get_input_names():
        predictor.get_input_handle(name).copy_from_cpu(feeds[name])
    predictor.run()
    return [np.asarray(predictor.get_output_handle(name).copy_to_cpu()) for name in predictor.get_output_names()]
