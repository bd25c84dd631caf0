"""The settings of every job, read from `params.yaml` and checked in full before any work starts.

A module for each section; the default, the range and the choices of a setting stand there and nowhere else. `dvc.yaml`
names the same keys as dependencies.
"""

from __future__ import annotations

from act.settings.analyze import Analyze
from act.settings.base import Metric, Precision, QuantizableOperator, Settings, ThresholdAlgorithm
from act.settings.benchmark import Benchmark, Timing
from act.settings.budget import CLEARLY, ROUNDING, Budget
from act.settings.calibration import Calibration
from act.settings.data import Data
from act.settings.distillation import Distillation, DistillationLoss
from act.settings.files import DEFAULT_PATH, load, load_job, read_mapping, settings_in, validate
from act.settings.job import PRUNING, QUANTIZING, Job, Params, StrategyName
from act.settings.model import ModelSource
from act.settings.prune import ASPPrune, ChannelPrune, GmpConfig, Prune, TransformerPrune, UnstructurePrune
from act.settings.ptq_search import PtqSearch, WeightQuantization
from act.settings.qat import Qat
from act.settings.refine import Refine, RefineMethod
from act.settings.target import EngineName, Target
from act.settings.training import OptimizerName, Schedule, TrainConfig

# fmt: off
__all__ = [
    "Analyze", "ASPPrune", "Benchmark", "Budget", "Calibration", "ChannelPrune", "CLEARLY", "Data", "DEFAULT_PATH",
    "Distillation", "DistillationLoss", "EngineName", "GmpConfig", "Job", "load", "load_job", "Metric", "ModelSource",
    "OptimizerName", "Params", "Precision", "Prune", "PRUNING", "QUANTIZING", "PtqSearch", "Qat",
    "QuantizableOperator", "read_mapping", "Refine", "RefineMethod", "ROUNDING", "Schedule", "Settings", "settings_in",
    "StrategyName", "Target", "ThresholdAlgorithm", "Timing", "TrainConfig", "TransformerPrune", "UnstructurePrune",
    "validate", "WeightQuantization",
]
# fmt: on
