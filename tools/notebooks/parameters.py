"""The `parameters` cell of a notebook: its names, their defaults, and new values for them."""

import ast
import os
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from tools.notebooks.stamp import has_tag

KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", list: "a list"}


def parameters_of(notebook: Any) -> dict[str, tuple[Any, str]]:
    """{name: (default, its line)} of the cell tagged 'parameters'. A default that isn't a literal is None.

    Raises ValueError if the cell isn't Python. Lines for IPython (% and !) are skipped.
    """
    source = "\n".join(cell.source for cell in notebook.cells if has_tag(cell, "parameters"))
    source, found = re.sub(r"(?m)^\s*[%!].*$", "", source), {}
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"its parameters cell isn't Python ({error.msg}, line {error.lineno})") from error
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            default = parse_value(ast.unparse(node.value))
            if isinstance(default, str) and not isinstance(node.value, ast.Constant):
                default = None  # the text of an expression
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found[target.id] = default, source.splitlines()[node.lineno - 1].strip()
    return found


def new_values(notebook: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values in the types of the defaults. Text is read as such a value: "16" for 8, "1/2" for 0.5.

    Raises ValueError for an unknown name, and for a value of another type.
    """
    known = parameters_of(notebook)
    for name in given:
        if name not in known:
            names = ", ".join(known) or "none: no cell is tagged 'parameters'"
            raise ValueError(f"unknown parameter {name}; the known ones are {names}")
    return {name: _converted(name, value, *known[name]) for name, value in given.items()}


def _converted(name: str, given: Any, default: Any, line: str) -> Any:
    value, kind = parse_value(given) if isinstance(given, str) else given, type(default)
    if kind is str and isinstance(given, str):
        value = os.path.expanduser(value if isinstance(value, str) else given)
    whole = isinstance(value, float) and value.is_integer()
    if (kind is int and whole) or (kind is float and type(value) is int):
        value = kind(value)
    if default is None or type(value) is kind:
        return value
    wanted = KINDS.get(kind, f"a {kind.__name__}")
    raise ValueError(f"parameter {name} can't be {given!r}; it takes {wanted}, see `{line}`")


def parse_value(text: str) -> Any:
    """A Python literal (3, 0.5, 'p02', None), true or false, a fraction (1/2), or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    try:
        return float(Fraction(text.replace(" ", "")))
    except (ValueError, ZeroDivisionError):
        return {"true": True, "false": False}.get(text.lower(), text)
