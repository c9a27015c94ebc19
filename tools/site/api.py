"""API pages: one per wing, with the public names in the order of `antipure_lib/__init__.pyi`."""

import ast
import inspect
import re
import textwrap
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[2] / "antipure_lib"
WING = re.compile(r"^# (\w+): (.+)\n((?:(?!# \w+: ).*\n)*)", re.MULTILINE)  # its name, what it holds, imports


def pages() -> dict[str, str]:
    """{name: text} of the reference's pages in reStructuredText: one per wing, and the index of them."""
    wings = WING.findall((LIBRARY / "__init__.pyi").read_text(encoding="utf-8"))
    index = ["``import antipure_lib as ap`` offers every name of these pages.", "", ".. toctree::", ""]
    index += [f"   {wing}" for wing, *_ in wings]
    return {"index": _titled("API reference", index)} | {wing: _page(wing, *rest) for wing, *rest in wings}


def _titled(title: str, lines: list[str]) -> str:
    return "\n".join([title, "=" * len(title), "", *lines, ""])


def _page(wing: str, summary: str, imports: str) -> str:
    """A wing's page: a table of its functions and classes, then each name's own entry."""
    modules = {alias.name: node.module for node in ast.parse(imports).body for alias in node.names}
    listed, entries = [".. currentmodule:: antipure_lib", "", ".. autosummary::", "   :nosignatures:", ""], []
    for name, module in modules.items():
        source = (LIBRARY / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        node = next(node for node in ast.parse(source).body if name in _names(node))
        if isinstance(node, ast.FunctionDef):
            entry = [f".. autofunction:: {name}"]
        elif isinstance(node, ast.ClassDef):
            # A named tuple's declaration says what its fields are.
            plain = "NamedTuple" not in [ast.unparse(base) for base in node.bases]
            entry = [f".. autoclass:: {name}", *["   :members:"] * plain]
        else:
            entry = [f".. data:: {name}", "", *_code(ast.get_source_segment(source, node), "   ")]
        entries += [*entry, ""]
        if "auto" in entry[0]:
            listed.append(f"   {name}")
    return _titled(f"{wing}: {summary}", [*listed, "", *entries])


def _names(node: ast.stmt) -> set[str]:
    """What a statement of a module defines."""
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return {getattr(node, "name", ""), *(getattr(target, "id", "") for target in targets)}


def _code(source: str, indent: str = "") -> list[str]:
    lines = [".. code-block:: python", "", *textwrap.indent(source, "   ").splitlines(), ""]
    return [indent + line for line in lines]


def _declaration(value: object) -> str:
    """The head of a function or class from its source: its comments give ranges and units."""
    source = textwrap.dedent(inspect.getsource(value))
    lines, (node,) = source.splitlines(), ast.parse(source).body
    docstring = node.body[0]
    fields = [child.end_lineno for child in node.body if isinstance(child, ast.AnnAssign)]
    head = lines[node.lineno - 1 : docstring.lineno - 1]
    return "\n".join(head + lines[docstring.end_lineno : max(fields, default=0)])


def documented(value: object, docstring: list[str]) -> list[str]:
    """An entry's text in reStructuredText: the docstring, with the declaration after its first paragraph."""
    first, *rest = map(_as_rst, "\n".join(docstring).split("\n\n"))
    text = "\n\n".join(rest)
    return [*first.splitlines(), "", *_code(_declaration(value)), *text.splitlines()]


def _as_rst(paragraph: str) -> str:
    """A docstring's paragraph: nothing but backticks is markup, and hanging indents mean a list."""
    if paragraph.startswith(">>>"):
        return paragraph
    plain = re.sub(r"(`[^`]*`)|([*|\\])", lambda m: m[1] or "\\" + m[2], paragraph)
    if plain.startswith("- ") or not re.search(r"^\S.*\n +\S", plain, re.MULTILINE):
        return plain
    return re.sub(r"^( +)?", lambda m: "  " if m[1] else "- ", plain, flags=re.MULTILINE)
