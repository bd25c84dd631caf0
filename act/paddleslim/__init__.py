"""Configurations of PaddleSlim's ACT, translated into a job of `params.yaml`."""

from __future__ import annotations

from act.paddleslim.translate import (
    OWN_SECTION,
    Translation,
    hardware_advice,
    merged,
    read,
    refuse_lagging,
    timed_shapes,
    translate,
)

__all__ = [
    "OWN_SECTION",
    "Translation",
    "hardware_advice",
    "timed_shapes",
    "merged",
    "read",
    "refuse_lagging",
    "translate",
]
