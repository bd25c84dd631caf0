"""`python -m flows.act_config FILE --job NAME`: make an ACT configuration an entry of params.yaml, or renew the entry.

DVC cannot follow a file that only some jobs name (`foreach` has no such dependency), and would repeat every stage for
any change of it. So what the file says is written into the job's entry, comments kept, where DVC follows each setting
by itself; the entry's key `act_config` names the file, and a job whose entry lags behind its file does not start.
"""

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

from act.errors import InputError, exit_on_input_error
from act.paddleslim.translate import merged, read
from act.settings import DEFAULT_PATH, Job, Params, parse, read_mapping, settings_in, validate


def main() -> None:
    """Parse the command line and write, or print, the entry."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.act_config", description="Make an ACT configuration an entry of params.yaml."
    )
    parser.add_argument("file", type=Path, help="ACT's YAML file")
    parser.add_argument("--job", required=True, help="the entry's name: a new one, or one that is there")
    told = "a setting that the file does not say, such as data.path=data/mine; may be given several times"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=told)
    parser.add_argument("--print", action="store_true", help="only print the entry")
    arguments = parser.parse_args()
    with exit_on_input_error():
        entry = entry_of(arguments.file, arguments.job, settings_of(arguments.set))
        if arguments.print:
            print(yaml.safe_dump({"jobs": {arguments.job: entry}}, sort_keys=False, default_flow_style=None), end="")
            return
        changed = write(arguments.job, entry)
    print(f"{DEFAULT_PATH}: {'; '.join(changed) if changed else f'job `{arguments.job}` is up to date'}")


def settings_of(texts: Sequence[str]) -> dict[str, Any]:
    """Return sections of a job from texts such as `data.path=data/mine`, of which the value is YAML."""
    settings: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        parts = key.split(".")
        if not sign or not all(parts):
            raise InputError(f"--set {text!r}: must be KEY=VALUE, such as data.path=data/mine")
        try:
            inner: Any = parse(value)
        except ValueError:
            raise InputError(f"--set {text!r}: {value!r} is not valid YAML; put it in quotes") from None
        for part in reversed(parts):
            inner = {part: inner}
        settings = merged(settings, inner)
    return settings


def entry_of(file: Path, job: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's entry: what is there, above it what the file says, above that the settings; warn on stderr."""
    translation = read(file)
    for warning in translation.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    params = read_mapping(DEFAULT_PATH, "run from the folder that holds it") if DEFAULT_PATH.exists() else {}
    jobs = params.get("jobs")
    old = jobs.get(job) if isinstance(jobs, dict) else None
    entry = dict(old) if isinstance(old, dict) else {}
    for above in (translation.job, settings):
        if _reader(above) not in (None, _reader(entry)):
            entry.pop("data", None)  # the keys of one reader mean nothing to another
        entry = merged(entry, above)
    for name, example in {"model": "model.path=mine", "data": "data.reader=arrays --set data.path=mine"}.items():
        if name not in entry:
            raise InputError(f"{file}: says nothing of the job's `{name}`; add it, such as `--set {example}`")
    entry = completed({**entry, "act_config": str(file)})
    validate(Params, {"jobs": {job: entry}}, f"{file}, as an entry of {DEFAULT_PATH}")
    return {name: entry[name] for name in Job.model_fields if name in entry}


def completed(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's entry with each section that it lacks, because DVC misses them even where they may be left out."""
    sections = [name for name, known in Job.model_fields.items() if settings_in(known.annotation) is not None]
    return {"metric": "similarity", "strategy": "auto", **{name: {} for name in sections}, **entry}


def write(job: str, entry: Mapping[str, Any]) -> list[str]:
    """Put an entry into params.yaml; what is the same stays as it is. Return a few words on each change."""
    round_trip = YAML()
    round_trip.width = 120
    round_trip.default_flow_style = None  # what holds single values only is one line
    round_trip.indent(mapping=2, sequence=4, offset=2)
    params: Any = round_trip.load(DEFAULT_PATH) if DEFAULT_PATH.exists() else {}
    jobs = params.setdefault("jobs", {}) if isinstance(params, dict) else None
    if not isinstance(jobs, dict):
        raise InputError(f"{DEFAULT_PATH}: `jobs` must hold a mapping (`name: settings`)")
    # By way of a text: there 1e-05 is 1.0e-05, for what reads params.yaml takes the other for a text.
    entry = round_trip.load(yaml.safe_dump(dict(entry), sort_keys=False, default_flow_style=None))
    if isinstance(jobs.get(job), dict):
        changed = _update(jobs[job], entry, "")
    else:
        changed = [f"job `{job}` is new"]
        jobs[job] = entry
    text = io.StringIO()
    round_trip.dump(params, text)
    partial = DEFAULT_PATH.with_name(f".{DEFAULT_PATH.name}.partial-{os.getpid()}")
    partial.write_text(text.getvalue(), encoding="utf-8")
    partial.rename(DEFAULT_PATH)
    return changed


def _update(found: Any, wanted: Mapping[str, Any], prefix: str) -> list[str]:
    """Change a mapping of the file where it differs, in place; return a few words on each change."""
    changed = []
    for key in [key for key in found if key not in wanted]:
        del found[key]
        changed.append(f"`{prefix}{key}` removed")
    for key, value in wanted.items():
        old = found.get(key)
        if isinstance(value, Mapping) and isinstance(old, dict):
            changed += _update(old, value, f"{prefix}{key}.")
        elif key not in found or old != value:
            found[key] = value
            changed.append(f"`{prefix}{key}` is now {value!r:.60}")
    return changed


def _reader(job: Mapping[str, Any]) -> Any:
    data = job.get("data")
    return data.get("reader") if isinstance(data, Mapping) else None


if __name__ == "__main__":
    main()
