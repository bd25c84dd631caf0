"""Configurations of PaddleSlim's ACT, translated into a job of `params.yaml`."""

from __future__ import annotations

from act.act_config.translate import Translation, merged, read, refuse_lagging, translate

__all__ = ["Translation", "merged", "read", "refuse_lagging", "translate"]
