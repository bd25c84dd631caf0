"""An inference model: a Paddle static program with an index, and its weights in a scope of its own.

The index of producers and consumers is made when it is first asked for and kept right by `insert`, `remove` and the
renaming methods: passes change a program through them alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from act.errors import InputError
from act.program.files import DTYPES, HOLDERS, ModelFiles, check_files, find_files, what_is_saved, write_files
from act.program.paddle_setup import CPU, paddle
from act.samples.dataset import Array, FeedSpec

_CAUSE = re.compile(r"[A-Za-z]+Error: |\([A-Z][A-Za-z]+\) ")
_PADDLE_DTYPES = {name: paddle.framework.core.VarDesc.VarType(number) for number, name in DTYPES.items()}


@dataclass(eq=False)
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
        self._producers: dict[str, list[Any]] = {}
        self._consumers: dict[str, list[Any]] = {}
        self._indexed = 0

    @classmethod
    def load(cls, path: Path, model_filename: str | None = None, params_filename: str | None = None) -> InferenceModel:
        """Read a model from a folder, or by the path of its program file.

        Raises:
            InputError: a file is missing, damaged, or does not fit the others.
        """
        return cls.read(find_files(path, model_filename, params_filename))

    @classmethod
    def read(cls, files: ModelFiles) -> InferenceModel:
        """Read a model from its files; `InputError` where one is damaged, or does not fit the others."""
        check_files(files)
        scope = paddle.static.Scope()
        with paddle.static.scope_guard(scope):
            try:
                program, feeds, fetches = paddle.static.load_inference_model(
                    str(files.program.parent),
                    paddle.static.Executor(CPU),
                    model_filename=files.program.name,
                    params_filename=files.weights[0].name if len(files.weights) == 1 else None,
                )
            except Exception as error:
                cause = f"Paddle {paddle.__version__} cannot load it: {reason(error)}"
                raise InputError(f"{files.program}: {cause}") from None
        fill_in_attributes(program, str(files.program))
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

    def equals(self, other: InferenceModel) -> bool:
        """Tell whether another model is saved as the same bytes: it has the same program, and the same weights."""
        saved, same = (what_is_saved(each.program.desc.serialize_to_string()) for each in (self, other))
        return saved == same and all(_same_bytes(self.weight(name), other.weight(name)) for name in saved[1])

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
    def ops(self) -> list[Any]:
        """Return the operators in order, without `feed` and `fetch`; a list of the caller's own."""
        return [op for op in self._block.ops if op.type not in ("feed", "fetch")]

    def producers(self, name: str) -> list[Any]:
        """Return the operators that write a tensor; none for inputs and weights."""
        self._refresh_index()
        return list(self._producers.get(name, ()))

    def producer(self, name: str) -> Any:
        """Return the operator that writes a tensor, the last of several; None for inputs and weights."""
        return next(reversed(self.producers(name)), None)

    def consumers(self, name: str) -> list[Any]:
        """Return the operators that read a tensor or a weight, each of them once."""
        self._refresh_index()
        return list(self._consumers.get(name, ()))

    def _refresh_index(self) -> None:
        """Make the index, or make it anew where Paddle added operators, as its backward pass does."""
        if self._indexed != len(self._block.ops):
            self._producers, self._consumers, self._indexed = {}, {}, len(self._block.ops)
            for op in self.ops:
                for entry in self._entries(op):
                    entry.append(op)

    def _entries(self, op: Any) -> Iterator[list[Any]]:
        """Yield the lists of the index that an operator is in."""
        for table, names in ((self._consumers, op.input_arg_names), (self._producers, op.output_arg_names)):
            yield from (table.setdefault(name, []) for name in set(names))

    def sole_producer(self, name: str) -> Any:
        """Return the only operator that writes a tensor which one operator alone reads; None for all others."""
        found = self.producers(name)
        alone = len(found) == len(self.consumers(name)) == 1 and name not in self.fetch_names
        return found[0] if alone else None

    def owns_weight(self, name: str) -> bool:
        """Tell whether a name is a weight that exactly one operator reads."""
        return len(self.consumers(name)) == 1 and self.is_weight(name)

    def position(self, op: Any) -> int:
        """Return where an operator stands among all, `feed` and `fetch` included; a search by identity."""
        return int(self._block.ops.index(op))

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
        self._refresh_index()
        block = self._block
        op = block._insert_op_without_sync(
            self.position(before) if after is None else self.position(after) + 1,
            type=kind,
            inputs={slot: [block.var(name) for name in names] for slot, names in inputs.items()},
            outputs={slot: [block.var(name) for name in names] for slot, names in outputs.items()},
            attrs=dict(attributes or {}),
        )
        self._indexed += 1
        for entry in self._entries(op):
            entry.append(op)
        return op

    def remove(self, op: Any) -> None:
        """Take an operator out; what it wrote stays declared, and unused variables are not saved."""
        self._refresh_index()
        for entry in self._entries(op):
            entry.remove(op)
        self._indexed -= 1
        self._block._remove_op(self.position(op), sync=False)

    def rename_input(self, op: Any, old: str, new: str) -> None:
        """Let an operator read one tensor wherever it read another."""
        self._refresh_index()
        self._rename(op, old, new, op._rename_input, self._consumers)

    def rename_output(self, op: Any, old: str, new: str) -> None:
        """Let an operator write one tensor instead of another."""
        self._refresh_index()
        self._rename(op, old, new, op._rename_output, self._producers)

    def redirect(self, old: str, new: str) -> None:
        """Let all that read one tensor read another."""
        for op in self.consumers(old):
            self.rename_input(op, old, new)

    @staticmethod
    def _rename(op: Any, old: str, new: str, rename: Any, table: dict[str, list[Any]]) -> None:
        if op in table.get(old, ()):
            rename(old, new)
            table[old].remove(op)
            if op not in table.setdefault(new, []):
                table[new].append(op)

    # Tensors and weights.

    def add_tensor(self, name: str, like: str, shape: Sequence[int] | None = None) -> str:
        """Declare an activation with the dtype of another tensor, and its shape if none is given; return its name."""
        source = self._block.var(like)
        self._block.create_var(name=name, shape=source.shape if shape is None else shape, dtype=source.dtype)
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
        return [FeedSpec(name, self.dtype(name), self.shape(name)) for name in self.feed_names]

    def fetch_specs(self) -> list[FeedSpec]:
        return [FeedSpec(name, self.dtype(name), self.shape(name)) for name in self.fetch_names]

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
        self.scope.var(name).get_tensor().set(np.asarray(value, order="C"), CPU)
        if self._block.has_var(name):
            description, dtype = self._block.var(name).desc, _PADDLE_DTYPES[value.dtype.name]
            if tuple(description.shape()) != value.shape or description.dtype() != dtype:
                description.set_shape(list(value.shape))
                description.set_dtype(dtype)

    def _tensor(self, name: str) -> Any:
        return self.scope.find_var(name).get_tensor()


def fill_in_attributes(program: Any, origin: str) -> None:
    """Give each operator of a program the attributes that its exporter left out, with Paddle's defaults.

    Paddle's runtimes do the same before they run an operator, each for itself. So what reads an attribute here need not
    ask first, and reads what runs.

    Args:
        origin: of the program, for messages.

    Raises:
        InputError: an attribute without a default is missing, or one has a value that its operator does not allow.
    """
    for op in (op for block in program.blocks for op in block.ops):
        try:
            op.desc.check_attrs()
        except Exception as error:  # Paddle raises a dozen kinds
            output = next(iter(op.output_arg_names), "")
            raise InputError(
                f"{origin}: an attribute of `{op.type}` (output `{output}`) is missing or wrong: {reason(error)}; "
                "export the model again"
            ) from None


def reason(error: Exception) -> str:
    """Return the cause that Paddle gives, in one line: it stands between a stack of calls and hints on its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next(filter(_CAUSE.match, lines), lines[-1] if lines else type(error).__name__)


def _same_bytes(first: Array, second: Array) -> bool:
    alike = first.dtype == second.dtype and first.shape == second.shape
    return alike and first.tobytes() == second.tobytes()


def _is_weight(variable: Any) -> bool:
    return bool(variable.persistable and variable.desc.type() not in HOLDERS)
