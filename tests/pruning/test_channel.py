"""ChannelPrune and TransformerPrune: what they choose, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.errors import InputError
from act.program.costs import layer_macs
from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.pruning.context import Context
from act.pruning.groups import find_groups
from act.pruning.ratios import Macs
from act.pruning.shrink import shrink
from act.pruning.structured import channel_scores, prune_channels, prune_transformer
from act.samples.dataset import Ragged, Samples
from act.settings import ChannelPrune, TransformerPrune
from tests.support.models import noise, normalised_classifier
from tests.support.prune_networks import CLASSES, LENGTH, encoder, pictures, plain, static

SHAPE = [3, 8, 8]
FIRST, SECOND = "conv2d_0.w_0", "conv2d_1.w_0"


@pytest.fixture
def model() -> InferenceModel:
    return static(plain, SHAPE)


def context(shape: list[int] = SHAPE, count: int = 16, **given: Any) -> Context:
    return Context(Samples({"x": Ragged.of(list(pictures(count, shape)))}), **given)


def kept(model: InferenceModel, smaller: InferenceModel, name: str) -> list[int]:
    """Which output channels of a convolution are in the smaller model, by their biases."""
    bias = name.replace(".w_0", ".b_0")
    places = {float(value): index for index, value in enumerate(model.weight(bias))}
    return [places[float(value)] for value in smaller.weight(bias)]


def test_a_ratio_is_obeyed_and_the_file_is_smaller(model: InferenceModel, tmp_path: Path) -> None:
    result = prune_channels(model, ChannelPrune(pruned_ratio=0.5), context())
    result.model.save(tmp_path)
    saved = InferenceModel.load(tmp_path)
    assert saved.weight(FIRST).shape == (8, 3, 3, 3) and saved.weight(SECOND).shape == (8, 8, 3, 3)
    assert saved.run({"x": pictures(2, SHAPE)})[0].shape == (2, 3)
    assert {row.name: (row.kept, row.of) for row in result.layers if row.why is None} == {
        FIRST: (8, 16),
        SECOND: (8, 16),
    }
    assert any("output" in (row.why or "") for row in result.layers)
    assert model.weight(FIRST).shape[0] == 16


def test_ratios_by_name(model: InferenceModel) -> None:
    settings = ChannelPrune(pruned_ratio=[0.25, 0.75], prune_params_name=[FIRST, SECOND])
    smaller = prune_channels(model, settings, context()).model
    assert (smaller.weight(FIRST).shape[0], smaller.weight(SECOND).shape[0]) == (12, 4)
    only = prune_channels(model, ChannelPrune(pruned_ratio=0.5, prune_params_name=[SECOND]), context()).model
    assert (only.weight(FIRST).shape[0], only.weight(SECOND).shape[0]) == (16, 8)
    least = prune_channels(model, ChannelPrune(pruned_ratio=0.99), context()).model
    assert min(least.weight(name).shape[0] for name in (FIRST, SECOND)) >= 1
    with pytest.raises(InputError, match=r"prune_params_name.*nothing\.w_0.*conv2d_0\.w_0"):
        prune_channels(model, ChannelPrune(pruned_ratio=0.5, prune_params_name=["nothing.w_0"]), context())


def test_each_criterion_drops_what_it_says(model: InferenceModel) -> None:
    weight = np.random.default_rng(1).normal(size=(16, 3, 3, 3)).astype(np.float32)
    weight[[2, 5]] *= 0.01
    gamma = np.ones(16, dtype=np.float32)
    gamma[[1, 7]] = 0.01
    weight[[8, 9]] = weight[10] * 0.999  # beside one another, and so near the median
    model.set_weight(FIRST, weight)
    group = find_groups(model).groups[0]
    lowest = {
        criterion: set(np.argsort(channel_scores(model, group, criterion, {FIRST: gamma})[0])[:2])
        for criterion in ("l1_norm", "bn_scale")
    }
    assert lowest == {"l1_norm": {2, 5}, "bn_scale": {1, 7}}
    median = weight.reshape(16, -1).astype(np.float64)
    distances = np.linalg.norm(median[:, None] - median[None], axis=2).sum(axis=1)
    np.testing.assert_allclose(channel_scores(model, group, "geometry_median", {})[0], distances / distances.mean())


def test_without_batch_norms_the_report_says_what_was_used(model: InferenceModel) -> None:
    rows = prune_channels(model, ChannelPrune(pruned_ratio=0.5, criterion="bn_scale"), context()).layers
    assert all("no batch norm" in (row.note or "") for row in rows if row.why is None)


def test_what_stays_does_the_work_of_what_went(model: InferenceModel) -> None:
    """Channels that are twice another one are no loss, once their readers are fitted to it."""
    weight, bias = model.weight(FIRST), model.weight("conv2d_0.b_0")
    weight[8:], bias[8:] = weight[:8] * 2, bias[:8] * 2
    model.set_weight(FIRST, weight)
    model.set_weight("conv2d_0.b_0", bias)
    batch = {"x": pictures(8, SHAPE, seed=5)}
    smaller = prune_channels(model, ChannelPrune(pruned_ratio=0.5, prune_params_name=[FIRST]), context()).model
    assert smaller.weight(FIRST).shape[0] == 8
    wanted, found = model.run(batch)[0], smaller.run(batch)[0]
    plan = find_groups(model)
    bare = shrink(model, plan, {plan.groups[0].key: list(range(8))}).run(batch)[0]
    errors = [float(np.square(each - wanted).mean() / np.square(wanted).mean()) for each in (found, bare)]
    assert errors[0] < 1e-3 < 1e-2 < errors[1]


def test_macs_follow_the_plan(model: InferenceModel) -> None:
    plan, batch = find_groups(model), {"x": pictures(1, SHAPE)}
    macs = Macs(plan, batch)
    gone = {group.key: 4 for group in plan.groups}
    smaller = shrink(model, plan, {name: list(range(count)) for name, count in gone.items()})
    assert macs.total == sum(layer_macs(model, batch).values())
    assert macs.left(gone) == pytest.approx(sum(layer_macs(smaller, batch).values()))


def test_ratios_by_sensitivity_spare_what_matters() -> None:
    model = normalised_classifier()
    samples = Samples({"x": Ragged.of(list(noise(8, width=96)))})
    names = ["conv2d_6.w_0", "conv2d_37.w_0", "conv2d_47.w_0", "conv2d_52.w_0"]
    result = prune_channels(model, ChannelPrune(prune_params_name=names), Context(samples))
    ratios_by_name = {row.name: row.ratio for row in result.layers}
    assert list(ratios_by_name) == names
    assert len(set(ratios_by_name.values())) > 2  # not one ratio for all
    assert sum(model.weight(name).shape[0] - result.model.weight(name).shape[0] for name in names) > 100


def test_a_speed_up_is_reached_by_measuring(model: InferenceModel) -> None:
    # Half of the time does not depend on the channels, which no count of MACs tells.
    batch = {"x": pictures(1, SHAPE)}
    total = sum(layer_macs(model, batch).values())
    measured = []

    def speedup(each: InferenceModel) -> float:
        measured.append(1 / (0.5 + 0.5 * sum(layer_macs(each, batch).values()) / total))
        return measured[-1]

    result = prune_channels(model, ChannelPrune(target_speedup=1.4), context(speedup=speedup))
    assert 1.4 <= speedup(result.model) < 1.8 and result.speedup == speedup(result.model)
    assert "1.4 is asked for" in result.why
    far = prune_channels(model, ChannelPrune(target_speedup=50), context(speedup=speedup))
    assert "the most that was found" in far.why
    measured.clear()
    near = prune_channels(model, ChannelPrune(target_speedup=1.4), context(speedup=speedup, first_share=0.42))
    assert (
        speedup(near.model) >= 1.4 and abs(1 / measured[1] - 0.71) < 0.1
    )  # begun with the share that was given, after the whole
    whole = prune_channels(model, ChannelPrune(target_speedup=1.4), context(speedup=lambda each: 1.5))
    assert sum(layer_macs(whole.model, batch).values()) == total


def test_where_a_speed_up_cannot_be_measured_the_predicted_share_stays(model: InferenceModel) -> None:
    batch = {"x": pictures(1, SHAPE)}
    total = sum(layer_macs(model, batch).values())
    result = prune_channels(model, ChannelPrune(target_speedup=2), context(first_share=0.6))
    assert sum(layer_macs(result.model, batch).values()) / total == pytest.approx(0.6, abs=0.1)


def test_a_speed_up_that_cannot_be_measured_is_refused(model: InferenceModel) -> None:
    with pytest.raises(InputError, match="target_speedup"):
        prune_channels(model, ChannelPrune(target_speedup=2), context())


def test_nothing_to_prune_is_no_failure() -> None:
    model = static(lambda x: paddle.static.nn.conv2d(x, 4, 3), SHAPE)
    result = prune_channels(model, ChannelPrune(pruned_ratio=0.5), context())
    assert "no layer's channels" in result.why and result.model.weight(FIRST).shape == (4, 3, 3, 3)


def test_heads_and_width(tmp_path: Path) -> None:
    model = encoder(tmp_path / "whole")
    result = prune_transformer(model, TransformerPrune(pruned_ratio=0.5), context([LENGTH, 8]))
    (tmp_path / "smaller").mkdir()
    result.model.save(tmp_path / "smaller")
    saved = InferenceModel.load(tmp_path / "smaller")
    heads = [row for row in result.layers if row.kind == "heads"]
    assert [(row.kept, row.of, len(row.together)) for row in heads] == [(2, 4, 2), (2, 4, 2)]
    for row in heads:
        assert [saved.weight(name).shape for name in (row.name, *row.together)] == [(32, 16)] * 3
    assert saved.run({"x": pictures(3, [LENGTH, 8])})[0].shape == (3, CLASSES)
    assert (tmp_path / "smaller" / "model.pdiparams").stat().st_size < 0.7 * sum(
        path.stat().st_size for path in (tmp_path / "whole").glob("*.pdiparams")
    )


def test_the_head_that_does_nothing_goes_first(tmp_path: Path) -> None:
    model = encoder(tmp_path)
    group = next(group for group in find_groups(model).groups if group.kind == "heads")
    place = group.inputs[0]
    weight = model.weight(place[0])
    weight[group.members[place][2]] = 0
    model.set_weight(place[0], weight)
    result = prune_transformer(model, TransformerPrune(pruned_ratio=0.25), context([LENGTH, 8]))
    query = group.outputs[0][0]
    wanted = np.delete(model.weight(query), group.members[query, 1][2], axis=1)
    np.testing.assert_array_equal(result.model.weight(query), wanted)
