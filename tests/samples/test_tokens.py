"""Lines of text as token numbers, with a tokenizer made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from act.errors import InputError
from act.samples.dataset import PADDING, FeedSpec
from act.samples.readers import read
from act.settings.data import settings_of_reader

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "##d"]
IDS, MASK, TYPES = (FeedSpec(n, "int64", (-1, -1)) for n in ("input_ids", "attention_mask", "token_type_ids"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tokenizers = pytest.importorskip("tokenizers")
    kind = tokenizers.Tokenizer(tokenizers.models.WordPiece({w: n for n, w in enumerate(WORDS)}, unk_token="[UNK]"))
    kind.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    kind.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    kind.save(str(tmp_path / "tokenizer.json"))
    for role in ("calibration", "evaluation"):
        (tmp_path / f"{role}.tsv").write_text("1.5\ta b\tcd\tyes\tO X\n0\tc\ta\tno\tX\n")
    return tmp_path


def read_by(root: Path, feeds: list[FeedSpec], **settings: Any) -> Any:
    data = {"reader": "tokens", "path": str(root), "text": 1, **settings}
    return read(settings_of_reader(data).model_validate(data), feeds, -1, root)


def test_two_texts_are_one_sample_with_a_class_or_two_with_a_score(root: Path) -> None:
    calibration, together = read_by(root, [IDS, MASK, TYPES], second=2, label=3, classes=["no", "yes"])
    assert calibration.labels is None and [int(each[0]) for each in together.labels] == [1, 0]
    assert together.feeds["input_ids"][0].tolist() == [2, 4, 5, 3, 6, 7, 3]
    assert together.feeds["token_type_ids"][0].tolist() == [0, 0, 0, 0, 1, 1, 1]
    _, apart = read_by(root, [MASK, IDS], second=2, label=0, kind="score", apart=True, length=5)
    assert [each.tolist() for each in apart.feeds["input_ids"]][:2] == [[2, 4, 5, 3, 0], [2, 6, 7, 3, 0]]
    assert apart.feeds["attention_mask"][0].tolist() == [1, 1, 1, 1, 0]
    assert [float(each[0]) for each in apart.labels] == [1.5, 1.5, 0, 0]


def test_a_tag_stands_at_the_first_token_of_its_word(root: Path) -> None:
    (root / "evaluation.tsv").write_text("1\tcd b\t\t\tX O\n")
    _, found = read_by(root, [IDS], label=4, kind="tags", classes=["O", "X"])
    assert found.labels[0].tolist() == [PADDING, 1, PADDING, 0, PADDING]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label": 9}, "line 1: has 5 columns, but column 9"),
        ({"label": 3}, "the label 'yes' is no class number"),
        ({"label": 3, "classes": ["no"]}, "the label 'yes' is none of `data.classes`"),
        ({"label": 3, "kind": "score"}, "the label 'yes' is no number"),
        ({"tokenizer": "evaluation.tsv"}, "evaluation.tsv: no tokenizer"),
        ({"calibration_file": "../x.tsv"}, "leads out of"),
        ({"inputs": {"y": "ids"}}, "`data.inputs` names `y`; the model's inputs are `input_ids`"),
    ],
)
def test_wrong_tables_are_named(root: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_by(root, [IDS], **settings)
