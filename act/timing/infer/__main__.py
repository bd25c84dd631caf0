"""`python -m act.timing.infer --config configs/infer.yaml`: latency of any model, in the way of ACT's `infer.py`.

Prints a table, and writes the same figures as JSON with `--json FILE`. The exit code is 0 when the first model was
measured on at least one engine, 1 when it was not (its rows say why), 2 when settings or model files are wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_origin

import yaml
from tqdm import tqdm

from act.errors import InputError, exit_on_input_error
from act.results.benchmark import InferFigures
from act.timing.infer.settings import Infer, read
from act.timing.infer.table import render


def main() -> None:
    """Parse the command line, measure, and print."""
    arguments = _parser().parse_args()
    flags = {
        name: _value(name, given) for name in Infer.model_fields if (given := getattr(arguments, name)) is not None
    }
    with exit_on_input_error():
        settings = read(arguments.config, flags)
        if arguments.json is not None and not arguments.json.absolute().parent.is_dir():
            raise InputError(f"{arguments.json}: there is no such folder to write to")
        figures = _measure(settings)
        if arguments.json is not None:
            figures.write(arguments.json)
    print(render(figures))
    first = [row for row in figures.models if row.model == figures.models[0].model]
    sys.exit(0 if any(row.failure is None for row in first) else 1)


def _measure(settings: Infer) -> InferFigures:
    # Settings and flags are checked before the libraries that read models are loaded.
    from act.timing.infer.measure import measure, plans

    chosen = plans(settings)
    with tqdm(total=len(chosen) + settings.rounds, desc="infer", unit="step") as bar:

        def progress(done: str) -> None:
            bar.set_postfix_str(done)
            bar.update()

        measured = measure(chosen, settings, progress)
        bar.total = bar.n
    return measured


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m act.timing.infer",
        description="Measure the latency of any Paddle or ONNX model, alone or beside others, on random data.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, help="YAML file with the settings below; flags win over it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    for name, field in Infer.model_fields.items():
        text = field.description or ""
        default = "" if field.is_required() else f" (default: {_plain(field.default)})"
        options: dict[str, Any] = {"help": (text + default).replace("%", "%%"), "metavar": name.upper()}
        if field.annotation is bool:
            options |= {"nargs": "?", "const": "true", "metavar": "true|false"}
        elif get_origin(field.annotation) in (list, tuple):
            options["nargs"] = "*"
        parser.add_argument(f"--{name}", **options)
    return parser


def _plain(default: Any) -> str:
    if isinstance(default, (list, tuple)):
        return " ".join("x".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in default)
    return "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def _value(name: str, given: str | Sequence[str]) -> Any:
    """Return what the same text would be in the YAML file, so that both are checked by the same rules."""
    if isinstance(given, str):
        text = Infer.model_fields[name].annotation in (str, str | None)
        return given if text else _scalar(given)
    return [_scalar(part) if name == "image_size" else part for part in given]


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


if __name__ == "__main__":
    main()
