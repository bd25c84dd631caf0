"""An inference model: a Paddle static program with an index, and its weights in a scope of its own.

The index of producers and consumers is made when it is first asked for and kept right by `insert`, `remove` and the
renaming methods: passes change a program through them alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from act.errors import InputError
from act.program.files import DTYPES, HOLDERS, check_files, find_files, write_files
from act.program.paddle_setup import CPU, paddle
from act.samples.dataset import Array, FeedSpec

_CAUSE = re.compile(r"[A-Za-z]+Error: |\([A-Z][A-Za-z]+\) ")
_PADDLE_DTYPES = {name: paddle.framework.core.VarDesc.VarType(number) for number, name in DTYPES.items()}


@dataclass
class _Index:
    """The operators of a program's main block, without `feed` and `fetch`, which `size` counts too."""

    ops: list[Any]
    size: int
    producers: dict[str, list[Any]] = field(default_factory=dict)
    consumers: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, op: Any) -> None:
        for table, name in self._entries(op):
            table.setdefault(name, []).append(op)

    def drop(self, op: Any) -> None:
        for table, name in self._entries(op):
            table[name].remove(op)

    def _entries(self, op: Any) -> Iterator[tuple[dict[str, list[Any]], str]]:
        yield from ((self.consumers, name) for name in set(op.input_arg_names))
        yield from ((self.producers, name) for name in set(op.output_arg_names))


@dataclass
class InferenceModel:
    """A static program, its weights, and the names of what goes in and comes out.

    Attributes:
        program: the forward program, with its `feed` and `fetch` operators.
        scope: holds the weights; never shared with another model.
    """

    program: Any
    scope: Any
    feed_names: list[str]
    fetch_names: list[str]

    def __post_init__(self) -> None:
        # One for all runs: each executor prepares a program anew, which takes longer than a run.
        self._runner = paddle.static.Executor(CPU)
        self._cached_index: _Index | None = None

    @classmethod
    def load(cls, path: Path, model_filename: str | None = None, params_filename: str | None = None) -> InferenceModel:
        """Read a model from a folder, or by the path of its program file.

        Raises:
            InputError: a file is missing, damaged, or does not fit the other.
        """
        program_file, weights_file = find_files(path, model_filename, params_filename)
        check_files(program_file, weights_file)
        scope = paddle.static.Scope()
        with paddle.static.scope_guard(scope):
            try:
                program, feeds, fetches = paddle.static.load_inference_model(
                    str(program_file.parent),
                    paddle.static.Executor(CPU),
                    model_filename=program_file.name,
                    params_filename=weights_file.name,
                )
            except Exception as error:
                cause = f"Paddle {paddle.__version__} cannot load it: {reason(error)}"
                raise InputError(f"{program_file}: {cause}") from None
        return cls(program, scope, list(feeds), [fetch.name for fetch in fetches])

    def save(self, folder: Path) -> None:
        """Write `model.pdmodel` and `model.pdiparams` into an existing folder; equal models give equal bytes."""
        write_files(folder, self.program.desc.serialize_to_string(), self.weight)

    def copy(self) -> InferenceModel:
        """Return an independent model with the same program and weights."""
        scope = paddle.static.Scope()
        duplicate = InferenceModel(self.program.clone(), scope, list(self.feed_names), list(self.fetch_names))
        for name in self.weight_names():
            scope.var(name).get_tensor()._copy_from(self._tensor(name), CPU)
        return duplicate

    def discard(self) -> None:
        """Free the weights, which Paddle would keep until the process ends; the model is of no use afterwards."""
        self._runner.close()
        self.scope.drop_kids()
        self.scope.erase(self.weight_names())

    def run(self, feeds: Mapping[str, Array], fetch: Sequence[str] | None = None) -> list[Array]:
        """Run the program in Paddle's executor, and return its outputs, or the variables to fetch."""
        names = list(fetch or self.fetch_names)
        with paddle.static.scope_guard(self.scope):
            values: list[Array] = self._runner.run(self.program, feed=dict(feeds), fetch_list=names)
        return values

    # The index: operators by what they read and write.

    @property
    def _block(self) -> Any:
        return self.program.global_block()

    @property
    def _index(self) -> _Index:
        """Return the index of the main block, made anew where Paddle added operators, as its backward pass does."""
        ops = self._block.ops
        if self._cached_index is None or self._cached_index.size != len(ops):
            self._cached_index = _Index([op for op in ops if op.type not in ("feed", "fetch")], len(ops))
            for op in self._cached_index.ops:
                self._cached_index.add(op)
        return self._cached_index

    @property
    def ops(self) -> list[Any]:
        """Return the operators in order, without `feed` and `fetch`; a list of the caller's own."""
        return list(self._index.ops)

    def producers(self, name: str) -> list[Any]:
        """Return the operators that write a tensor; none for inputs and weights."""
        return list(self._index.producers.get(name, ()))

    def producer(self, name: str) -> Any:
        """Return the operator that writes a tensor, the last of several; None for inputs and weights."""
        found = self._index.producers.get(name)
        return found[-1] if found else None

    def consumers(self, name: str) -> list[Any]:
        """Return the operators that read a tensor or a weight, each of them once."""
        return list(self._index.consumers.get(name, ()))

    def sole_producer(self, name: str) -> Any:
        """Return the only operator that writes a tensor which one operator alone reads; None for all others."""
        found = self.producers(name)
        alone = len(found) == len(self.consumers(name)) == 1 and name not in self.fetch_names
        return found[0] if alone else None

    def owns_weight(self, name: str) -> bool:
        """Tell whether a name is a weight that exactly one operator reads."""
        return len(self._index.consumers.get(name, ())) == 1 and self.is_weight(name)

    def position(self, op: Any) -> int:
        """Return where an operator stands among all; a search by identity."""
        return int(self._index.ops.index(op))

    def insert(
        self,
        kind: str,
        inputs: Mapping[str, Sequence[str]],
        outputs: Mapping[str, Sequence[str]],
        attributes: Mapping[str, Any] | None = None,
        *,
        before: Any = None,
        after: Any = None,
    ) -> Any:
        """Insert an operator of a kind (Paddle's type) right before or after another, and return it.

        Inputs and outputs are names of declared tensors and weights, by slot.
        """
        index, block = self._index, self._block
        anchor, step = (before, 0) if after is None else (after, 1)
        op = block._insert_op_without_sync(
            block.ops.index(anchor) + step,
            type=kind,
            inputs={slot: [block.var(name) for name in names] for slot, names in inputs.items()},
            outputs={slot: [block.var(name) for name in names] for slot, names in outputs.items()},
            attrs=dict(attributes or {}),
        )
        index.ops.insert(index.ops.index(anchor) + step, op)
        index.size += 1
        index.add(op)
        return op

    def remove(self, op: Any) -> None:
        """Take an operator out; what it wrote stays declared, and unused variables are not saved."""
        index = self._index
        index.drop(op)
        index.ops.remove(op)
        index.size -= 1
        self._block._remove_op(self._block.ops.index(op), sync=False)

    def rename_input(self, op: Any, old: str, new: str) -> None:
        """Let an operator read one tensor wherever it read another."""
        self._rename(op, old, new, op._rename_input, self._index.consumers)

    def rename_output(self, op: Any, old: str, new: str) -> None:
        """Let an operator write one tensor instead of another."""
        self._rename(op, old, new, op._rename_output, self._index.producers)

    def redirect(self, old: str, new: str) -> None:
        """Let all that read one tensor read another."""
        for op in self.consumers(old):
            self.rename_input(op, old, new)

    @staticmethod
    def _rename(op: Any, old: str, new: str, rename: Any, table: dict[str, list[Any]]) -> None:
        if op not in table.get(old, ()):
            return
        rename(old, new)
        table[old].remove(op)
        if op not in table.setdefault(new, []):
            table[new].append(op)

    # Tensors and weights.

    def add_tensor(self, name: str, like: str) -> str:
        """Declare an activation with the shape and dtype of another tensor, and return its name."""
        source = self._block.var(like)
        self._block.create_var(name=name, shape=source.shape, dtype=source.dtype)
        return name

    def add_weight(self, name: str, value: Array, stop_gradient: bool = True) -> str:
        """Declare a weight, or make one of a tensor that no operator writes any more; return its name."""
        if not self.has(name):
            self._block.create_var(name=name, shape=value.shape, dtype=str(value.dtype))
        variable = self._block.var(name)
        variable.persistable, variable.stop_gradient = True, stop_gradient
        self.set_weight(name, value)
        return name

    def has(self, name: str) -> bool:
        """Tell whether the program declares a tensor or a weight of this name."""
        return bool(self._block.has_var(name))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a weight as it is stored, or that of a tensor as it is declared; -1 for any length."""
        return tuple(self._tensor(name).shape() if self.is_weight(name) else self._block.var(name).shape)

    def dtype(self, name: str) -> str:
        """Return NumPy's name of a dtype: of a weight as it is stored, of a tensor as it is declared."""
        return DTYPES[self._tensor(name)._dtype() if self.is_weight(name) else self._block.var(name).desc.dtype()]

    def feed_specs(self) -> list[FeedSpec]:
        return self._specs(self.feed_names)

    def fetch_specs(self) -> list[FeedSpec]:
        return self._specs(self.fetch_names)

    def _specs(self, names: Sequence[str]) -> list[FeedSpec]:
        return [FeedSpec(name, self.dtype(name), self.shape(name)) for name in names]

    def weight_names(self) -> list[str]:
        """Return the names of the persistable variables that hold values, sorted."""
        return sorted(v.name for v in self.program.list_vars() if _is_weight(v))

    def is_weight(self, name: str) -> bool:
        """Tell whether a variable is a weight rather than an activation."""
        return bool(self._block.has_var(name) and _is_weight(self._block.var(name)))

    def count_parameters(self) -> int:
        """Return how many values all weights have together."""
        return sum(int(self._tensor(name)._numel()) for name in self.weight_names())

    def weight(self, name: str) -> Array:
        """Return a copy of a weight."""
        return np.asarray(self._tensor(name))

    def set_weight(self, name: str, value: Array) -> None:
        """Replace the values of a weight, or give a new one its values; the program declares their shape and dtype."""
        self.scope.var(name).get_tensor().set(np.ascontiguousarray(value), CPU)
        if self._block.has_var(name):
            description, dtype = self._block.var(name).desc, _PADDLE_DTYPES[value.dtype.name]
            if tuple(description.shape()) != value.shape or description.dtype() != dtype:
                description.set_shape(list(value.shape))
                description.set_dtype(dtype)

    def _tensor(self, name: str) -> Any:
        return self.scope.find_var(name).get_tensor()


def reason(error: Exception) -> str:
    """Return the cause that Paddle gives, in one line: it stands between a stack of calls and hints on its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if _CAUSE.match(line)]
    return (causes or lines[-1:] or [type(error).__name__])[0]


def _is_weight(variable: Any) -> bool:
    return bool(variable.persistable and variable.desc.type() not in HOLDERS)
