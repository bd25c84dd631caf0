"""The readers of the user's own data: pictures, mapped arrays, functions; what they read and what they refuse."""

from __future__ import annotations

import re
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from act.errors import InputError
from act.samples.dataset import FeedSpec
from act.samples.loaders import deal_out, take
from act.samples.readers import read
from act.settings.data import settings_of_reader
from tests.support.models import noise
from tests.support.place import Place

PICTURE = FeedSpec("x", "float32", (-1, 3, 8, 8))
VECTOR = FeedSpec("x", "float32", (-1, 2))
GREY = {"mean": [0.0], "std": [1.0], "scale": 1.0}


def picture(path: Path, colour: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (16, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def folder(root: Path, count: int = 6) -> Path:
    """Pictures whose red is their number, in two folders, and a list with classes."""
    names = [f"{'cat' if number % 2 else 'dog'}/{number} of many.png" for number in range(count)]
    for number, name in enumerate(names):
        picture(root / name, (number, 20, 30))
    (root / "list.txt").write_text("".join(f"{name} {number % 2}\n" for number, name in enumerate(names)))
    return root


def read_by(reader: str, feeds: list[FeedSpec], scratch: Path, **settings: Any) -> Any:
    data = {"reader": reader, **settings}
    return read(settings_of_reader(data).model_validate(data), feeds, -1, scratch)


def images(root: Path, feed: FeedSpec = PICTURE, **settings: Any) -> Any:
    return read_by("image_folder", [feed], root.parent, path=str(root), **{"resize": 8, **GREY, **settings})


def reds(samples: Any) -> list[int]:
    return [round(float(value[0].mean())) for value in samples.feeds["x"]]


def test_a_list_gives_pictures_and_classes_and_never_one_to_both_roles(tmp_path: Path) -> None:
    calibration, evaluation = images(folder(tmp_path / "all"), calibration_list="list.txt")
    assert reds(calibration) == [0, 2, 4] and calibration.labels is None
    assert reds(evaluation) == [1, 3, 5] and [int(label[0]) for label in evaluation.labels] == [1, 1, 1]
    assert evaluation.feeds["x"][0].shape == (3, 8, 8) and evaluation.feeds["x"].dtype == np.float32


def test_two_lists_are_taken_evenly_from_end_to_end(tmp_path: Path) -> None:
    root = folder(tmp_path / "all", 10)
    lines = (root / "list.txt").read_text().splitlines()
    (root / "train.txt").write_text("\n".join(lines[:2]) + "\n")
    settings: dict[str, Any] = {"calibration_list": "train.txt", "evaluation_list": "list.txt", "evaluation": 5}
    calibration, evaluation = images(root, **settings)
    assert reds(calibration) == [0, 1] and reds(evaluation) == [0, 2, 4, 6, 8]


def test_without_a_list_all_pictures_are_taken_sorted_and_have_no_class(tmp_path: Path) -> None:
    calibration, evaluation = images(folder(tmp_path / "all"))
    assert reds(calibration) == [1, 5, 2] and reds(evaluation) == [3, 0, 4]  # cat/1 cat/3 cat/5 dog/0 dog/2 dog/4
    assert evaluation.labels is None


def test_pixels_are_resized_cut_ordered_and_normalised_as_told(tmp_path: Path) -> None:
    root = tmp_path / "all"
    for name in ("a", "b"):
        picture(root / f"{name}.png", (255, 0, 51))
    calibration, _ = images(root, scale=1 / 255, mean=[0.2, 0.0, 0.0], std=[0.5, 1.0, 2.0], order="BGR")
    np.testing.assert_allclose(calibration.feeds["x"][0][:, 3, 3], [(0.2 - 0.2) / 0.5, 0.0, 0.5], atol=1e-6)


def test_the_cut_is_what_resizing_the_whole_and_cutting_gives(tmp_path: Path) -> None:
    root = tmp_path / "all"
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        root.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (60, 91, 3), dtype=np.uint8)).save(root / f"{name}.png")
    calibration, _ = images(root, resize=16)
    with Image.open(root / "a.png") as image:
        whole = image.convert("RGB").resize((24, 16), Image.Resampling.BILINEAR)
    wanted = np.asarray(whole, dtype=np.float32)[4:12, 8:16].transpose(2, 0, 1)
    assert np.abs(calibration.feeds["x"][0] - wanted).max() <= 2  # the two round differently
    stretched, _ = images(root, resize=None)
    with Image.open(root / "a.png") as image:
        wanted = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR), dtype=np.float32).transpose(2, 0, 1)
    np.testing.assert_array_equal(stretched.feeds["x"][0], wanted)


def test_grey_models_and_models_of_any_size(tmp_path: Path) -> None:
    root = folder(tmp_path / "all")
    assert images(root, FeedSpec("x", "float32", (-1, 1, 8, 8)))[0].feeds["x"][0].shape == (1, 8, 8)
    any_size = FeedSpec("x", "float32", (-1, 3, -1, -1))
    assert images(root, any_size, size=[4, 6])[0].feeds["x"][0].shape == (3, 4, 6)
    with pytest.raises(InputError, match=r"set `data.size"):
        images(root, any_size)


def damaged(root: Path) -> None:
    path = root / "dog/0 of many.png"
    path.write_bytes(path.read_bytes()[:45])


def no_picture(root: Path) -> None:
    (root / "dog/0 of many.png").write_text("hello")


def missing(root: Path) -> None:
    (root / "dog/0 of many.png").unlink()


def escapes(root: Path) -> None:
    picture(root.parent / "secret.png")
    (root / "list.txt").write_text("../secret.png 0\ndog/0 of many.png 1\n")


def absolute(root: Path) -> None:
    (root / "list.txt").write_text("/etc/passwd 0\ndog/0 of many.png 1\n")


def bomb(root: Path) -> None:
    # A megapixel costs a few bytes in a PNG of one colour.
    Image.new("1", (20_000, 12_000)).save(root / "dog/0 of many.png")


def half_labelled(root: Path) -> None:
    (root / "list.txt").write_text("dog/0 of many.png\ncat/1 of many.png 1\ndog/2 of many.png 0\ncat/3 of many.png\n")


def negative_class(root: Path) -> None:
    (root / "list.txt").write_text("dog/0 of many.png 1\ncat/1 of many.png -1\n")


def empty_list(root: Path) -> None:
    (root / "list.txt").write_text("\n")


def one_picture(root: Path) -> None:
    (root / "list.txt").write_text("dog/0 of many.png 1\n")


def null_byte(root: Path) -> None:
    (root / "list.txt").write_text("dog/0\0.png 1\ncat/1 of many.png 1\n")


def binary_list(root: Path) -> None:
    (root / "list.txt").write_bytes(b"\x89PNG\xff\x00\x01")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (damaged, "list.txt, line 1: .*0 of many.png: not a picture, or damaged: .*leave it out"),
        (no_picture, "list.txt, line 1: .*0 of many.png: not a picture"),
        (missing, "list.txt, line 1: .*0 of many.png: no such file; correct the list"),
        (escapes, r"list.txt, line 1: '../secret.png' leads out of"),
        (absolute, "list.txt, line 1: '/etc/passwd' leads out of"),
        (bomb, "0 of many.png: too large, 20000 x 12000|0 of many.png: too large, .*240000000 pixels"),
        (half_labelled, "list.txt, line 4: has no class number"),
        (negative_class, "list.txt, line 2: the class is -1"),
        (empty_list, "list.txt: names no pictures"),
        (one_picture, "1 pictures; it takes two"),
        (null_byte, "line 1: .*is no path"),
        (binary_list, "list.txt: cannot be read as a list"),
    ],
)
def test_wrong_pictures_and_lists_are_named_with_the_cure(tmp_path: Path, spoil: Any, words: str) -> None:
    root = folder(tmp_path / "all")
    spoil(root)
    with pytest.raises(InputError) as caught:
        images(root, calibration_list="list.txt")
    assert re.search(words, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)


def test_a_list_outside_the_folder_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "all")
    (tmp_path / "list.txt").write_text("dog/0 of many.png 1\n")
    with pytest.raises(InputError, match="leads out of"):
        images(root, calibration_list="../list.txt")


def test_many_pictures_take_no_memory(tmp_path: Path) -> None:
    root = folder(tmp_path / "all", 400)
    feed = FeedSpec("x", "float32", (-1, 3, 64, 64))  # 20 MB together
    images(root, feed, resize=64, calibration=2, evaluation=2)
    tracemalloc.start()
    try:
        calibration, _ = images(root, feed, resize=64, calibration=200, evaluation=200)
        assert len(calibration) == 200
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


def npy(root: Path, role: str, **named: Any) -> None:
    (root / role).mkdir(parents=True, exist_ok=True)
    for name, array in named.items():
        np.save(root / role / f"{name}.npy", array)


def read_arrays(root: Path, feeds: tuple[str, ...] = ("x",)) -> Any:
    return read_by("arrays", [FeedSpec(name, "float64", (-1, 2)) for name in feeds], root, path=str(root))


def test_npy_files_are_mapped_with_labels_and_with_shapes(tmp_path: Path) -> None:
    npy(tmp_path, "calibration", x=noise(2))
    npy(tmp_path, "evaluation", x=noise(3, seed=1), label=np.array([0, 1, 0]))
    calibration, evaluation = read_arrays(tmp_path)
    assert isinstance(calibration.feeds["x"].flat, np.memmap)
    np.testing.assert_array_equal(evaluation.feeds["x"][2], noise(3, seed=1)[2])
    assert [int(label[0]) for label in evaluation.labels] == [0, 1, 0]
    npy(tmp_path, "calibration", x=np.arange(5.0), **{"x.shapes": np.array([[2, 1], [1, 3]])})
    calibration, _ = read_arrays(tmp_path)
    np.testing.assert_array_equal(calibration.feeds["x"][1], [[2.0, 3.0, 4.0]])


def test_npy_and_npz_may_be_mixed_but_not_doubled(tmp_path: Path) -> None:
    npy(tmp_path, "calibration", x=noise(2))
    np.savez(tmp_path / "evaluation.npz", x=noise(3))
    assert len(read_arrays(tmp_path)[1]) == 3
    np.savez(tmp_path / "calibration.npz", x=noise(3))
    with pytest.raises(InputError, match="both this folder and calibration.npz; remove one"):
        read_arrays(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.array([{"a": 1}], dtype=object), "x.npy: not a NumPy .npy file of plain numbers"),
        (np.asfortranarray(np.ones((3, 4))), "x.npy: in Fortran's order"),
        (np.float32(3), "a single number"),
    ],
)
def test_npy_files_of_other_kinds_are_refused(tmp_path: Path, content: Any, words: str) -> None:
    npy(tmp_path, "calibration", x=content)
    with pytest.raises(InputError, match=words):
        read_arrays(tmp_path)


def test_a_damaged_npy_file_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "calibration").mkdir()
    with pytest.raises(InputError, match=r"no \.npy files in it"):
        read_arrays(tmp_path)
    npy(tmp_path, "calibration", x=noise(2))
    path = tmp_path / "calibration" / "x.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"x\.npy: not a NumPy \.npy file"):
        read_arrays(tmp_path)


def rows(count: int, batch: int = 2, dtype: str = "float32") -> Iterator[list[Any]]:
    for start in range(0, count, batch):
        numbers = np.arange(start, min(start + batch, count))
        yield [np.stack([numbers, numbers], axis=1).astype(dtype)]


def firsts(samples: Any) -> list[int]:
    return [int(value[0]) for value in samples.feeds["x"]]


def test_a_loader_is_dealt_out_in_the_ratio_wanted_and_asked_for_no_more(tmp_path: Path) -> None:
    asked = []

    def watched() -> Iterator[Any]:
        for batch in rows(1000):
            asked.append(batch)
            yield batch

    calibration, evaluation = deal_out(watched, [VECTOR], (2, 6), tmp_path, "mine")
    assert len(calibration) == 2 and len(evaluation) == 6 and len(asked) == 4
    assert sorted(firsts(calibration) + firsts(evaluation)) == list(range(8))
    calibration, evaluation = deal_out(rows(8), [VECTOR], (100, 300), tmp_path, "mine")
    assert len(calibration) == 2 and len(evaluation) == 6


@pytest.mark.parametrize(
    "form",
    [
        lambda x, y: {"x": x},
        lambda x, y: [{"x": x}],
        lambda x, y: [x],
        lambda x, y: (x,),
        lambda x, y: x,
        lambda x, y: [x, y],
        lambda x, y: {"x": x, "label": y},
        lambda x, y: {"x": x.astype("float64"), "label": y.tolist()},
        lambda x, y: {"x": x.astype("int32")},
        lambda x, y: {"x": x, "im_id": np.array(1), "gt_bbox": [[1], [2, 3]]},
        lambda x, y: [{"x": x, "im_id": y}, y],
        lambda x, y: ((x,), y),
        lambda x, y: [x, y.astype("float32")],
    ],
)
def test_batches_may_have_any_of_the_usual_forms(tmp_path: Path, form: Any) -> None:
    x, y = np.array([[0, 1], [2, 3], [4, 5]], dtype="float32"), np.array([7, 8, 9])
    samples = take([form(x, y)], [VECTOR], 2, tmp_path, "mine")
    assert firsts(samples) == [0, 2] and samples.feeds["x"].dtype == np.float32
    labelled = form(x, y)
    if len(labelled) == 2 and (isinstance(labelled, list | tuple) or "label" in labelled):
        assert samples.labels is not None and [int(label[0]) for label in samples.labels] == [7, 8]


@pytest.mark.parametrize("label", [["a", "b"], [None, None], [[1], [2, 3]], {"gt": np.ones(2)}])
def test_labels_that_are_no_numbers_are_left_aside(tmp_path: Path, label: Any) -> None:
    samples = take([[np.ones((2, 2), "float32"), label]], [VECTOR], 2, tmp_path, "mine")
    assert samples.labels is None and len(samples) == 2
    assert take([[np.ones((2, 2), "float32"), label]], [VECTOR], 2, tmp_path, "mine", labelled=False).labels is None


def test_nested_inputs_are_told_from_one_input_in_a_list_of_samples(tmp_path: Path) -> None:
    feeds = [VECTOR, FeedSpec("ids", "int64", (-1, 2))]
    x, ids = np.ones((2, 2), "float32"), np.array([[3, 4], [5, 6]])
    for batch in (((x, ids), [7, 8]), ([x, ids], np.array([7, 8]))):
        samples = take([batch], feeds, 2, tmp_path, "mine")
        assert samples.labels is not None
        assert samples.feeds["ids"][1].tolist() == [5, 6] and [int(label[0]) for label in samples.labels] == [7, 8]
    assert take([[[x[0], x[1]], [7, 8]]], [VECTOR], 2, tmp_path, "mine").feeds["x"].shapes.tolist() == [[2], [2]]


def test_masks_and_scores_are_labels_of_their_own_shape(tmp_path: Path) -> None:
    labels = np.arange(12).reshape(2, 2, 3)
    samples = take([[np.ones((2, 2), "float32"), labels]], [VECTOR], 2, tmp_path, "mine")
    assert samples.labels is not None and samples.labels[1].tolist() == [[6, 7, 8], [9, 10, 11]]


def test_labels_of_arrays_may_be_boxes_of_which_a_picture_has_none(tmp_path: Path) -> None:
    for role in ("calibration", "evaluation"):
        boxes = {"label": np.arange(10.0), "label.shapes": np.array([[2, 5], [0, 5]])}
        np.savez(tmp_path / f"{role}.npz", x=np.ones((2, 2), "float32"), **boxes)
    calibration, evaluation = read_by("arrays", [VECTOR], tmp_path, path=str(tmp_path))
    assert calibration.labels is None and [len(label) for label in evaluation.labels] == [2, 0]
    assert evaluation.labels.dtype == np.float64


def test_a_feed_with_slashes_lies_in_folders_or_is_written_as_in_an_address(tmp_path: Path) -> None:
    feed = FeedSpec("a/b:0", "float32", (-1, 2))
    for role, name in (("calibration", "a/b:0.npy"), ("evaluation", "a%2Fb%3A0.npy")):
        path = tmp_path / role / name
        path.parent.mkdir(parents=True)
        np.save(path, np.ones((3, 2), "float32"))
    calibration, evaluation = read_by("arrays", [feed], tmp_path, path=str(tmp_path))
    assert list(calibration.feeds) == list(evaluation.feeds) == ["a/b:0"] and len(evaluation) == 3


def test_a_model_may_have_an_input_called_label(tmp_path: Path) -> None:
    feeds = [VECTOR, FeedSpec("label", "int64", (-1, 1))]
    samples = take([[np.ones((2, 2), "float32"), np.array([[3], [4]])]], feeds, 9, tmp_path, "mine")
    assert samples.labels is None and samples.feeds["label"][1].tolist() == [4]


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        ([], "mine: gives no samples"),
        (3, "mine: int is no loader"),
        ([{"y": np.ones((1, 2))}], "mine: batch 0 holds `y`, but the model's inputs are `x`"),
        ([[np.ones((1, 2))] * 3], "a list of 3, but the model has 1 inputs"),
        ([[np.ones((1, 2)) * 1j]], "`x` is complex128"),
        ([["text"]], "`x` is <U4"),
        ([[np.array([{}])]], "`x` is object"),
        ([[np.ones((2, 2), "float32"), np.array([1])]], "different numbers of samples: `x` 2, `label` 1"),
        ([[np.ones((1, 2), "float32")], [np.ones((1, 2, 2), "float32")]], "sample 1 has for `x` float32 of 2 axes"),
        ([[np.ones((1, 2), "float32")], [np.ones((1, 2), "float32"), np.array([1])]], "1 of 2 samples have a label"),
    ],
)
def test_what_is_no_loader_for_the_model_is_told(tmp_path: Path, loader: Any, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        take(loader, [VECTOR], 10, tmp_path, "mine")


def test_floats_are_not_cut_to_whole_numbers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has dtype float64, but the model wants int64"):
        take([[np.ones((1, 2))]], [FeedSpec("x", "int64", (-1, 2))], 10, tmp_path, "mine")


def test_one_sample_cannot_be_dealt_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 samples; give at least two|it takes two"):
        deal_out(rows(1), [VECTOR], (4, 4), tmp_path, "mine")


LOADERS = """
import numpy
def both(count=20, start=0):
    return ([numpy.full((1, 2), start + n, "float32"), numpy.array([n])] for n in range(count))
def other(count=20, start=0):
    return both(count, start + 100)
def fails(count=0, start=0):
    raise KeyError("nothing here")
number = 3
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    (tmp_path / "mine" / "loaders.py").write_text(LOADERS)
    (tmp_path / "mine" / "needy.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]


def call(name: str, **settings: Any) -> Any:
    return read_by("function", [VECTOR], Path.cwd(), path="mine", function=name, **settings)


def test_a_function_of_the_project_feeds_both_roles(project: Path) -> None:
    calibration, evaluation = call("mine.loaders:both", settings={"count": 8, "start": 5}, calibration=3, evaluation=3)
    assert sorted(firsts(calibration) + firsts(evaluation)) == [5, 6, 7, 8, 9, 10]
    assert calibration.labels is None and evaluation.labels is not None


def test_each_role_may_have_a_function(project: Path) -> None:
    calibration, evaluation = call(
        "mine.loaders:both", evaluation_function="mine.loaders:other", calibration=2, evaluation=3
    )
    assert firsts(calibration) == [0, 1] and firsts(evaluation) == [100, 101, 102]
    assert calibration.labels is None and len(evaluation.labels) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yours.loaders:both", "there is no `yours` in"),
        ("mine.others:both", "no module `mine.others`"),
        ("mine.loaders:neither", "has no function `neither`"),
        ("mine.loaders:number", "has no function `number`"),
        ("mine.loaders:fails", "mine.loaders:fails: failed with KeyError: 'nothing here'"),
        ("mine.needy:both", "failed with ModuleNotFoundError: No module named 'a_package_that_is_not_there'"),
        ("os:listdir", "only modules of the project's folder"),
        ("sys:exit", "which is a part of Python; only modules"),
    ],
)
def test_functions_that_cannot_be_used_are_told(project: Path, name: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        call(name)
    assert words in str(caught.value), caught.value


def test_a_module_of_another_folder_is_not_imported(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "strange_loaders.py").write_text(f"open({str(elsewhere / 'ran')!r}, 'w')\n{LOADERS}")
    sys.path.append(str(elsewhere))
    with pytest.raises(InputError, match="strange_loaders.*only modules of the project's folder"):
        call("strange_loaders:both")
    assert not (elsewhere / "ran").exists()


def test_the_name_of_a_function_is_no_expression() -> None:
    for name in ("mine.loaders:both()", "mine.loaders", "mine/loaders.py:both", "mine:a.b", ":both"):
        with pytest.raises(ValueError, match="function"):
            call(name)


@pytest.mark.stage
def test_prepare_takes_pictures_and_functions(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for number in range(4):
        picture(tmp_path / "pictures" / f"{number}.jpg", (number * 60, 100, 20), (200, 60))
    (tmp_path / "pictures" / "list.txt").write_text("".join(f"{number}.jpg {number % 2}\n" for number in range(4)))
    place.job["data"] = {"reader": "image_folder", "path": "pictures", "calibration_list": "list.txt"}
    place.job["data"] |= {"size": [48, 192], "resize": None, "mean": [0.5] * 3, "std": [0.5] * 3}
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert "2 calibration and 2 evaluation samples" in done.stdout
    (tmp_path / "my_loader.py").write_text(
        "import numpy, paddle\n"
        "def loader():\n"
        "    x = numpy.zeros((6, 3, 48, 192), 'float32')\n"
        "    return paddle.io.DataLoader(paddle.io.TensorDataset([x, numpy.arange(6) % 2]), batch_size=4)\n"
    )
    place.job["data"] = {"reader": "function", "path": "my_loader.py", "function": "my_loader:loader", "calibration": 2}
    place.job["data"]["evaluation"] = 4
    done = place.run()
    assert done.returncode == 0, done.stderr + done.stdout
    assert "2 calibration and 4 evaluation samples" in done.stdout
    place.job["data"]["function"] = "my_loader:others"
    done = place.run()
    assert done.returncode == 2 and "has no function `others`" in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "artifacts/mine").iterdir()] == ["prepare"]
