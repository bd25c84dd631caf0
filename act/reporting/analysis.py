"""The report's part on the model itself, from `analysis.json`: every figure as the words that stand on the page.

The layout is `analysis.html.j2`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from act.engines.spec import title_of
from act.reporting import charts
from act.reporting.wording import NOTHING, TIMES, size, three_digits
from act.results.analyze import (
    Analysis,
    Costs,
    EngineAnalysis,
    Fusion,
    Operator,
    Structure,
    TypeCount,
    TypeFusion,
)

_KINDS = {
    "cnn": "A convolutional network",
    "transformer": "A transformer",
    "recurrent": "A recurrent network",
    "mixed": "A mixed network: convolutions, attention or recurrence beside each other",
    "dense": "A network of matrix products",
    "other": "A network without layers",
}
_JOINS = (
    ("residual_joins", "residual join"),
    ("pyramid_joins", "join of a feature pyramid"),
    ("parallel_joins", "join of parallel ways"),
    ("gates", "gate"),
    ("attentions", "attention"),
)
_TAKEN_AWAY = {
    "folded_batch_norms": "batch norm folded",
    "removed_identities": "identity removed",
    "folded_reshapes": "reshape of a weight folded",
    "transposed_weights": "weight stored transposed",
    "folded_scalars": "multiplication by or addition of one number folded",
}
_PLURALS = {
    "batch norm folded": "batch norms folded",
    "identity removed": "identities removed",
    "reshape of a weight folded": "reshapes of weights folded",
    "weight turned for good": "weights turned for good",
    "multiplication by or addition of one number folded": "multiplications by and additions of one number folded",
    "join of a feature pyramid": "joins of a feature pyramid",
    "join of parallel ways": "joins of parallel ways",
}
_SHOWN_TYPES = 12
_SHOWN_LAYERS = 12
_SHOWN_HELPERS = 4
_SHOWN_OPERATORS = 15


def model_parts(analysis: Analysis) -> dict[str, Any]:
    """Return what the page tells of the model."""
    return {
        "summary": _summary(analysis),
        "parts": _parts(analysis),
        "stages": _stages(analysis.structure),
        "census": _census(analysis.census),
        "fusion": _fusion(analysis.engines),
        "sensitivity": _sensitivity(analysis),
        "foldable": _foldable(analysis),
    }


def operators_table(operators: Sequence[Operator]) -> dict[str, Any]:
    """Return the operators that cost most."""
    ranked = sorted(operators, key=lambda operator: -(operator.latency_share or 0.0))
    largest = ranked[0].latency_share or 0.0
    shown = ranked[:_SHOWN_OPERATORS]
    return {
        "rows": [
            {
                "name": operator.name,
                "type": operator.type,
                "parameters": _spaced(operator.parameters),
                "macs": _spaced(operator.macs),
                "quantizable": "yes" if operator.quantizable else "no",
                "share": _with_bar(operator.latency_share, largest),
            }
            for operator in shown
        ],
        "shown": len(shown),
        "total": len(operators),
    }


def _spaced(count: int) -> str:
    return f"{count:,}".replace(",", " ")


def _with_bar(share: float | None, largest: float) -> Markup | str:
    if share is None or largest <= 0:
        return NOTHING
    return charts.share_bar(share / largest) + Markup(" {:.1%}").format(share)


def _summary(analysis: Analysis) -> str:
    structure, memory = analysis.structure, analysis.memory
    shapes = [TIMES.join(map(str, shape)) for shape in analysis.sample_shapes.values()]
    counts = {key: len(getattr(structure, key)) for key, _ in _JOINS}
    joins = [_count(counts[key], words) for key, words in _JOINS if counts[key]]
    if structure.concatenations:
        joins.append(_count(structure.concatenations, "concatenation"))
    told = (
        f"{_KINDS[structure.kind]}; {len(analysis.operators)} operators, {_millions(analysis.parameters)} "
        f"parameters and {_millions(analysis.macs)} MACs for one sample of {', '.join(shapes)}. "
    )
    if joins:
        told += f"In it: {', '.join(joins)}. "
    where = f", at {memory.peak_at}" if memory.peak_at else ""
    told += (
        f"Its activations take {size(memory.total_bytes)} all together and {size(memory.peak_bytes)} at the same "
        f"time{where}, in fp32 with nothing fused."
    )
    dynamic = [f"{', '.join(map(str, axes))} of {name}" for name, axes in analysis.dynamic_axes.items() if axes]
    return told + (f" Axes of any length: {'; '.join(dynamic)}." if dynamic else "")


def _parts(analysis: Analysis) -> list[dict[str, Any]]:
    """Return backbone, its blocks, heads: each with what it holds and its share of the MACs."""
    structure, whole = analysis.structure, max(analysis.macs, 1)
    rows: list[tuple[str, str, Costs]] = [("Backbone", "all that is in no head", structure.backbone)]
    for group in structure.blocks:
        rows.append(("", f"{_count(group.count, 'block')} of {', '.join(_gathered(group.layers))}", group))
    for head in structure.heads:
        rows.append(("Head", f"of {head.output}, {head.gives}: {', '.join(_gathered(head.types))}", head))
    return [
        {
            "name": name,
            "what": what,
            "operators": part.operators,
            "layers": part.layer_count,
            "parameters": _millions(part.parameters),
            "macs": _millions(part.macs),
            "bar": charts.share_bar(part.macs / whole),
        }
        for name, what, part in rows
    ]


def _gathered(words: Sequence[str]) -> list[str]:
    """Join the same words one after another into one, with their number."""
    found = [(word, len(list(same))) for word, same in itertools.groupby(words)]
    return [word if count == 1 else f"{count} {TIMES} {word}" for word, count in found]


def _stages(structure: Structure) -> list[dict[str, Any]]:
    return [
        {
            "size": TIMES.join(map(str, stage.size)) or "one place",
            "layers": stage.layers,
            "channels": stage.channels,
            "macs": _millions(stage.macs),
        }
        for stage in structure.backbone.stages
    ]


def _census(rows: Sequence[TypeCount]) -> dict[str, Any]:
    return {
        "rows": [
            {
                "type": row.type,
                "count": row.count,
                "parameters": _millions(row.parameters) if row.parameters else NOTHING,
                "macs": _millions(row.macs) if row.macs else NOTHING,
            }
            for row in rows[:_SHOWN_TYPES]
        ],
        "others": sum(row.count for row in rows[_SHOWN_TYPES:]),
    }


def _fusion(engines: Mapping[str, EngineAnalysis]) -> dict[str, Any] | None:
    """Tell what each engine makes of the model, and where each type of operator went; None where no engine tells."""
    told = {name: engine.fusion for name, engine in engines.items() if engine.fusion is not None}
    if not told:
        return None
    went = {name: {row.type: row for row in fusion.types} for name, fusion in told.items()}
    return {
        "engines": [_engine(name, engines[name], fusion) for name, fusion in told.items()],
        "heading": [title_of(name) for name in told],
        "types": [
            {"type": row.type, "count": row.count, "cells": [_went(rows[row.type]) for rows in went.values()]}
            for row in next(iter(told.values())).types
        ],
    }


def _engine(name: str, engine: EngineAnalysis, fusion: Fusion) -> dict[str, Any]:
    helpers = list(fusion.helpers.items())
    more = sum(count for _, count in helpers[_SHOWN_HELPERS:])
    words = [f"{count} {kind}" for kind, count in helpers[:_SHOWN_HELPERS]] + ([f"{more} others"] if more else [])
    precisions = [
        f"{wanted}: {', '.join(f'{count} in {precision}' for precision, count in counts.items())}"
        for wanted, counts in engine.multiplying.items()
        if counts
    ]
    return {
        "name": title_of(name),
        "operators": fusion.operators,
        "kernels": fusion.kernels,
        "helpers": ", ".join(words) or NOTHING,
        "precisions": ", ".join(engine.precisions),
        "multiplying": "; ".join(precisions) or NOTHING,
        "int8": engine.int8_layers,
    }


def _went(row: TypeFusion) -> str:
    """Tell where the operators of a type went on one engine."""
    words = [f"{count} {kind}" for kind, count in row.own_kinds.items()]
    words += [f"{count} into {kind}" for kind, count in row.into.items()]
    if row.beforehand:
        words.append(f"{row.beforehand} beforehand")
    return ", ".join(words) or NOTHING


def _sensitivity(analysis: Analysis) -> dict[str, Any]:
    """Return the layers by their error in int8, largest first; those that were not measured last."""
    told = analysis.sensitivity
    layers = sorted(told.layers, key=lambda layer: -(layer.quantized if layer.quantized is not None else -1))
    ratios = list(dict.fromkeys(ratio for layer in layers for ratio in layer.pruned))
    shares = {operator.name: operator.latency_share for operator in analysis.operators}
    most = max((layer.quantized or 0.0 for layer in layers), default=0.0)
    rows = [
        {
            "name": layer.name,
            "type": layer.type,
            "channels": layer.channels,
            "latency": f"{share:.1%}" if (share := shares.get(layer.name)) is not None else NOTHING,
            "quantized": _error(layer.quantized),
            "bar": charts.share_bar((layer.quantized or 0.0) / most if most > 0 else 0.0),
            "pruned": [_error(layer.pruned.get(ratio)) for ratio in ratios],
            "why": layer.why,
        }
        for layer in layers
    ]
    return {
        "why": f"{told.why[0].upper()}{told.why[1:]}." if told.why else "",
        "samples": told.samples,
        "seconds": f"{told.seconds:.0f}",
        "ratios": [f"{float(ratio):.0%}" for ratio in ratios],
        "rows": rows[:_SHOWN_LAYERS],
        "more": rows[_SHOWN_LAYERS:],
    }


def _error(value: float | None) -> str:
    if value is None:
        return NOTHING
    return three_digits(value) if value > 1e-6 else "0"


def _foldable(analysis: Analysis) -> dict[str, Any]:
    counts = {key: getattr(analysis.prepared, key) for key in _TAKEN_AWAY}
    taken = [_count(counts[key], words) for key, words in _TAKEN_AWAY.items() if counts[key] > 0]
    return {"taken": ", ".join(taken), "rows": analysis.foldable}


def _count(count: int, words: str) -> str:
    if count == 1:
        return f"1 {words}"
    return f"{count} {_PLURALS.get(words, words + 's')}"


def _millions(count: int) -> str:
    """Return a count in millions or thousands, as short as can be."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{three_digits(count / unit)} {name}"
    return str(count)
