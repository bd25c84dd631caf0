"""Which channels go together, and the smaller models that come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from act.program.model import InferenceModel
from act.program.paddle_setup import paddle
from act.program.passes.normalise import normalise
from act.pruning.groups import Plan, find_groups
from act.pruning.shrink import shrink
from tests.support.models import DETECTOR, RECOGNISER, noise, normalised_classifier
from tests.support.prune_networks import encoder, pictures, static, vision


def halved(plan: Plan) -> dict[str, list[int]]:
    """Every second unit of every group."""
    return {group.key: list(range(0, group.count, 2)) for group in plan.groups}


def without(model: InferenceModel, plan: Plan, removed: dict[str, list[int]]) -> InferenceModel:
    """The whole model, in which what reads the removed units multiplies them with zero."""
    result = model.copy()
    for group in plan.groups:
        for name, axis in group.inputs:
            gone = group.members[name, axis][removed[group.key]].reshape(-1)
            weight = result.weight(name)
            np.moveaxis(weight, axis, 0)[gone] = 0
            result.set_weight(name, weight)
    return result


def model_of(name: str, folder: Path) -> tuple[InferenceModel, dict[str, Any]]:
    if name == "classifier":
        return normalised_classifier(), {"x": noise(2, width=96)}
    if name == "detector":
        return normalise(InferenceModel.load(DETECTOR))[0], {"x": pictures(1, [3, 64, 64])}
    if name == "encoder":
        return encoder(folder), {"x": pictures(2, [6, 8])}
    return vision(name, folder), {"x": pictures(2, [3, 64, 64])}


@pytest.mark.parametrize("name", ["classifier", "detector", "resnet18", "shufflenet_v2_x0_25", "squeezenet1_1"])
def test_a_smaller_model_computes_what_the_whole_one_does_without_the_channels(name: str, tmp_path: Path) -> None:
    model, batch = model_of(name, tmp_path)
    plan = find_groups(model)
    removed = halved(plan)
    smaller = shrink(model, plan, removed)
    (tmp_path / "smaller").mkdir()
    smaller.save(tmp_path / "smaller")
    for found, wanted in zip(
        InferenceModel.load(tmp_path / "smaller").run(batch), without(model, plan, removed).run(batch)
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-5 * float(np.abs(wanted).max()))
    sizes = [sum(each.weight(w).size for w in each.weight_names()) for each in (smaller, model)]
    assert sizes[0] < (0.4 if name != "shufflenet_v2_x0_25" else 0.7) * sizes[1]


def test_a_batch_norm_that_no_convolution_takes_in_is_pruned_with_its_statistics(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        hidden = paddle.nn.functional.relu(paddle.static.nn.conv2d(x, 16, 3, padding=1))
        hidden = paddle.static.nn.batch_norm(hidden, is_test=True)
        return paddle.static.nn.conv2d(paddle.nn.functional.relu(hidden), 4, 3)

    model = static(build, [3, 8, 8])
    norm = next(op for op in model.ops if op.type == "batch_norm")
    variance = norm.input("Variance")[0]
    model.set_weight(variance, np.abs(model.weight(variance)) + 0.5)
    plan = find_groups(model)
    removed = halved(plan)
    smaller = shrink(model, plan, removed)
    for slot in ("Scale", "Bias", "Mean", "Variance"):
        assert smaller.weight(norm.input(slot)[0]).shape == (8,)
    (tmp_path / "smaller").mkdir()
    smaller.save(tmp_path / "smaller")
    batch = {"x": pictures(2, [3, 8, 8])}
    found, wanted = (
        each.run(batch)[0] for each in (InferenceModel.load(tmp_path / "smaller"), without(model, plan, removed))
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5 * float(np.abs(wanted).max()))


def test_a_reshape_that_holds_a_channel_count_changes_with_it() -> None:
    model = normalised_classifier()
    reshape = next(op for op in model.ops if op.type == "reshape2")
    assert reshape.attr("shape")[1] == 200
    plan = find_groups(model)
    group = next(group for group in plan.groups if ("fc_0.w_0", 0) in group.members)
    smaller = shrink(model, plan, {group.key: list(range(40))})
    assert next(op for op in smaller.ops if op.type == "reshape2").attr("shape")[1] == 160
    assert smaller.weight("fc_0.w_0").shape == (160, 2)
    assert smaller.run({"x": noise(1, width=64)})[0].shape == (1, 2)


def test_heads_of_joined_and_of_separate_projections(tmp_path: Path) -> None:
    joined = find_groups(normalise(InferenceModel.load(RECOGNISER))[0])
    heads = [group for group in joined.groups if group.kind == "heads"]
    assert [(group.count, len(group.outputs)) for group in heads] == [(8, 1), (8, 1)]
    separate = find_groups(encoder(tmp_path))
    heads = [group for group in separate.groups if group.kind == "heads"]
    assert [(group.count, len(group.outputs)) for group in heads] == [(4, 3), (4, 3)]
    width = [group for group in separate.groups if group.kind == "feed_forward"]
    assert {group.count for group in width} == {64, 32}  # feed-forward layers, and the pooler
    normalised = [group for group in separate.groups if group.normalised]
    assert [group.kind for group in normalised] == ["channels"]


def test_what_is_not_understood_is_left_alone_with_its_cause() -> None:
    def build(x: Any) -> Any:
        hidden = paddle.static.nn.conv2d(x, 8, 3)
        hidden = paddle.cumsum(hidden, axis=1)
        hidden = paddle.static.nn.conv2d(hidden, 8, 1)
        return paddle.static.nn.conv2d(hidden, 2, 1)

    model = static(build, [3, 8, 8])
    plan = find_groups(model)
    assert [group.name for group in plan.groups] == ["conv2d_1.w_0"]
    assert "cumsum" in plan.left_alone["conv2d_0.w_0"] and "output" in plan.left_alone["conv2d_2.w_0"]


def test_channels_that_a_reshape_mixes_are_left_alone() -> None:
    def build(x: Any) -> Any:
        hidden = paddle.static.nn.conv2d(x, 6, 3, padding=1)
        hidden = paddle.reshape(hidden, [-1, 8, 48])  # six channels of 64 places as eight rows of 48 values
        return paddle.matmul(hidden, paddle.static.create_parameter([48, 4], "float32"))

    plan = find_groups(static(build, [3, 8, 8]))
    assert not plan.groups
    assert "reshape" in plan.left_alone["conv2d_0.w_0"]


def test_concatenated_channels_are_groups_of_their_own() -> None:
    def build(x: Any) -> Any:
        parts = [paddle.static.nn.conv2d(x, 8, 3), paddle.static.nn.conv2d(x, 4, 3)]
        return paddle.static.nn.conv2d(paddle.concat(parts, axis=1), 2, 1)

    model = static(build, [3, 8, 8])
    plan = find_groups(model)
    assert [(group.name, group.count) for group in plan.groups] == [("conv2d_0.w_0", 8), ("conv2d_1.w_0", 4)]
    smaller = shrink(model, plan, {plan.groups[1].key: [0]})
    whole, cut = model.weight("conv2d_2.w_0"), smaller.weight("conv2d_2.w_0")
    np.testing.assert_array_equal(cut, np.delete(whole, 8, axis=1))
