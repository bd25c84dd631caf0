"""The settings of every job, read from `params.yaml` and checked in full before any work starts.

The default, range and choices of a setting stand in the module of its section and nowhere else. `dvc.yaml` names the
same keys as dependencies.
"""

from act.settings.base import Precision, QuantizableOperator, Settings, ThresholdAlgorithm
from act.settings.data import Data, ModelSource
from act.settings.files import DEFAULT_PATH, REFERENCES, load, load_job, parse, read_mapping, settings_in, validate
from act.settings.job import PRUNING, QUANTIZING, Job, Params, StrategyName
from act.settings.measuring import Analyze, Benchmark, Timing
from act.settings.metric import Metric
from act.settings.prune import ASPPrune, ChannelPrune, GmpConfig, Prune, TransformerPrune, UnstructurePrune
from act.settings.quantization import Calibration, PtqSearch, Refine, RefineMethod, WeightQuantization
from act.settings.target import CLEARLY, ROUNDING, Budget, EngineName, Target
from act.settings.training import Distillation, DistillationLoss, OptimizerName, Qat, Schedule, TrainConfig

# fmt: off
__all__ = [
    "Analyze", "ASPPrune", "Benchmark", "Budget", "Calibration", "ChannelPrune", "CLEARLY", "Data", "DEFAULT_PATH",
    "Distillation", "DistillationLoss", "EngineName", "GmpConfig", "Job", "load", "load_job", "Metric", "ModelSource",
    "OptimizerName", "Params", "parse", "Precision", "Prune", "PRUNING", "QUANTIZING", "PtqSearch", "Qat",
    "QuantizableOperator", "read_mapping", "REFERENCES", "Refine", "RefineMethod", "ROUNDING", "Schedule", "Settings",
    "settings_in", "StrategyName", "Target", "ThresholdAlgorithm", "Timing", "TrainConfig", "TransformerPrune",
    "UnstructurePrune", "validate", "WeightQuantization",
]
# fmt: on
