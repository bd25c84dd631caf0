"""A batch axis that is fixed, as exporters like to write it, made free where the program lets it be.

What computes for one sample computes for several, but for shapes that are written into it: those of the inputs, and of
inner reshapes to `[1, ...]`, as detectors have them. Whether that is all is proved by running, not by reading.
"""

from collections.abc import Mapping

import numpy as np

from act.program.model import InferenceModel
from act.program.outputs import deviation
from act.samples.dataset import Array, Samples

LARGEST_DEVIATION = 1e-4
_SEARCHED_SAMPLES = 64  # for one that differs from the first
# Operators that write a shape into the program, and what stands there for "as it comes in".
_KEEPS = {"reshape2": 0, "expand_v2": -1}


def fixed_batch(model: InferenceModel) -> int | None:
    """Return the length that the first axis of the inputs is fixed to; None where all of them are free.

    The longest where they differ; 0 where an input has no axes at all.
    """
    lengths = [feed.shape[0] if feed.shape else 0 for feed in model.feed_specs()]
    if 0 in lengths:
        return 0
    return None if all(length == -1 for length in lengths) else max(lengths)


def free_batch(model: InferenceModel) -> InferenceModel | None:
    """Return a copy whose inputs have a free first axis; None where its operators do not fit that.

    `runs_together` tells whether it computes the same.
    """
    result = model.copy()
    block = result.program.global_block()
    for name in result.feed_names:
        shape = list(block.var(name).shape)
        if not shape:
            return None
        block.var(name).desc.set_shape([-1, *shape[1:]])
    fixed = {name: model.shape(name) for op in model.ops for name in op.input_arg_names if not model.is_weight(name)}
    try:
        for op in result.ops:
            keeps = _KEEPS.get(op.type)
            source = op.input("X")[0] if keeps is not None else ""
            if keeps is not None and not any(op.input(slot) for slot in op.input_names if slot != "X"):
                shape = list(op.attr("shape"))
                was_batch = len(fixed.get(source, ())) > 0 and shape and shape[0] == fixed[source][0]
                if was_batch and result.shape(source)[0] == -1:
                    # A -1 further on is known now, and would not be any more.
                    known = model.shape(op.output("Out")[0])
                    rest = [have if each == -1 else each for each, have in zip(shape[1:], known[1:])]
                    op._set_attr("shape", [keeps, *rest])
            op.desc.infer_shape(block.desc)
    except Exception:  # whatever Paddle says of shapes that do not fit
        result.discard()
        return None
    return result


def different_samples(samples: Samples) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return two batches of one sample whose inputs all differ, as far as that can be had, in equal shapes.

    The second is the sample that differs from the first in most inputs. An input that is the same in it is computed
    from the first: other real numbers, or a random choice of the same whole numbers, so that they stay in their range.
    """
    first = samples.stack([0])
    shapes = {name: value.shape[1:] for name, value in first.items()}
    best, most = first, 0
    for index in range(1, min(len(samples), _SEARCHED_SAMPLES)):
        if all(tuple(feed.shapes[index]) == shapes[name] for name, feed in samples.feeds.items()):
            candidate = samples.stack([index])
            differing = sum(not np.array_equal(candidate[name], first[name]) for name in first)
            if differing > most:
                best, most = candidate, differing
            if most == len(first):
                break
    return first, {
        name: _altered(value) if np.array_equal(value, first[name]) else value for name, value in best.items()
    }


def _altered(value: Array) -> Array:
    """Return other values of the same shape, dtype and range; the same where whole numbers are all alike."""
    if not np.issubdtype(value.dtype, np.floating):
        choice: Array = np.random.default_rng(0).choice(value.reshape(-1), value.shape)
        return choice
    # Neither permuted nor scaled alone: a mean, or a normalisation, would not see that.
    factors = np.linspace(0.5, 1, value.size).reshape(value.shape)
    return (value[..., ::-1] * factors if value.any() else factors).astype(value.dtype)


def runs_together(
    free: InferenceModel, fixed: InferenceModel, first: Mapping[str, Array], second: Mapping[str, Array]
) -> bool:
    """Tell whether two samples, each a batch as the fixed model takes it, give the same together as apart.

    Both orders are tried. Samples that are equal prove nothing: False.
    """
    if all(np.array_equal(value, second[name]) for name, value in first.items()):
        return False
    outputs = fixed.run(first), fixed.run(second)
    for samples, apart in (((first, second), outputs), ((second, first), outputs[::-1])):
        expected = [np.concatenate(pair) for pair in zip(*apart) if pair[0].ndim]
        try:
            together = free.run({name: np.concatenate([each[name] for each in samples]) for name in first})
        except Exception:  # whatever Paddle raises on what does not fit
            return False
        if len(expected) != len(together) or any(a.shape != b.shape for a, b in zip(expected, together)):
            return False
        if deviation(expected, together) > LARGEST_DEVIATION:
            return False
    return True
