"""The report's part on the model itself, from `analysis.json`, in words. The layout is `analysis.html.j2`."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from act.reporting.wording import NOTHING, TIMES, three_digits
from act.results.analyze import Analysis, Costs, Structure, TypeFusion
from act.results.prepare import Normalisation

# Fields of the results, each with the words for one and for several of what it counts.
_JOINS = {
    "residual_joins": ("residual join", "residual joins"),
    "pyramid_joins": ("join of a feature pyramid", "joins of a feature pyramid"),
    "parallel_joins": ("join of parallel ways", "joins of parallel ways"),
    "gates": ("gate", "gates"),
    "attentions": ("attention", "attentions"),
    "concatenations": ("concatenation", "concatenations"),
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
    "folded_pads": ("padding of zeros folded", "paddings of zeros folded"),
    "pooled_means": ("mean over all positions made a pool", "means over all positions made pools"),
}


def model_parts(analysis: Analysis) -> dict[str, Any]:
    """Return what the page tells of the model beside what stands in the analysis as it is."""
    # By their error in int8, largest first; those that were not measured last.
    layers = sorted(analysis.sensitivity.layers, key=lambda layer: 1.0 if layer.quantized is None else -layer.quantized)
    return {
        "joins": _counted(analysis.structure, _JOINS),
        "parts": _parts(analysis.structure),
        "operators": sorted(analysis.operators, key=lambda operator: -(operator.latency_share or 0.0)),
        "shares": {operator.name: operator.latency_share for operator in analysis.operators},
        "engines": {name: engine for name, engine in analysis.engines.items() if engine.fusion is not None},
        "wrong": [(name, each) for name, engine in analysis.engines.items() for each in engine.wrong_int8],
        "layers": layers,
        "largest": max((layer.quantized or 0.0 for layer in layers), default=0.0),
        "ratios": list(dict.fromkeys(ratio for layer in layers for ratio in layer.pruned)),
        "taken": _counted(analysis.prepared, _TAKEN_AWAY),
    }


def _counted(source: Structure | Normalisation, words: Mapping[str, tuple[str, str]]) -> str:
    """Return how many of each there are, with its noun; what there is none of is left out."""
    found = {key: getattr(source, key) for key in words}
    counts = {key: each if isinstance(each, int) else len(each) for key, each in found.items()}
    return ", ".join(_count(count, *words[key]) for key, count in counts.items() if count)


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
    return f"{count} {one if count == 1 else several}"


def millions(count: int) -> str:
    """Return a count in millions or thousands, as short as can be."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{three_digits(count / unit)} {name}"
    return str(count)
