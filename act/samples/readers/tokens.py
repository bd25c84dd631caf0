"""Lines of text with a label, in a table of columns, as token numbers: GLUE's and CLUE's files, and pairs to compare.

The tokenizer is a file `tokenizer.json`, which holds all of it; nothing is downloaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from act.errors import InputError, quoted
from act.samples.dataset import PADDING, Array, FeedSpec, Ragged, Samples
from act.samples.listing import dealt, inside, thinned
from act.settings.base import Text
from act.settings.data import Data, Labels
from act.settings.files import read_text

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Column = Annotated[int, Field(ge=0, le=1000)]
Role = Literal["ids", "mask", "types"]
# What the names of a model's inputs have in them, and what it is then; the first that fits.
_NAMES: tuple[tuple[str, Role], ...] = (
    ("mask", "mask"), ("type", "types"), ("segment", "types"), ("id", "ids"), ("token", "ids"), ("input", "ids"),
)  # fmt: skip
_DEFAULT_LENGTH = 512


class Settings(Data):
    """Lines of text with a label, in a table with tabs between its columns, and a tokenizer's file."""

    path: Text = Field(description="folder that holds the files below")
    tokenizer: Text = "tokenizer.json"
    calibration_file: Text = "calibration.tsv"
    evaluation_file: str | None = Field(default="evaluation.tsv", min_length=1)
    """null: the lines of `calibration_file` are dealt out to both"""
    header: bool = Field(default=False, description="whether a first line names the columns")
    text: Column = Field(default=0, description="column of the text, counted from 0")
    second: Column | None = Field(default=None, description="column of a second text")
    apart: bool = False
    """whether two texts are two samples, one after the other (embeddings that are compared), rather than one"""
    label: Column | None = Field(default=None, description="column of the label of the evaluation lines")
    kind: Literal["class", "score", "tags"] = "class"
    """what a label is: a class; a number; or a class for each word of the text, with spaces between"""
    classes: list[Text] = Field(default=[], max_length=100_000)
    """names of the classes in the model's order; when left out, labels are numbers"""
    length: int | None = Field(default=None, ge=2, le=8192)
    """tokens of each sample, cut or filled up; when left out, what the model's input asks for, or as many as there are,
    at most 512"""
    inputs: dict[str, Role] = Field(default={}, max_length=16)
    """what the model's inputs are, where their names do not tell: `ids`, `mask` (1 where there is a token) or `types`
    (1 for the second text)"""
    calibration: int = Field(default=128, ge=1, le=1_000_000, description="lines at most, evenly from the file")
    evaluation: int = Field(default=512, ge=1, le=1_000_000, description="lines at most, evenly from the file")

    @model_validator(mode="after")
    def _columns_fit(self) -> Settings:
        if self.apart and self.second is None:
            raise ValueError("`apart` needs `second`, the column of the second text")
        if self.apart and self.kind != "score":
            raise ValueError("`apart` needs `kind: score`: two samples have no class in common")
        if self.kind == "tags" and self.second is not None:
            raise ValueError("`kind: tags` is for one text a line: leave out `second`")
        return self

    @property
    def labels(self) -> Labels | None:
        kinds: dict[str, Labels] = {"class": "class", "score": "score", "tags": "classes"}
        return "nothing" if self.label is None else kinds[self.kind]


@dataclass(frozen=True)
class _Line:
    columns: list[str]
    where: str


def read(settings: Settings, feeds: Sequence[FeedSpec], class_count: int, scratch: Path) -> tuple[Samples, Samples]:
    """Read the calibration samples (no labels) and the evaluation samples, with labels where a column has them."""
    root = Path(settings.path)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; the reader `{settings.reader}` needs it")
    roles = _roles(settings, feeds)
    calibration: Sequence[_Line] = _lines(root, settings.calibration_file, settings)
    if settings.evaluation_file not in (None, settings.calibration_file):
        evaluation: Sequence[_Line] = _lines(root, str(settings.evaluation_file), settings)
    else:
        calibration, evaluation = dealt(calibration, settings.path)
    tokenizer = _tokenizer(root, settings, feeds)
    calibrating, _ = _encoded(tokenizer, thinned(calibration, settings.calibration), settings, None)
    evaluating, labels = _encoded(tokenizer, thinned(evaluation, settings.evaluation), settings, settings.label)
    truth = None if settings.label is None else Ragged.of(labels)
    return Samples(_feeds(feeds, roles, calibrating)), Samples(_feeds(feeds, roles, evaluating), truth)


def _roles(settings: Settings, feeds: Sequence[FeedSpec]) -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for feed in feeds:
        guessed = next((role for part, role in _NAMES if part in feed.name.lower()), None)
        role = settings.inputs.get(feed.name, "ids" if guessed is None and len(feeds) == 1 else guessed)
        if role is None or len(feed.shape) != 2:
            cure = "say with `data.inputs` what it is, or use `arrays` or `function`"
            raise InputError(
                f"the model's input `{feed.name}` {list(feed.shape)} is none of tokens, as it seems; {cure}"
            )
        roles[feed.name] = role
    if strange := settings.inputs.keys() - roles.keys():
        raise InputError(f"`data.inputs` names {quoted(sorted(strange))}; the model's inputs are {quoted(roles)}")
    return roles


def _lines(root: Path, name: str, settings: Settings) -> list[_Line]:
    path = inside(root, name, f"`data` names the file {name!r}, which")
    text = read_text(path, f"name a table inside {root}").removeprefix("\ufeff")
    # Not `splitlines`: texts may hold other separators of lines.
    rows = [(n, row.removesuffix("\r")) for n, row in enumerate(text.split("\n"), 1) if row.strip()]
    columns = [each for each in (settings.text, settings.second, settings.label) if each is not None]
    lines = [_Line(row.split("\t"), f"{path}, line {number}") for number, row in rows[int(settings.header) :]]
    for line in lines:
        if len(line.columns) <= max(columns):
            told = f"has {len(line.columns)} columns, but column {max(columns)} is asked for, counted from 0"
            raise InputError(f"{line.where}: {told}; put tabs between the columns")
    if not lines:
        raise InputError(f"{path}: holds no lines")
    return lines


def _tokenizer(root: Path, settings: Settings, feeds: Sequence[FeedSpec]) -> Tokenizer:
    from tokenizers import Tokenizer

    path = inside(root, settings.tokenizer, f"`data.tokenizer` is {settings.tokenizer!r}, which")
    text = read_text(path, "name the file `tokenizer.json` of the model")
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # its only kind
        raise InputError(f"{path}: no tokenizer: {' '.join(str(error).split())}") from None
    fixed = next((feed.shape[1] for feed in feeds if feed.shape[1] != -1), None)
    length = settings.length or fixed
    if fixed is not None and length != fixed:
        raise InputError(f"`data.length` is {length}, but the model takes {fixed} tokens; leave it out")
    tokenizer.enable_truncation(length or _DEFAULT_LENGTH)
    filler = _filler(tokenizer)
    tokenizer.no_padding() if length is None else tokenizer.enable_padding(length=length, **filler)
    return tokenizer


def _filler(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what fills up, as the file says it, or else a token with a usual name."""
    if tokenizer.padding is not None:
        return {key: tokenizer.padding[key] for key in ("pad_id", "pad_type_id", "pad_token")}
    known = {name: tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>", "<|endoftext|>")}
    return next(({"pad_id": number, "pad_token": name} for name, number in known.items() if number is not None), {})


def _encoded(
    tokenizer: Tokenizer, lines: Sequence[_Line], settings: Settings, column: int | None
) -> tuple[list[Encoding], list[Array]]:
    """Return the tokens of each sample, and its label where there is a column of them."""
    label = {"class": _class, "score": _score, "tags": _tags}[settings.kind]
    encodings, labels = [], []
    for line in lines:
        text = line.columns[settings.text]
        second = None if settings.second is None else line.columns[settings.second]
        if settings.kind == "tags":
            found = [tokenizer.encode(text.split(), is_pretokenized=True)]
        elif settings.apart:
            found = [tokenizer.encode(text), tokenizer.encode(second)]
        else:
            found = [tokenizer.encode(text, second)]
        encodings += found
        if column is not None:
            labels += [label(line.columns[column], each, settings, line.where) for each in found]
    return encodings, labels


def _class(written: str, encoding: Encoding, settings: Settings, where: str) -> Array:
    return np.array([_number(written.strip(), settings, where)], dtype=np.int64)


def _tags(written: str, encoding: Encoding, settings: Settings, where: str) -> Array:
    """Return the class of each word at its first token."""
    words = [_number(each, settings, where) for each in written.split()]
    numbers, before = [], None
    for word in encoding.word_ids:
        if word is not None and word >= len(words):
            raise InputError(f"{where}: {len(words)} tags for more words; give one for each, with spaces between")
        numbers.append(PADDING if word is None or word == before else words[word])
        before = word
    return np.array(numbers, dtype=np.int64)


def _number(written: str, settings: Settings, where: str) -> int:
    if settings.classes:
        if written not in settings.classes:
            raise InputError(f"{where}: the label {written!r:.40} is none of `data.classes`")
        return settings.classes.index(written)
    if not written.isdecimal() or len(written) > 9:
        raise InputError(f"{where}: the label {written!r:.40} is no class number; name the classes in `data.classes`")
    return int(written)


def _score(written: str, encoding: Encoding, settings: Settings, where: str) -> Array:
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: the label {written!r:.40} is no number")
    return np.array([number])


_VALUES: dict[Role, Callable[[Any], Any]] = {
    "ids": lambda encoding: encoding.ids,
    "mask": lambda encoding: encoding.attention_mask,
    "types": lambda encoding: encoding.type_ids,
}


def _feeds(feeds: Sequence[FeedSpec], roles: dict[str, Role], encodings: Sequence[Any]) -> dict[str, Ragged]:
    return {
        feed.name: Ragged.of([np.array(_VALUES[roles[feed.name]](each), dtype=feed.dtype) for each in encodings])
        for feed in feeds
    }
