"""Texts in PyTorch's archives: each must be a name of the kind that stands there, or the file is refused.

SymPy evaluates the formulas of an exported program, and its names become Python source; TorchScript is code. Nothing
here needs PyTorch.
"""

import ast
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from act.errors import InputError

_NAME = re.compile(r"[\w.+\-]*", re.ASCII)
# Some of Python's own operators call what they are given: only those that compute with numbers.
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|prim|torchvision)\.(?!__)\w+(\.(?!__)\w+)?|"
    r"torch\.ops\.aten\.__i?(and|or|xor|lshift|rshift)__\.\w+|"
    r"torch\.ops\.higher_order\.(cond|while_loop|scan|wrap_with_set_grad_enabled|wrap_with_autocast)|"
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|getitem|eq|ne|lt|le|gt|ge|and_|or_|xor|not_)|"
    r"math\.(ceil|floor|trunc|sqrt)|torch\.sym_\w+",
    re.ASCII,
)
_FILE_OPERATOR = re.compile(r".*\b(from_file|_?save\w*|_?load\w*)\b.*")
_SERVES_TOOLS = {"metadata": dict, "guards_code": list}
_FREE_TEXT = ("as_string", "as_strings")
# Below these keys stand names of the user's.
_BY_NAME = ("config", "tensor_values", "sym_int_values", "sym_float_values", "sym_bool_values", "custom_obj_values")
_OBJECTS = ("as_custom_obj", "custom_obj", "as_operator")
_TREES = ("in_spec", "out_spec")
_TREE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
# What reads or writes files, or belongs to libraries that are not here.
_FILE_CALL = re.compile(rb"\b(from_file|_?save\w*|_?load\w*)[\s\\]*\(")
_NAMESPACE = re.compile(rb"\bops[\s\\]*\.[\s\\]*(\w+)")
_NAMESPACES = (b"aten", b"prim", b"torchvision")
_LONGEST_EXPRESSION = 10_000
_EXPRESSION_NODES = (
    *(ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp, ast.Compare),
    *(ast.operator, ast.unaryop, ast.cmpop),
)
_EXPRESSION_NAMES = re.compile(
    r"[a-z]{1,3}\d+|Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|Abs|FloorDiv|CleanDiv|CeilDiv|"
    r"ModularIndexing|Where|Piecewise|ExprCondPair|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv|IntTrueDiv|"
    r"FloorToInt|CeilToInt|TruncToInt|TruncToFloat|RoundToInt|RoundDecimal|ToFloat|Identity|floor|ceiling|sqrt|"
    r"Eq|Ne|Gt|Ge|Lt|Le|Equality|Unequality|StrictGreaterThan|GreaterThan|StrictLessThan|LessThan|And|Or|Not|true|"
    r"false|oo|int_oo"
)


def cleaned_weights(content: bytes) -> bytes:
    """Return the list of the files of weights; `InputError` where some are pickled, or named as no weights are."""
    whole = _cleaned(_parsed(content))
    for each in whole.get("config", {}).values():
        if each.get("use_pickle") or not re.fullmatch(r"(weight|tensor)_\d+", str(each.get("path_name"))):
            raise InputError("its weights are pickled, or custom objects; export the model with plain tensors")
    return json.dumps(whole).encode()


def cleaned_program(content: bytes) -> bytes:
    """Return a program without what serves tools; `InputError` where a text in it is not what stands there."""
    return json.dumps(_cleaned(_parsed(content))).encode()


def check_code(files: Mapping[str, bytes]) -> None:
    """Refuse TorchScript that reads or writes files, or calls libraries that are not here: some of it runs on loading.

    Args:
        files: what is in its archive, by name.
    """
    for content in (content for name, content in files.items() if name.endswith(".py")):
        call, foreign = _FILE_CALL.search(content), set(_NAMESPACE.findall(content)).difference(_NAMESPACES)
        if call is not None or foreign:
            what = (call.group(1) if call is not None else min(foreign)).decode()
            raise InputError(
                f"its code calls `{what}`, which reads or writes files, or is no operator of PyTorch's own; export the "
                "model without it"
            )


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"its program is damaged ({type(error).__name__}); copy or save the model again") from None
    if not isinstance(whole, dict):
        raise InputError("its program is damaged; copy or save the model again")
    return whole


def _cleaned(value: Any, key: str = "") -> Any:
    """Return a part of a program without what serves tools; `InputError` where a text is not what its key asks for."""
    if key in _SERVES_TOOLS:
        return _SERVES_TOOLS[key]()
    if key in _OBJECTS:
        raise InputError(f"its program holds `{key}`, a custom object; export the model without custom objects")
    if isinstance(value, dict):
        allowed = _is_expression if key == "range_constraints" else _is_name
        if (odd := next((name for name in value if not allowed(name)), None)) is not None:
            raise _odd_text(odd)
        return {name: _cleaned(each, "" if key in _BY_NAME else name) for name, each in value.items()}
    if isinstance(value, list):
        return [_cleaned(each, key) for each in value]
    if isinstance(value, str) and key not in _FREE_TEXT and not _KINDS.get(key, _is_name)(value):
        raise _odd_text(value)
    return value


def _odd_text(text: str) -> InputError:
    return InputError(f"its program holds the text `{text[:100]}`, which no program has there; export the model again")


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _is_operator(text: str) -> bool:
    return _OPERATOR.fullmatch(text) is not None and not _FILE_OPERATOR.fullmatch(text)


def _is_expression(text: str) -> bool:
    """Tell whether a text is a formula of lengths: calls of known functions, numbers and symbols, and nothing else."""
    if len(text) > _LONGEST_EXPRESSION:
        return False
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    names = [node.id for node in nodes if isinstance(node, ast.Name)]
    names += [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return (
        all(isinstance(node, _EXPRESSION_NODES) for node in nodes)
        and all(isinstance(node.func, ast.Name) for node in nodes if isinstance(node, ast.Call))
        and all(_EXPRESSION_NAMES.fullmatch(name) for name in names)
    )


def _is_tree(text: str) -> bool:
    """Tell whether a text describes plain containers of tensors."""
    try:
        stack = [json.loads(text)[1]]
        while stack:
            tree = stack.pop()
            keys = json.loads(tree["context"] or "null")
            plain = keys is None or (isinstance(keys, list) and all(isinstance(each, str | int) for each in keys))
            if tree["type"] not in _TREE_TYPES or not plain:
                return False
            stack += tree["children_spec"]
    except (ValueError, TypeError, LookupError, RecursionError):
        return False
    return True


_KINDS: dict[str, Callable[[str], bool]] = {
    "expr_str": _is_expression,
    "target": _is_operator,
    **dict.fromkeys(_TREES, _is_tree),
}
