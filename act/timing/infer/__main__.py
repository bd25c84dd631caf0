"""`python -m act.timing.infer --config configs/infer.yaml`: latency of any model, in the way of ACT's `infer.py`.

Prints a table, and writes the same figures as JSON with `--json FILE`. The exit code is 0 when the first model was
measured on at least one engine, 1 when it was not (its rows say why), 2 when settings or model files are wrong.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, get_origin

from act.errors import InputError, exit_on_input_error
from act.settings import parse
from act.timing.infer.settings import Infer, read


def main() -> None:
    """Parse the command line, measure, and print."""
    arguments = vars(_parser().parse_args())
    config, output = arguments.pop("config"), arguments.pop("json")
    with exit_on_input_error():
        settings = read(config, {name: given for name, given in arguments.items() if given is not None})
        if output is not None and not output.absolute().parent.is_dir():
            raise InputError(f"{output}: there is no such folder to write to")
        # Settings and flags are checked before the libraries that read models are loaded.
        from act.timing.infer.measure import measure, plans
        from act.timing.infer.table import render
        from act.timing.side_by_side import progress_bar

        chosen = plans(settings)
        with progress_bar("infer", len(chosen) + settings.rounds) as progress:
            figures = measure(chosen, settings, progress)
        if output is not None:
            figures.write(output)
    print(render(figures))
    sys.exit(0 if any(row.failure is None for row in figures.models if row.model == figures.models[0].model) else 1)


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
        if not field.is_required():
            text += f" (default: {json.dumps(field.get_default(call_default_factory=True))})"
        options: dict[str, Any] = {"help": text.replace("%", "%%"), "metavar": name.upper()}
        if "str" not in str(field.annotation):
            options["type"] = _yaml
        if field.annotation is bool:
            options |= {"nargs": "?", "const": True, "metavar": "true|false"}
        elif get_origin(field.annotation) in (list, tuple):
            options["nargs"] = "*"
        parser.add_argument(f"--{name}", **options)
    return parser


def _yaml(text: str) -> Any:
    """Return what the text would be in the YAML file, so that both are checked by the same rules."""
    try:
        return parse(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
