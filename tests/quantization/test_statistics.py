"""The statistics of an activation, against plain numpy over all values at once, and the file that holds them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from act.errors import InputError
from act.quantization.calibration import ranges_by_rule
from act.quantization.statistics import BINS, Snapshots, TensorStatistics, collect, load, save

RNG = np.random.default_rng(11)


def gather(*batches: np.ndarray) -> TensorStatistics:
    statistics = TensorStatistics()
    for batch in batches:
        statistics.add(batch)
    return statistics


def assert_same(one: TensorStatistics, other: TensorStatistics) -> None:
    for key, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, key), err_msg=key)


def growing(shape: tuple[int, ...] = (4, 6, 5, 5)) -> list[np.ndarray]:
    """Batches of very different widths; the values are sixteenths, so that sums in any order are exact."""
    return [(np.round(RNG.normal(size=shape) * scale) / 16).astype(np.float32) for scale in (3, 5000, 0.1, 40, 1e6, 9)]


def test_a_growing_range_counts_every_value_in_its_bin() -> None:
    batches = [(RNG.normal(size=70_000) * scale).astype(np.float32) for scale in (0.01, 1.0, 30.0, 0.5)]
    statistics = gather(*batches)
    values = np.concatenate(batches).astype(np.float64)
    assert np.abs(values).max() < BINS * statistics.bin_width <= 2 * np.abs(values).max()
    bins = np.floor(values / statistics.bin_width).astype(int) + BINS
    np.testing.assert_array_equal(statistics.counts, np.bincount(bins, minlength=2 * BINS))
    np.testing.assert_array_equal(statistics.centres[bins[:99]], (bins[:99] - BINS + 0.5) * statistics.bin_width)
    folded = np.where(bins >= BINS, bins - BINS, BINS - 1 - bins)
    np.testing.assert_array_equal(statistics.magnitudes, np.bincount(folded, minlength=BINS))
    assert (statistics.low, statistics.high) == (values.min(), values.max())


def test_at_least_half_of_the_larger_side_is_used() -> None:
    for largest in (1e-6, 0.5, 0.999, 1.0, 3.0, 4.0, 1e30):
        statistics = gather(np.array([0.0, largest], dtype=np.float32))
        assert np.flatnonzero(statistics.counts)[-1] - BINS >= BINS // 2
        assert statistics.counts[BINS] == 1


def test_zeros_and_what_lies_beside_them() -> None:
    statistics = gather(np.array([-1e-30, 0.0, -0.0, 1e-30, 1.0], dtype=np.float32))
    assert statistics.counts[BINS - 1 : BINS + 1].tolist() == [1, 3]
    zeros = gather(np.zeros(5, dtype=np.float32))
    assert (zeros.largest, zeros.low, zeros.high, zeros.counts[BINS]) == (0, 0, 0, 5)


def test_the_sums_are_those_of_the_batches() -> None:
    batches = growing()
    statistics = gather(*batches)
    assert statistics.batches == len(batches)
    assert statistics.sum_of_minima == sum(float(batch.min()) for batch in batches)
    assert statistics.sum_of_maxima == sum(float(batch.max()) for batch in batches)
    assert statistics.sum_of_absolute_maxima == sum(float(np.abs(batch).max()) for batch in batches)


@pytest.mark.parametrize(
    ("shape", "others"),
    [((4, 6, 5, 7), (0, 2, 3)), ((4, 9, 6), (0, 1)), ((9, 6), (0,)), ((3, 2, 2, 5, 6), (0, 1, 2, 3))],
)
def test_channel_means(shape: tuple[int, ...], others: tuple[int, ...]) -> None:
    batches = [RNG.normal(size=shape).astype(np.float32) for _ in range(3)]
    found = gather(*batches).channel_means
    assert found is not None
    np.testing.assert_allclose(found, np.concatenate(batches).mean(axis=others, dtype=np.float64), atol=1e-6)


def test_no_channels_where_there_are_none_or_their_number_differs() -> None:
    assert gather(np.ones(4)).channel_means is None
    one, other = np.ones((2, 4)), np.ones((2, 5))
    assert gather(one, other, one).channel_means is None
    assert gather(one, one).channel_means is not None


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int64"])
def test_every_real_dtype_is_taken(dtype: str) -> None:
    values = np.array([[0, 1, 3], [5, 100, 2]]).astype(dtype)
    assert_same(gather(values), gather(values.astype(np.float32)))
    assert_same(gather(values.T), gather(np.ascontiguousarray(values.T, dtype=np.float32)))


def test_an_empty_activation_counts_as_no_batch() -> None:
    assert_same(gather(np.ones((0, 3))), TensorStatistics())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(FloatingPointError, match="holds NaN or infinity"):
        gather(np.array([1.0, bad, -1.0]))


def test_the_order_of_the_batches_does_not_matter() -> None:
    batches = growing()
    assert_same(gather(*batches), gather(*batches[::-1]))


def test_memory_does_not_grow_with_the_number_of_batches() -> None:
    def size(batches: int) -> int:
        return sum(sys.getsizeof(value) for value in vars(gather(*[RNG.normal(size=(2, 8))] * batches)).values())

    assert size(5) == size(500)


def snapshots() -> Snapshots:
    batches = [[{"x": values}] for values in growing()]
    return collect(
        lambda batch: {"a/b:0": batch["x"], "ä": np.zeros(3), "flat": np.abs(batch["x"]).reshape(-1)},
        batches,
        len(batches),
        [2, 4, 99],
    )


def test_snapshots_are_those_of_the_first_batches() -> None:
    batches = growing()
    found = collect(lambda batch: batch, [[{"x": values}] for values in batches], len(batches), [2, 99])
    assert list(found) == [2, len(batches)]
    assert_same(found[2]["x"], gather(*batches[:2]))
    assert_same(found[len(batches)]["x"], gather(*batches))


def test_what_is_empty_in_all_batches_has_the_range_of_zero_by_every_rule() -> None:
    nothing, batches = np.zeros((2, 0, 3), np.float32), [np.zeros((2, 0), np.float32), np.ones((2, 4), np.float32)]
    found = collect(lambda batch: {**batch, "y": nothing}, [[{"x": values}] for values in batches], 2, [1])
    assert [found[seen]["x"].high for seen in (1, 2)] == [0, 1] and found[2]["x"].batches == 1
    assert {tuple(spans["y"]) for spans in ranges_by_rule(found[2]).values()} == {(0.0, 0.0)}


def test_a_batch_may_come_in_parts_of_several_shapes() -> None:
    parts = [RNG.normal(size=(count, 3, 4, width)).astype(np.float32) for count, width in ((1, 5), (2, 7), (1, 5))]
    found = collect(lambda part: part, [[{"x": part} for part in parts]], 1)[1]["x"]
    assert found.batches == 1 and found.sum_of_maxima == max(part.max() for part in parts)
    whole = np.concatenate([part.transpose(0, 2, 3, 1).reshape(-1, 3) for part in parts])
    assert found.channel_means == pytest.approx(whole.mean(axis=0), abs=1e-6) and found.counts.sum() == whole.size


def test_a_bad_activation_is_named() -> None:
    with pytest.raises(FloatingPointError, match="the activation `y` of the fp32 model holds NaN or infinity"):
        collect(lambda batch: {"x": batch["x"], "y": np.where(batch["x"] > 1, np.inf, 0)}, [[{"x": np.arange(3)}]], 1)


def test_no_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="no batches"):
        collect(lambda batch: batch, [], 0)


def test_a_file_gives_back_exactly_what_was_saved(tmp_path: Path) -> None:
    saved = snapshots()
    save(tmp_path / "one.npz", saved)
    save(tmp_path / "other", saved)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other").read_bytes()
    loaded = load(tmp_path / "one.npz")
    assert [(seen, list(each)) for seen, each in loaded.items()] == [(seen, list(each)) for seen, each in saved.items()]
    for seen, by_name in saved.items():
        for name, each in by_name.items():
            assert_same(loaded[seen][name], each)
    loaded[2]["ä"].add(np.ones(3))  # what was loaded can go on counting
    save(tmp_path / "none.npz", {})
    assert load(tmp_path / "none.npz") == {}


def test_a_damaged_file_is_named_with_the_cure(tmp_path: Path) -> None:
    path = tmp_path / "statistics.npz"
    save(path, snapshots())
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    with (tmp_path / "objects.npz").open("wb") as file:
        np.savez(file, seen=np.array([{}], dtype=object))
    damaged = [b"", b"nonsense", whole[: len(whole) // 2], whole[:-1], bytes(flipped)]
    for content in [*damaged, (tmp_path / "objects.npz").read_bytes()]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"statistics\.npz: damaged statistics.*run its stage again"):
            load(path)
    with pytest.raises(InputError, match=r"missing\.npz: no such file; run the stage"):
        load(tmp_path / "missing.npz")
