"""Made-up results of stages: complete, with what a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from act.results.ptq_search import Candidate, TrialSettings
from act.results.select import Strategy


def settings(**changes: Any) -> TrialSettings:
    common: dict[str, Any] = {"ptq_algo": "mse", "hist_percent": None, "batch_num": 4, "activation_symmetric": False}
    common |= {"weight_quantize_type": "channel_wise_abs_max", "bias_correct": True, "float_layers": 0}
    return TrialSettings(**{**common, "quantizable_op_type": ["conv2d"], **changes})


def candidate(name: str, **changes: Any) -> Candidate:
    common: dict[str, Any] = {"id": name, "scheme": f"schemes/{name}.json", "trial": 0, "settings": settings()}
    common |= {"quality": 0.9, "drop": 0.0, "cost": 0.5, "symmetric": False, "layers": 3}
    return Candidate(**{**common, **changes})


def strategy(*names: str, **changes: Any) -> Strategy:
    common: dict[str, Any] = {"strategy": [{"name": name, "why": "a reason"} for name in names], "prune": []}
    common |= {"quantize": False, "search": False, "train": False, "train_always": False, "why": "one sentence"}
    return Strategy(**{**common, **changes})
