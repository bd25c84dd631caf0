"""`python -m flows.act_config FILE --job NAME`: make an ACT configuration an entry of params.yaml, or renew the entry.

DVC cannot follow a file that only some jobs name (`foreach` has no such dependency), and would repeat every stage for
any change of it. So what the file says is written into the job's entry, comments kept, where DVC follows each setting
by itself; the entry's key `act_config` names the file, and a job whose entry lags behind its file does not start.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

from act.errors import InputError, exit_on_input_error
from act.paddleslim import Translation, merged, read
from act.settings import DEFAULT_PATH, Job, Params, read_mapping, settings_in, validate

_IF_NOTHING_IS_SAID: dict[str, Any] = {"metric": "similarity", "strategy": "auto"}


def main() -> None:
    """Parse the command line and write, or print, the entry."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.act_config", description="Make an ACT configuration an entry of params.yaml."
    )
    parser.add_argument("file", type=Path, help="ACT's YAML file")
    parser.add_argument("--job", required=True, help="the entry's name: a new one, or one that is there")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting that the file does not say, such as data.path=data/mine; may be given several times",
    )
    parser.add_argument("--print", action="store_true", help="only print the entry")
    arguments = parser.parse_args()
    with exit_on_input_error():
        entry, translation = entry_of(arguments.file, arguments.job, settings_of(arguments.set))
        for warning in translation.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if arguments.print:
            print(yaml.safe_dump({"jobs": {arguments.job: entry}}, sort_keys=False, default_flow_style=None), end="")
            return
        changed = write(arguments.job, entry)
    print(f"{DEFAULT_PATH}: {'; '.join(changed) if changed else f'job `{arguments.job}` is up to date'}")


def settings_of(texts: Sequence[str]) -> dict[str, Any]:
    """Sections of a job from texts such as `data.path=data/mine`; the value is YAML.

    Raises:
        InputError: a text is of another form.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        parts = key.split(".")
        if not sign or not all(parts):
            raise InputError(f"--set {text!r}: must be KEY=VALUE, such as data.path=data/mine")
        try:
            inner: Any = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            raise InputError(f"--set {text!r}: {value!r} is not valid YAML; put it in quotes") from None
        for part in reversed(parts):
            inner = {part: inner}
        settings = merged(settings, inner)
    return settings


def entry_of(
    file: Path, job: str, settings: Mapping[str, Any], params: Path = DEFAULT_PATH
) -> tuple[dict[str, Any], Translation]:
    """Return a job's entry: what is there, above it what the file says, above that the settings; and the translation.

    Raises:
        InputError: the file, params.yaml, or what comes of both is wrong.
    """
    translation = read(file)
    jobs = read_mapping(params, "run from the folder that holds it").get("jobs") if params.exists() else {}
    old = jobs.get(job) if isinstance(jobs, dict) else None
    entry = dict(old) if isinstance(old, dict) else {}
    for above in (translation.job, settings):
        if _reader(above) not in (None, _reader(entry)):
            entry.pop("data", None)  # the keys of one reader mean nothing to another
        entry = merged(entry, above)
    entry["act_config"] = str(file)
    for name, known in Job.model_fields.items():
        # DVC misses a section that is left out, even where it may be.
        section = known.is_required() or settings_in(known.annotation) is not None
        if section and name not in ("model", "data"):
            entry.setdefault(name, _IF_NOTHING_IS_SAID.get(name, {}))
    for name, example in (
        ("model", "model.path=models/mine"),
        ("data", "data.reader=arrays --set data.path=data/mine"),
    ):
        if name not in entry:
            raise InputError(f"{file}: says nothing of the job's `{name}`; add it, such as `--set {example}`")
    validate(Params, {"jobs": {job: entry}}, f"{file}, as an entry of {params}")
    return {name: entry[name] for name in Job.model_fields if name in entry}, translation


def write(job: str, entry: Mapping[str, Any], params: Path = DEFAULT_PATH) -> list[str]:
    """Put an entry into params.yaml, where it differs from what is there; the rest of the file stays as it is.

    Returns:
        A few words on each change.

    Raises:
        InputError: params.yaml has no mapping `jobs`.
    """
    round_trip = YAML()
    round_trip.Representer = _Representer
    round_trip.width = 120
    round_trip.indent(mapping=2, sequence=4, offset=2)
    whole: Any = round_trip.load(params.read_text(encoding="utf-8")) if params.exists() else {}
    jobs = whole.setdefault("jobs", {}) if isinstance(whole, dict) else None
    if not isinstance(jobs, dict):
        raise InputError(f"{params}: `jobs` must hold a mapping (`name: settings`)")
    if not isinstance(jobs.get(job), dict):
        changed = [f"job `{job}` is new"]
        jobs[job] = _written(entry)
    else:
        changed = _put(jobs[job], entry, "")
    text = io.StringIO()
    round_trip.dump(whole, text)
    partial = params.with_name(f".{params.name}.partial-{os.getpid()}")
    partial.write_text(text.getvalue(), encoding="utf-8")
    partial.rename(params)
    return changed


class _Representer(RoundTripRepresenter):
    """Writes 1e-05 as 1.0e-05: what reads params.yaml takes the other for a text."""

    def represent_float(self, data: Any) -> Any:
        node = super().represent_float(data)
        if "e" in node.value and "." not in node.value:
            node.value = node.value.replace("e", ".0e", 1)
        return node


_Representer.add_representer(float, _Representer.represent_float)


def _written(value: Any) -> Any:
    """Return a value as the file is to have it: lists of single values on one line."""
    if isinstance(value, Mapping):
        return {key: _written(inner) for key, inner in value.items()}
    if not isinstance(value, list):
        return value
    written = CommentedSeq(_written(inner) for inner in value)
    if not any(isinstance(inner, (list, Mapping)) for inner in value):
        written.fa.set_flow_style()
    return written


def _put(there: Any, wanted: Mapping[str, Any], prefix: str) -> list[str]:
    """Change a mapping of the file where it differs, in place."""
    changed = []
    for key in [key for key in there if key not in wanted]:
        del there[key]
        changed.append(f"`{prefix}{key}` removed")
    for key, value in wanted.items():
        old = there.get(key)
        if isinstance(value, Mapping) and isinstance(old, dict):
            changed += _put(old, value, f"{prefix}{key}.")
        elif key not in there or old != value:
            there[key] = _written(value)
            changed.append(f"`{prefix}{key}` is now {value!r:.60}")
    return changed


def _reader(job: Mapping[str, Any]) -> Any:
    data = job.get("data")
    return data.get("reader") if isinstance(data, Mapping) else None


if __name__ == "__main__":
    main()
