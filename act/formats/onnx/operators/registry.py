"""The operators that can be imported: each a function under a decorator that names operator, domain and versions.

A function takes a `Node` and returns what the node computes: a Paddle variable, a constant (an array), or a tuple of
them for several outputs. It raises `Refused` where the operator cannot be taken as it is used there.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from act.formats.onnx.node import Node

Function = Callable[[Node], Any]


@dataclass(frozen=True)
class Operator:
    """How an operator of a range of opset versions is imported."""

    since: int
    until: int | None
    function: Function


_OPERATORS: dict[tuple[str, str], list[Operator]] = {}


def operator(*types: str, since: int = 1, until: int | None = None, domain: str = "") -> Callable[[Function], Function]:
    """Import operators of these types and opset versions (both ends included) by the function below."""

    def register(function: Function) -> Function:
        for each in types:
            _OPERATORS.setdefault((domain, each), []).append(Operator(since, until, function))
        return function

    return register


@cache
def operators() -> dict[tuple[str, str], list[Operator]]:
    """Return all operators by domain and type."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")
    return _OPERATORS


def find(domain: str, kind: str, version: int) -> Function | None:
    """Return the function for an operator of an opset version; None where there is none."""
    for each in operators().get((domain, kind), ()):
        if each.since <= version and (each.until is None or version <= each.until):
            return each.function
    return None
