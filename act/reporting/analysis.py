"""The report's part on the model itself, from `analysis.json`, in words. The layout is `analysis.html.j2`."""

import itertools
from collections.abc import Sequence
from typing import Any

from act.reporting.wording import NOTHING, TIMES, size, three_digits
from act.results.analyze import Analysis, Costs, EngineAnalysis, Fusion, Structure, TypeFusion

_KINDS = {
    "cnn": "A convolutional network",
    "transformer": "A transformer",
    "recurrent": "A recurrent network",
    "mixed": "A mixed network: convolutions, attention or recurrence beside each other",
    "dense": "A network of matrix products",
    "other": "A network without layers",
}
# Fields of the results, each with the words for one and for several of what it counts.
_JOINS = {
    "residual_joins": ("residual join", "residual joins"),
    "pyramid_joins": ("join of a feature pyramid", "joins of a feature pyramid"),
    "parallel_joins": ("join of parallel ways", "joins of parallel ways"),
    "gates": ("gate", "gates"),
    "attentions": ("attention", "attentions"),
}
_TAKEN_AWAY = {
    "folded_batch_norms": ("batch norm folded", "batch norms folded"),
    "removed_identities": ("identity removed", "identities removed"),
    "folded_reshapes": ("reshape of a weight folded", "reshapes of weights folded"),
    "transposed_weights": ("weight stored transposed", "weights stored transposed"),
    "folded_scalars": (
        "multiplication by or addition of one number folded",
        "multiplications by and additions of one number folded",
    ),
}
_SHOWN_HELPERS = 4


def model_parts(analysis: Analysis) -> dict[str, Any]:
    """Return what the page tells of the model beside what stands in the analysis as it is."""
    # By their error in int8, largest first; those that were not measured last.
    layers = sorted(analysis.sensitivity.layers, key=lambda layer: 1.0 if layer.quantized is None else -layer.quantized)
    taken = [_count(getattr(analysis.prepared, key), *words) for key, words in _TAKEN_AWAY.items()]
    return {
        "summary": _summary(analysis),
        "parts": _parts(analysis.structure),
        "operators": sorted(analysis.operators, key=lambda operator: -(operator.latency_share or 0.0)),
        "shares": {operator.name: operator.latency_share for operator in analysis.operators},
        "engines": {name: engine for name, engine in analysis.engines.items() if engine.fusion is not None},
        "layers": layers,
        "largest": max((layer.quantized or 0.0 for layer in layers), default=0.0),
        "ratios": list(dict.fromkeys(ratio for layer in layers for ratio in layer.pruned)),
        "taken": ", ".join(filter(None, taken)),
    }


def _summary(analysis: Analysis) -> str:
    structure, memory = analysis.structure, analysis.memory
    shapes = [TIMES.join(map(str, shape)) for shape in analysis.sample_shapes.values()]
    counted = [_count(len(getattr(structure, key)), *words) for key, words in _JOINS.items()]
    counted.append(_count(structure.concatenations, "concatenation", "concatenations"))
    joins = ", ".join(filter(None, counted))
    told = (
        f"{_KINDS[structure.kind]}; {len(analysis.operators)} operators, {millions(analysis.parameters)} "
        f"parameters and {millions(analysis.macs)} MACs for one sample of {', '.join(shapes)}. "
    )
    if joins:
        told += f"In it: {joins}. "
    where = f", at {memory.peak_at}" if memory.peak_at else ""
    told += (
        f"Its activations take {size(memory.total_bytes)} all together and {size(memory.peak_bytes)} at the same "
        f"time{where}, in fp32 with nothing fused."
    )
    dynamic = [f"{', '.join(map(str, axes))} of {name}" for name, axes in analysis.dynamic_axes.items() if axes]
    return told + (f" Axes of any length: {'; '.join(dynamic)}." if dynamic else "")


def _parts(structure: Structure) -> list[tuple[str, str, Costs]]:
    """Return backbone, its blocks, heads: each with its name, what it is, and what it holds."""
    rows: list[tuple[str, str, Costs]] = [("Backbone", "all that is in no head", structure.backbone)]
    for group in structure.blocks:
        rows.append(("", f"{_count(group.count, 'block', 'blocks')} of {', '.join(_gathered(group.layers))}", group))
    for head in structure.heads:
        rows.append(("Head", f"of {head.output}, {head.gives}: {', '.join(_gathered(head.types))}", head))
    return rows


def _gathered(words: Sequence[str]) -> list[str]:
    """Join the same words one after another into one, with their number."""
    found = [(word, len(list(same))) for word, same in itertools.groupby(words)]
    return [word if count == 1 else f"{count} {TIMES} {word}" for word, count in found]


def helper_kernels(fusion: Fusion) -> str:
    """Return the kernels that stand for no operator, by kind."""
    counts = list(fusion.helpers.items())
    words = [f"{count} {kind}" for kind, count in counts[:_SHOWN_HELPERS]]
    if more := sum(count for _, count in counts[_SHOWN_HELPERS:]):
        words.append(f"{more} others")
    return ", ".join(words) or NOTHING


def multiplying(engine: EngineAnalysis) -> str:
    """Tell for each precision that is asked for in which an engine multiplies matrices."""
    told = {
        wanted: ", ".join(f"{count} in {precision}" for precision, count in counts.items())
        for wanted, counts in engine.multiplying.items()
    }
    return "; ".join(f"{wanted}: {words}" for wanted, words in told.items() if words) or NOTHING


def whereabouts(row: TypeFusion) -> str:
    """Tell where the operators of a type went on one engine."""
    words = [f"{count} {kind}" for kind, count in row.own_kinds.items()]
    words += [f"{count} into {kind}" for kind, count in row.into.items()]
    if row.beforehand:
        words.append(f"{row.beforehand} beforehand")
    return ", ".join(words) or NOTHING


def error(value: float | None) -> str:
    """Return how far outputs moved; nothing that can be seen is 0."""
    if value is None:
        return NOTHING
    return three_digits(value) if value > 1e-6 else "0"


def _count(count: int, one: str, several: str) -> str:
    """Return a number with its noun; nothing for none."""
    return f"{count} {one if count == 1 else several}" if count else ""


def millions(count: int) -> str:
    """Return a count in millions or thousands, as short as can be."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{three_digits(count / unit)} {name}"
    return str(count)
