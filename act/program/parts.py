"""Parts of a program: one that ends or begins at other tensors, and two that are put one behind the other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from act.program.model import InferenceModel
from act.program.paddle_setup import paddle

from paddle.base.proto import framework_pb2  # isort: skip

_ENDS = ("feed", "fetch")
_INPUT_PREFIX = "tail."


def part(model: InferenceModel, operators: Collection[int], inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return a model of some of another's operators, by their numbers in `ops`, with the weights that they read."""
    source = _description(model)
    ops = [op for op in source.blocks[0].ops if op.type not in _ENDS]
    result = framework_pb2.ProgramDesc()
    result.CopyFrom(source)
    del result.blocks[0].ops[:]
    result.blocks[0].ops.extend(op for number, op in enumerate(ops) if number in operators)
    _keep_used_blocks(result)
    _keep_used_variables(result, {*inputs, *outputs})
    return _model(result, inputs, outputs, dict.fromkeys(model.weight_names(), model))


def join(body: InferenceModel, tail: InferenceModel, outputs: Sequence[str]) -> InferenceModel:
    """Put a program behind another whose outputs and inputs it reads by their names.

    Args:
        outputs: of either, in the order in which the result has them; the body's where both have one.
    """
    result, behind = _description(body), _description(tail)
    taken = {variable.name for block in result.blocks for variable in block.vars}
    shared = {*tail.feed_names, *_ENDS, *(name for name in tail.fetch_names if name not in body.fetch_names)}
    own = [variable.name for block in behind.blocks for variable in block.vars]
    names = {name: _free_name(name, taken) for name in own if name not in shared}
    offset = len(result.blocks) - 1
    for block in behind.blocks:
        _rename(block, names)
        _shift_blocks(block, offset)
    main = result.blocks[0]
    _drop_ends(main)
    _drop_ends(behind.blocks[0])
    main.ops.extend(behind.blocks[0].ops)
    declared = {variable.name for variable in main.vars}
    main.vars.extend(variable for variable in behind.blocks[0].vars if variable.name not in declared)
    for block in behind.blocks[1:]:
        block.idx += offset
        block.parent_idx += offset if block.parent_idx > 0 else 0
        result.blocks.append(block)
    weights = {name: (body, name) for name in body.weight_names()}
    weights |= {names.get(name, name): (tail, name) for name in tail.weight_names()}
    joined = _model(result, body.feed_names, outputs, {})
    for name, (model, old) in weights.items():
        joined.set_weight(name, model.weight(old))
    return joined


def with_ends(program: Any, feeds: Sequence[str], fetches: Sequence[str]) -> Any:
    """Add the operators that feed and fetch, as Paddle's own files have them."""
    block, kinds = program.global_block(), paddle.framework.core.VarDesc.VarType
    feed = block.create_var(name="feed", type=kinds.FEED_MINIBATCH, persistable=True)
    fetch = block.create_var(name="fetch", type=kinds.FETCH_LIST, persistable=True)
    for column in reversed(range(len(feeds))):
        block._prepend_op(type="feed", inputs={"X": [feed]}, outputs={"Out": [feeds[column]]}, attrs={"col": column})
    for column, name in enumerate(fetches):
        block.append_op(type="fetch", inputs={"X": [name]}, outputs={"Out": [fetch]}, attrs={"col": column})
    return program


def _description(model: InferenceModel) -> Any:
    return framework_pb2.ProgramDesc.FromString(model.program.desc.serialize_to_string())


def _model(
    description: Any, inputs: Sequence[str], outputs: Sequence[str], weights: Mapping[str, InferenceModel]
) -> InferenceModel:
    _drop_ends(description.blocks[0])
    program = paddle.static.Program.parse_from_string(description.SerializeToString(deterministic=True))
    result = InferenceModel(with_ends(program, inputs, outputs), paddle.static.Scope(), list(inputs), list(outputs))
    for name, source in weights.items():
        if result.has(name):
            result.set_weight(name, source.weight(name))
    return result


def _drop_ends(block: Any) -> None:
    """Take out the operators that feed and fetch, and what they read and write."""
    for field, name in ((block.ops, "type"), (block.vars, "name")):
        kept = [each for each in field if getattr(each, name) not in _ENDS]
        del field[:]
        field.extend(kept)


def _slots(block: Any) -> Iterable[Any]:
    return (slot for op in block.ops for slot in (*op.inputs, *op.outputs))


def _rename(block: Any, names: Mapping[str, str]) -> None:
    for variable in block.vars:
        variable.name = names.get(variable.name, variable.name)
    for slot in _slots(block):
        slot.arguments[:] = [names.get(name, name) for name in slot.arguments]


def _free_name(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name = f"{_INPUT_PREFIX}{name}"
    return name


def _inner(op: Any) -> Iterable[Any]:
    """Yield the attributes of an operator that name a block."""
    return (attribute for attribute in op.attrs if attribute.type == framework_pb2.AttrType.BLOCK)


def _shift_blocks(block: Any, offset: int) -> None:
    for op in block.ops:
        for attribute in _inner(op):
            attribute.block_idx += offset


def _keep_used_blocks(program: Any) -> None:
    """Drop blocks that no operator runs, and number the rest anew."""
    used, waiting = {0}, [0]
    while waiting:
        for op in program.blocks[waiting.pop()].ops:
            for attribute in _inner(op):
                if attribute.block_idx not in used:
                    used.add(attribute.block_idx)
                    waiting.append(attribute.block_idx)
    numbers = {old: new for new, old in enumerate(sorted(used))}
    blocks = [program.blocks[old] for old in numbers]
    for block in blocks:
        block.idx = numbers[block.idx]
        block.parent_idx = numbers.get(block.parent_idx, block.parent_idx)
        for op in block.ops:
            for attribute in _inner(op):
                attribute.block_idx = numbers[attribute.block_idx]
    kept = [framework_pb2.BlockDesc.FromString(block.SerializeToString()) for block in blocks]
    del program.blocks[:]
    program.blocks.extend(kept)


def _keep_used_variables(program: Any, more: Collection[str]) -> None:
    used = {name for block in program.blocks for slot in _slots(block) for name in slot.arguments} | set(more)
    for block in program.blocks:
        kept = [variable for variable in block.vars if variable.name in used]
        del block.vars[:]
        block.vars.extend(kept)
