"""The machine: the CPU with its int8 and bf16 instructions, memory, and the versions that matter."""

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from act import registry

# Linux's names of the instruction sets that decide which precisions are fast.
CAPABILITIES = {
    "avx512_vnni": "AVX512-VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
}
INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8")
BF16_FLAGS = ("avx512_bf16", "amx_bf16")
PACKAGES = ("paddlepaddle", "paddleslim", "paddle2onnx", "onnx", "numpy", "scikit-learn", "prefect", "dvc")


def cpu_flags() -> frozenset[str]:
    """Return the instruction-set flags of this CPU as Linux names them; empty where it does not tell."""
    return frozenset(_cpuinfo("flags").split())


def int8_sums_saturate() -> bool:
    """Tell whether this CPU adds int8 products in 16 bits, where two large ones overflow: x86 without these flags."""
    return platform.machine().lower() in ("x86_64", "amd64") and cpu_flags().isdisjoint(INT8_FLAGS)


def memory_bytes() -> int:
    """Return the machine's physical memory."""
    return int(psutil.virtual_memory().total)


def describe() -> dict[str, Any]:
    """Return CPU, cores, memory in bytes, system and package versions, as plain JSON values."""
    return {**identity(), "memory_bytes": memory_bytes(), "system": f"{platform.system()} {platform.release()}"}


def identity() -> dict[str, Any]:
    """Return what a timing depends on, as plain JSON values: the same until hardware or versions change."""
    flags = cpu_flags()
    return {
        "cpu": _cpuinfo("model name") or platform.machine(),
        "cores": os.cpu_count(),
        "capabilities": [flag for flag in CAPABILITIES if flag in flags],
        "python": platform.python_version(),
        "packages": _versions(),
    }


def _cpuinfo(key: str) -> str:
    """Return what Linux says of the first core; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")


def _versions() -> dict[str, str]:
    """Return the versions of the distributions that matter and are there, those of the engines last."""
    engines = [module.SPEC for module in registry.ENGINES.load_all().values()]
    found = {}
    for name in (*PACKAGES, *(package for spec in engines for package in spec.packages)):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
