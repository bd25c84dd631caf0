"""Samples on disk and their checks; the metrics against hand-made cases."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from act.errors import InputError
from act.metrics import cosine, scorer
from act.metrics.ctc_exact import edit_distance, read_ctc
from act.samples.dataset import PADDING, FeedSpec, Gathering, Ragged, Samples, check_samples

FEED = FeedSpec("x", "float32", (-1, 3, -1))


def make(count: int = 4, width: int = 5) -> Samples:
    return Samples({"x": Ragged.of([np.full((3, width), i, dtype=np.float32) for i in range(count)])})


def test_samples_of_different_lengths_survive_the_disk(tmp_path: Path) -> None:
    arrays = [np.random.default_rng(i).normal(size=(3, i + 1)).astype(np.float32) for i in range(5)]
    labels = [np.arange(3) for _ in range(5)]
    Samples({"x": Ragged.of(arrays)}, Ragged.of(labels)).save(tmp_path / "s")
    loaded = Samples.load(tmp_path / "s")
    assert len(loaded) == 5
    for wanted, found in zip(arrays, loaded.feeds["x"]):
        np.testing.assert_array_equal(found, wanted)
    assert loaded.labels is not None and loaded.labels[4].tolist() == [0, 1, 2]


shapes_of_samples = st.integers(1, 3).flatmap(
    lambda rank: st.lists(st.tuples(*[st.integers(1, 4)] * rank), min_size=1, max_size=6)
)


@settings(deadline=None, max_examples=50)
@given(shapes=shapes_of_samples, dtype=st.sampled_from(["float32", "int64", "bool"]), labelled=st.booleans())
def test_samples_of_any_shapes_survive_the_disk(shapes: list[tuple[int, ...]], dtype: str, labelled: bool) -> None:
    rng = np.random.default_rng(len(shapes))
    arrays = [rng.integers(0, 2, shape).astype(dtype) for shape in shapes]
    labels = Ragged.of([np.arange(len(shape)) for shape in shapes]) if labelled else None
    with tempfile.TemporaryDirectory() as folder:
        Samples({"x": Ragged.of(arrays)}, labels).save(Path(folder) / "s")
        loaded = Samples.load(Path(folder) / "s")
        assert len(loaded) == len(arrays) and loaded.feeds["x"].dtype == dtype
        for wanted, found in zip(arrays, loaded.feeds["x"]):
            assert found.shape == wanted.shape and (found == wanted).all()
        groups = loaded.groups(2)
        assert [index for group in groups for index in group] == list(range(len(arrays)))
        assert all(len(group) <= 2 and len({shapes[index] for index in group}) == 1 for group in groups)
        assert (loaded.labels is not None) == labelled
        head = loaded.head(len(arrays) - 1)
        assert len(head) == len(arrays) - 1 and all((a == b).all() for a, b in zip(arrays, head.feeds["x"]))


def test_gathered_samples_are_written_as_numpy_writes_them(tmp_path: Path) -> None:
    arrays = [np.random.default_rng(i).normal(size=(3, i + 1)).astype(np.float32) for i in range(5)]
    gathering = Gathering(tmp_path)
    for array in arrays:
        gathering.add(array)
    with pytest.raises(ValueError, match="differ"):
        gathering.add(arrays[0][0])
    gathered = gathering.ragged()
    assert not any(tmp_path.iterdir())
    assert isinstance(gathered.flat, np.memmap)
    Samples({"x": gathered}).save(tmp_path / "s")
    np.save(tmp_path / "plain.npy", Ragged.of(arrays).flat)
    assert (tmp_path / "s" / "0.values.npy").read_bytes() == (tmp_path / "plain.npy").read_bytes()


def test_gathering_checking_and_writing_take_no_more_memory_for_more_samples(tmp_path: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        import numpy as np
        from act.samples.dataset import FeedSpec, Gathering, Samples, check_samples
        folder, count = Path(sys.argv[1]), int(sys.argv[2])
        gathering = Gathering(folder)
        for number in range(count):
            gathering.add(np.full(2**18, number, dtype=np.float32))
        samples = Samples({"x": gathering.ragged()})
        check_samples(samples, [FeedSpec("x", "float32", (-1, 2**18))], "here")
        samples.save(folder / "samples")
        print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
    """
    peaks = []
    for count in (32, 128):
        (tmp_path / str(count)).mkdir()
        command = [sys.executable, "-c", code, str(tmp_path / str(count)), str(count)]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1024)
    assert peaks[1] < peaks[0] + 16, "mebibytes; the samples have 96 more"


def test_batches_hold_equal_shapes_in_order() -> None:
    arrays = [np.zeros((3, width), dtype=np.float32) for width in (4, 4, 4, 7, 7, 4)]
    shapes = [batch["x"].shape for batch in Samples({"x": Ragged.of(arrays)}).batches(2)]
    assert shapes == [(2, 3, 4), (1, 3, 4), (2, 3, 7), (1, 3, 4)]


def test_batches_in_parts_have_as_many_samples_whatever_their_shapes() -> None:
    arrays = [np.zeros(width, dtype=np.float32) for width in (4, 7, 4, 4, 4)]
    samples = Samples({"x": Ragged.of(arrays)}, largest_batch=1)
    shapes = [[part["x"].shape for part in batch] for batch in samples.batches_in_parts(3)]
    assert shapes == [[(1, 4), (1, 7), (1, 4)], [(1, 4), (1, 4)]]


def test_a_group_may_be_larger_than_what_the_model_takes() -> None:
    arrays = [np.zeros(width, dtype=np.float32) for width in (4, 4, 4, 4, 7)]
    samples = Samples({"x": Ragged.of(arrays)}, largest_batch=2)
    assert samples.groups(3) == [[0, 1], [2, 3], [4]]
    assert samples.uncapped_groups(3) == [[0, 1, 2], [3], [4]]
    assert samples.parts([0, 1, 2]) == [[0, 1], [2]]
    assert Samples({"x": Ragged.of(arrays)}).parts([0, 1, 2]) == [[0, 1, 2]]


def test_damaged_samples_are_told(tmp_path: Path) -> None:
    make().save(tmp_path / "s")
    values = tmp_path / "s" / "0.values.npy"
    values.write_bytes(values.read_bytes()[:-8])
    with pytest.raises(InputError, match="damaged samples"):
        Samples.load(tmp_path / "s")


def spoiled(value: float) -> Samples:
    arrays = [np.zeros((3, 4), dtype=np.float32) for _ in range(3)]
    arrays[1][0, 2] = value
    return Samples({"x": Ragged.of(arrays)})


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (Samples({"x": Ragged(np.zeros(0, dtype=np.float32), np.zeros((0, 2), dtype=np.int64))}), "no samples"),
        (Samples({"y": Ragged.of([np.zeros((3, 4), dtype=np.float32)])}), "the model's inputs are `x`"),
        (Samples({"x": Ragged.of([np.zeros((3, 4))])}), "float64.*float32"),
        (Samples({"x": Ragged.of([np.zeros((2, 4), dtype=np.float32)])}), r"shape \[2, 4\].*\[3, any\]"),
        (Samples({"x": Ragged.of([np.zeros((3, 4, 1), dtype=np.float32)])}), r"shape \[3, 4, 1\]"),
        (spoiled(np.nan), "sample 1 holds NaN"),
        (spoiled(np.inf), "sample 1 holds NaN or infinity"),
    ],
)
def test_samples_that_do_not_fit_are_told(samples: Samples, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_samples(samples, [FEED], "data")


def test_samples_that_fit_pass() -> None:
    check_samples(make(), [FEED], "data")


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_edit_distance(first: str, second: str, distance: int) -> None:
    assert edit_distance([ord(c) for c in first], [ord(c) for c in second]) == distance


def one_hot(classes: list[int], count: int = 6) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[classes]


def test_ctc_merges_repeats_and_drops_blanks() -> None:
    assert read_ctc(one_hot([0, 1, 1, 0, 1, 2, 2, 0])) == [1, 1, 2]
    assert read_ctc(one_hot([0, 0])) == []


def unseen(labels: Ragged | None) -> Samples:
    """Return samples of which nothing but the labels matters."""
    return Samples({"x": Ragged.of([np.zeros(1), np.zeros(1)])}, labels)


def test_exact_lines_and_character_similarity() -> None:
    labels = Ragged.of([np.array([1, 2, 3, PADDING]), np.array([1, 2, 3, 4])])
    metric = scorer("ctc_exact", unseen(labels))
    metric.add([one_hot([1, 0, 2, 3])])
    metric.add([one_hot([1, 2, 3, 5])])
    quality = metric.quality()
    assert quality.value == 0.5 and quality.scores == [1.0, 0.0]
    assert quality.beside["character_similarity"] == pytest.approx((1 + 0.75) / 2)


def test_top1() -> None:
    top1 = scorer("top1", unseen(Ragged.of([np.array([1]), np.array([0])])))
    top1.add([np.array([0.1, 0.9])])
    top1.add([np.array([0.1, 0.9])])
    assert top1.quality().value == 0.5


def test_a_metric_without_labels_is_refused() -> None:
    with pytest.raises(InputError, match="needs labels"):
        scorer("top1", unseen(None))


def test_cosine_of_odd_outputs() -> None:
    assert cosine(np.zeros(3), np.zeros(3)) == 1.0
    assert cosine(np.zeros(3), np.ones(3)) == 0.0
    assert cosine(np.array([np.nan, 1.0]), np.ones(2)) == 0.0
    assert cosine(np.ones(3), np.ones(4)) == 0.0
