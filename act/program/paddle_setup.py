"""The one place that imports Paddle, set up so that it does not crash and gives the same bits every time.

`zlib` and Pillow must be loaded before Paddle, whose own copy of zlib breaks theirs (`inflateReset2`). One thread a
kernel and deterministic kernels make a rerun give the same model files.
"""

import logging
import os
import zlib  # noqa: F401

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GLOG_minloglevel", "2")
os.environ.setdefault("FLAGS_cpu_deterministic", "1")

import paddle
import PIL.Image  # noqa: F401

paddle.enable_static()

# It warns whenever a model's two files are named one by one, which the old names need.
logging.getLogger("paddle.static.io").setLevel(logging.ERROR)

CPU = paddle.CPUPlace()

__all__ = ["CPU", "paddle"]
