"""Pictures as they come from cameras, systems and other people's lists; boxes and masks that go through the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from act.errors import InputError
from act.metrics import scorer
from act.samples.dataset import PADDING, FeedSpec
from act.samples.listing import entries
from act.samples.readers import read
from act.settings.data import settings_of_reader

PLAIN: dict[str, Any] = {"mean": [0.0], "std": [1.0], "scale": 1.0}
WIDE = np.zeros((4, 8, 3), np.uint8)
WIDE[:, 4:] = 200  # the right half is light


def feed(height: int = 8, width: int = 8, channels: int = 3) -> FeedSpec:
    return FeedSpec("x", "float32", (-1, channels, height, width))


def read_by(reader: str, root: Path, feeds: list[FeedSpec], **settings: Any) -> Any:
    data = {"reader": reader, "path": str(root), **PLAIN, **settings}
    return read(settings_of_reader(data).model_validate(data), feeds, -1, root.parent)


def images(root: Path, spec: FeedSpec | None = None, **settings: Any) -> list[Any]:
    calibration, evaluation = read_by("image_folder", root, [spec or feed()], **{"resize": None, **settings})
    return [*calibration.feeds["x"], *evaluation.feeds["x"]]


def saved(root: Path, image: Image.Image, *names: str, **options: Any) -> Path:
    root.mkdir(exist_ok=True)
    for name in names:
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        image.save(root / name, **options)
    return root


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    root = saved(tmp_path / "all", Image.fromarray(ramp), "a.png", "b.png")
    for channels in (1, 3):
        np.testing.assert_allclose(images(root, feed(channels=channels))[0][0], ramp / 257, atol=0.51)


def test_a_picture_stands_upright_and_what_is_transparent_is_white(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    root = saved(tmp_path / "turned", Image.fromarray(WIDE), "a.png", "b.png", exif=exif)
    upright = images(root, feed(8, 4))[0][0]
    assert (upright[:4] == 0).all() and (upright[4:] == 200).all()
    clear = np.dstack([WIDE, np.where(WIDE[..., 0] == 200, 0, 255).astype(np.uint8)])
    root = saved(tmp_path / "clear", Image.fromarray(clear), "a.png", "b.png")
    assert images(root, feed(4, 8))[0][0][0].tolist() == [0] * 4 + [255] * 4


def test_what_systems_leave_is_no_data_and_links_in_the_folder_are_the_users_own(tmp_path: Path) -> None:
    root = saved(tmp_path / "all", Image.fromarray(WIDE), "a.png", "b.png", ".ipynb_checkpoints/a.png")
    for name in ("._a.png", "__MACOSX/._a.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"\0\5\x16\7")
    store = saved(tmp_path / "store", Image.fromarray(WIDE), "c.png")
    (root / "c.png").symlink_to(store / "c.png")
    (root / "more").symlink_to(store)
    (root / "circle").symlink_to(root)
    assert [entry.path.relative_to(root).as_posix() for entry in entries(str(root), None, "it")] == [
        "a.png", "b.png", "c.png", "more/c.png",
    ]  # fmt: skip
    (root / "list.txt").write_text("more/c.png 1\nc.png 0\n")
    assert len(images(root, calibration_list="list.txt")) == 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"a.jpg\t0\nb.jpg\t1\n", [("a.jpg", 0), ("b.jpg", 1)]),
        (b"sub dir/c d.jpg\t3\na.jpg \t0\n", [("sub dir/c d.jpg", 3), ("a.jpg", 0)]),
        (b"\xef\xbb\xbfa.jpg 0\r\n", [("a.jpg", 0)]),
        ("a.jpg 0\n".encode("utf-16"), [("a.jpg", 0)]),
        (b"a.jpg,0\nb.jpg;1\nb.jpg, 2\n", [("a.jpg", 0), ("b.jpg", 1), ("b.jpg", 2)]),
        (b"sub dir\\c d.jpg 4\n", [("sub dir/c d.jpg", 4)]),
        (b"\"sub dir/c d.jpg\" 5\n'a.jpg',1\n", [("sub dir/c d.jpg", 5), ("a.jpg", 1)]),
        (b"# made by hand\nimage label\n./a.jpg 3.0\n", [("a.jpg", 3)]),
        (b"path,class\na.jpg,0\n", [("a.jpg", 0)]),
        ("图 1.jpg 0\n".encode(), [("图 1.jpg", 0)]),
        (b"a.jpg\nb.jpg\n", [("a.jpg", None), ("b.jpg", None)]),
    ],
)
def test_lists_are_read_as_people_write_them(tmp_path: Path, text: bytes, found: list[Any]) -> None:
    root = saved(tmp_path / "all", Image.fromarray(WIDE), "a.jpg", "b.jpg", "sub dir/c d.jpg", "图 1.jpg")
    (root / "list.txt").write_bytes(text)
    named = [(each.path.relative_to(root).as_posix(), each.label) for each in entries(str(root), "list.txt", "it")]
    assert named == found


def test_a_list_in_another_encoding_is_refused(tmp_path: Path) -> None:
    root = saved(tmp_path / "all", Image.fromarray(WIDE), "a.jpg")
    (root / "list.txt").write_bytes("中文 1.jpg 0\n".encode("gbk"))
    with pytest.raises(InputError, match="cannot be read as a list: .*in UTF-8"):
        entries(str(root), "list.txt", "it")


def test_pictures_are_put_into_a_letterbox_and_channels_where_the_model_has_them(tmp_path: Path) -> None:
    root = saved(tmp_path / "all", Image.fromarray(WIDE), "a.png", "b.png")
    boxed = images(root, fit="letterbox", interpolation="nearest")[0]
    assert (boxed[:, :2] == 114).all() and (boxed[:, 6:] == 114).all() and (boxed[:, 2:6, 4:] == 200).all()
    corner = images(root, fit="letterbox", corner=True, fill=0, interpolation="nearest")[0]
    assert (corner[:, 4:] == 0).all() and (corner[:, :4, 4:] == 200).all()
    last = images(root, FeedSpec("x", "uint8", (-1, 8, 8, 3)), fit="letterbox", interpolation="nearest")[0]
    assert last.shape == (8, 8, 3) and last.dtype == np.uint8 and (last == boxed.transpose(1, 2, 0)).all()


def test_without_antialias_only_the_nearest_pixels_count(tmp_path: Path) -> None:
    stripes = np.tile(np.repeat([[0], [0], [80], [160]], 16, axis=1).reshape(4, 16), (4, 1)).astype(np.uint8)
    root = saved(tmp_path / "all", Image.fromarray(stripes), "a.png", "b.png")
    plain = images(root, feed(4, 16, 1), antialias=False)[0][0]
    assert (plain == 40).all()  # the mean of rows 1 and 2 of four
    assert images(root, feed(4, 16, 1))[0][0][1, 0] == pytest.approx(60, abs=8)


def annotated(root: Path) -> Path:
    saved(root, Image.fromarray(WIDE), "calibration/a.png", "evaluation/a.png")
    box = {"id": 1, "image_id": 7, "category_id": 90, "bbox": [4, 0, 4, 4], "iscrowd": 0}
    content = {"images": [{"id": 7, "file_name": "a.png"}], "categories": [{"id": 90}, {"id": 3}], "annotations": [box]}
    for role in ("calibration", "evaluation"):
        (root / f"{role}.json").write_text(json.dumps(content))
    return root


def test_boxes_go_where_their_picture_goes(tmp_path: Path) -> None:
    root = annotated(tmp_path / "all")
    feeds = [FeedSpec("im_shape", "float32", (-1, 2)), feed(16, 16), FeedSpec("scale_factor", "float32", (-1, 2))]
    calibration, evaluation = read_by("coco", root, feeds, fit="letterbox")
    assert calibration.labels is None and list(evaluation.feeds) == ["im_shape", "x", "scale_factor"]
    assert evaluation.feeds["im_shape"][0].tolist() == [16, 16] and evaluation.feeds["scale_factor"][0].tolist() == [
        1,
        1,
    ]
    assert evaluation.labels[0].tolist() == [[-1, 0, 4, 16, 12, 0], [1, 8, 4, 16, 12, 0]]
    stretched = read_by("coco", root, [feed(16, 16)], fit="stretch", classes="id")[1]
    assert stretched.labels[0].tolist() == [[-1, 0, 0, 16, 16, 0], [90, 8, 0, 16, 16, 0]]
    metric = scorer({"name": "coco_map", "decoder": "paddle_nms"}, stretched)
    metric.add([np.array([[90, 0.8, 8, -9, 30, 16]])])
    assert metric.quality().value == pytest.approx(1)  # cut to the picture


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": [{"id": 7, "file_name": "../b.png"}]}, "image 0: '../b.png' leads out of"),
        ({"images": [{"id": 7}]}, "image 0: needs a number `id` and a text `file_name`"),
        ({"annotations": [{"image_id": 8, "category_id": 3}]}, "annotation 0: its `image_id` 8 is none"),
        ({"annotations": [{"image_id": 7, "category_id": 4}]}, "annotation 0: its `category_id` 4 is none"),
        ({"annotations": [{"image_id": 7, "category_id": 3, "bbox": [0, 0, -1, 2]}]}, "annotation 0: its `bbox` is"),
        ({"categories": 3}, "no list `categories`"),
        ({"images": []}, "annotation 0: its `image_id` 7 is none"),
    ],
)
def test_wrong_annotations_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    root = annotated(tmp_path / "all")
    path = root / "calibration.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=words):
        read_by("coco", root, [feed()])


def test_masks_go_where_their_picture_goes(tmp_path: Path) -> None:
    root = saved(tmp_path / "all", Image.fromarray(WIDE), "calibration/images/a.png", "evaluation/images/a.png")
    mask = np.repeat([[0, 1, 2, 255]], 2, axis=1).repeat(4, axis=0).astype(np.uint8)
    saved(root, Image.fromarray(mask), "evaluation/labels/a.png")
    _, evaluation = read_by("mask_folder", root, [feed()], fit="letterbox")
    assert evaluation.labels.dtype == np.int16 and evaluation.labels[0][4].tolist() == [
        0,
        0,
        1,
        1,
        2,
        2,
        PADDING,
        PADDING,
    ]
    assert (evaluation.labels[0][:2] == PADDING).all()
    (root / "evaluation/labels/a.png").rename(root / "evaluation/labels/b.png")
    with pytest.raises(InputError, match=r"a.png: has no mask `a.png`"):
        read_by("mask_folder", root, [feed()], fit="letterbox")
