"""`analysis.json`: what the model is made of, and what that costs on this machine."""

from pydantic import Field

from act.results.artifact import Artifact, Part
from act.results.machine import Machine
from act.results.prepare import Normalisation, Tensor


class Operator(Part):
    name: str  # its first output
    type: str
    shape: list[int]  # of that output for one sample, batch axis first
    weights: list[list[int]]  # the shape of each of its weights
    parameters: int  # values in its weights; a shared weight counts for each operator
    macs: int  # for one sample
    quantizable: bool
    latency_share: float | None  # of the whole latency, in [0, 1]; None where it was not told apart


class TypeCount(Part):
    type: str
    count: int
    parameters: int
    macs: int


class Costs(Part):
    operators: int
    layer_count: int
    parameters: int
    macs: int


class BackboneStage(Part):
    """The layers whose outputs have one size: height and width, or length."""

    size: list[int]
    layers: int
    channels: int
    macs: int


class Backbone(Costs):
    """All that is in no head."""

    stages: list[BackboneStage]


class Blocks(Costs):
    """Like blocks of layers, one behind the other."""

    layers: list[str]
    count: int
    residual: bool
    first: str
    last: str


class Head(Costs):
    """What leads to one output alone, and what that output is."""

    output: str
    gives: str
    types: list[str]


class Structure(Part):
    """The architecture; joins, gates and attentions by the name of their operator."""

    kind: str
    backbone: Backbone
    blocks: list[Blocks]
    residual_joins: list[str]
    pyramid_joins: list[str]
    parallel_joins: list[str]
    gates: list[str]
    concatenations: int
    attentions: list[str]
    heads: list[Head]


class AliveTensor(Part):
    name: str
    bytes: int


class Memory(Part):
    """Memory of the activations in fp32 with nothing fused: of all, and the most at the same time."""

    total_bytes: int
    peak_bytes: int
    peak_at: str
    alive_at_peak: list[AliveTensor]


class Foldable(Part):
    """An operator or a weight that the model could do without, and why."""

    kind: str
    name: str
    type: str
    why: str


class LayerErrors(Part):
    """How far the outputs move when one layer alone is quantized, or loses a share of its channels."""

    name: str
    type: str
    channels: int
    quantized: float | None  # None where it was not measured
    pruned: dict[str, float | None]  # by share; None likewise
    why: str  # what is missing, and why; empty where nothing is


class Sensitivity(Part):
    """What was measured of the layers, most MACs first; `why` tells why there is nothing, or not all."""

    measure: str = "root of the outputs' mean squared error as a share of their variance, part by part"
    samples: int = 0
    seconds: float = 0.0
    why: str = ""
    layers: list[LayerErrors] = Field(default_factory=list)


class KernelCount(Part):
    kind: str
    precision: str
    count: int


class TypeFusion(Part):
    """Where the operators of one type went."""

    type: str
    count: int
    own: int  # how many have a kernel of their own
    own_kinds: dict[str, int]  # those kernels by kind
    into: dict[str, int]  # kernels that others vanished into, by kind
    beforehand: int  # computed as the model is loaded, or by no kernel at all


class Fusion(Part):
    """What an engine made of the program; helpers are kernels that stand for no operator."""

    operators: int
    kernels: int
    kinds: list[KernelCount]
    helpers: dict[str, int]
    types: list[TypeFusion]


class WrongKernel(Part):
    """A kind of layer that an engine computes wrongly in int8."""

    kind: str  # the layer that showed it
    cause: str
    layers: list[str]  # of the model, by name, that are of this kind


class EngineAnalysis(Part):
    version: str | None  # None where it failed
    precisions: list[str]  # that it has here
    multiplying: dict[str, dict[str, int]]  # for each precision asked for, how many kernels multiply in which
    fusion: Fusion | None  # None where it does not tell
    int8_layers: int  # of the layers that it has int8 kernels for, as the next two
    int8_parameters: int
    int8_macs: int
    wrong_int8: list[WrongKernel] = Field(default_factory=list)  # layers that stay in float on it
    failure: str | None = None


class KernelTime(Part):
    kind: str
    count: int
    seconds: float  # in one inference


class Baseline(Part):
    """The latency of the whole model in one precision, or why there is none."""

    seconds: float | None = None
    failure: str | None = None


class Analysis(Artifact):
    inputs: list[Tensor]
    outputs: list[Tensor]
    dynamic_axes: dict[str, list[int]]  # by input, the axes of any length
    sample_shapes: dict[str, list[int]]  # of the sample that shapes were observed with
    parameters: int
    macs: int
    structure: Structure
    census: list[TypeCount]
    memory: Memory
    foldable: list[Foldable]
    prepared: Normalisation
    latency_source: str  # where latency shares come from
    operators: list[Operator]
    # By engine and precision the whole model as it is, int8 with ranges that nothing searched.
    own: dict[str, dict[str, Baseline]] = Field(default_factory=dict)
    sensitivity: Sensitivity
    kernels: list[KernelTime]  # of the fp32 model, slowest kind first
    engines: dict[str, EngineAnalysis]
    no_onnx: str = ""  # why the model has no ONNX form, without which nothing is quantized or pruned
    machine: Machine
