"""Walk a program and find which indices of which weights and activations belong together.

The method is that of dependency graphs (Fang et al., "DepGraph", 2023), index by index instead of layer by layer, so
that concatenations, splits, groups and reshapes need no special treatment. What no rule (`rules.py`) understands keeps
all that it reads, with the cause.
"""

from __future__ import annotations

from typing import Any

from act.program.model import InferenceModel
from act.pruning.rules import RULES
from act.pruning.union_find import Axes, Axis, UnionFind


class Trace:
    """The coupled channels of every tensor of a model, which is not changed.

    Attributes:
        elements: all of them.
        axes: of every tensor, by its name.
        outputs: the axis of each weight whose indices are a layer's output channels.
        inputs: likewise of input channels.
        heads: elements of channels that a reshape sorts into blocks, as attention does with its heads.
        normalised: elements of channels over which a layer norm takes its mean.
    """

    def __init__(self, model: InferenceModel) -> None:
        self.model = model
        self.elements = UnionFind()
        self.axes: dict[str, Axes] = {}
        self.outputs: dict[str, int] = {}
        self.inputs: dict[str, int] = {}
        self.heads: list[int] = []
        self.normalised: list[int] = []
        for name in model.feed_names:
            self.axes[name] = self._all_fixed(name, "an input of the model")
        for op in model.ops:
            self._follow(op)
        if model.program.num_blocks > 1:
            self.keep([axis for axes in self.axes.values() for axis in axes], "the program has branches or loops")
        for name in model.fetch_names:
            self.keep(self.axes.get(name, []), "an output of the model")

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a variable; -1 for any length."""
        return self.model.shape(name)

    def of(self, name: str) -> Axes:
        """Return the axes of a tensor; a weight that is met for the first time gets elements of its own."""
        if name not in self.axes:
            if self.model.is_weight(name):
                self.axes[name] = [self.elements.fresh(size) if size > 1 else None for size in self.shape(name)]
            else:
                self.axes[name] = self._all_fixed(name, "made by nothing that was followed")
        return self.axes[name]

    def fixed(self, size: int, cause: str) -> Axis:
        """Return an axis that must stay."""
        return self.elements.fixed(size, cause) if size > 1 else None

    def keep(self, axes: Axes, cause: str) -> None:
        """Note why axes must stay."""
        for axis in axes:
            if axis is not None:
                self.elements.keep(axis, cause)

    def unite(self, first: Axis, second: Axis, cause: str) -> Axis:
        """Make one axis of two; where they cannot be united, both stay, for the cause."""
        if first is None or second is None or len(first) != len(second):
            self.keep([first, second], cause)
            return None if second is None else first
        self.elements.unite(first, second)
        return first

    def _all_fixed(self, name: str, cause: str) -> Axes:
        return [self.fixed(size, cause) for size in self.shape(name)]

    def _follow(self, op: Any) -> None:
        rule = RULES.get(op.type)
        outputs = None if rule is None else rule(self, op)
        if outputs is None:
            for name in op.input_arg_names:
                self.keep(self.of(name), f"is read by `{op.type}`, which pruning does not know")
            outputs = {}
        for name in op.output_arg_names:
            if not self.model.has(name):
                continue
            axes = outputs.get(name)
            if axes is None or len(axes) != len(self.shape(name)):
                self.keep(axes or [], f"`{op.type}` gives it another rank")
                axes = self._all_fixed(name, f"made by `{op.type}`")
            self.axes[name] = axes
