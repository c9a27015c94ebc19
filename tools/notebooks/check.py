"""Refuse notebooks that aren't fit to be committed: `python -m tools.notebooks.check [NOTEBOOK …]`.

Prints a line for each problem and exits with 1 if there is any.
"""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from nbformat import NotebookNode

from tools.notebooks.exercises import find_exercises, is_assert
from tools.notebooks.points import points_of
from tools.notebooks.stamp import for_each, has_tag, read_notebook, repository, stamped

MAX_BYTES = 1 << 20  # beyond 1 MB the notebook viewers of code hosts give up
MAX_LINES = 15
MAX_CHECK_LINES = 30  # an exercise's check also holds its messages
BUILT = ("build", "dist", "runs")  # folders that git ignores: what lies there is on one machine only
# A home or system folder that exists on one machine only. Colab's /content is everybody's.
ABSOLUTE = re.compile(
    r"(?<![\w:/.~<-])/(?:home|Users|root|tmp|var|opt|usr|work|mnt|srv|private|data)/[\w.-]+|\b[A-Z]:\\+Users\b"
)
MARKDOWN_LINK = re.compile(
    r"(?P<picture>!?)\[(?P<text>(?:!\[[^\]]*\]\([^)]*\)|[^\[\]])*)\]\((?P<target>[^)\s]*)[^)]*\)"
)
HTML_TAG = re.compile(r"<(img|a)\b[^>]*>", re.IGNORECASE)
HTML_ATTRIBUTE = re.compile(r"\b(alt|src|href)\s*=\s*[\"']([^\"']*)[\"']", re.IGNORECASE)
# Code and formulas: `f[i](x)` and $E[f](x)$ are no links.
VERBATIM = re.compile(r"```.*?```|~~~.*?~~~|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", re.DOTALL)


def check_notebook(path: Path) -> Iterator[str]:
    """What is wrong with one notebook file, a sentence each. Raises ValueError if it is no notebook."""
    notebook = read_notebook(path)
    yield from _whole(notebook, path)
    yield from _stamps_and_exercises(notebook, path)
    checks = {"code": (_code, _messages, _figures, _paths), "markdown": (_markdown, _paths)}
    for number, cell in enumerate(notebook.cells, 1):
        for check in checks.get(cell.cell_type, ()):
            yield from (f"cell {number} {problem}" for problem in check(cell, path))


def _whole(notebook: NotebookNode, path: Path) -> Iterator[str]:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if (size := path.stat().st_size) > MAX_BYTES:
        yield f"is {size / MAX_BYTES:.2f} MB; 1 MB is the limit, so shrink its figures"
    if (kernel := notebook.metadata.get("kernelspec", {}).get("name")) != "python3":
        yield f"names the kernel {kernel}; python3 is the one that everybody has"
    if "widgets" in notebook.metadata:
        yield "holds widget state (metadata.widgets), which code hosts show as an invalid notebook; strip it"
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        yield "is older than nbformat 4.5, the first with cell ids; save it with a current JupyterLab"
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield "wasn't run once from top to bottom (execution counts must be 1..N, and no code cell empty)"
    if (tagged := sum(has_tag(cell, "parameters") for cell in code)) != 1:
        yield f"has {tagged} code cells tagged 'parameters'; exactly one must be"
    own = [cell.source.strip() for cell in code if has_tag(cell, "exercise") or has_tag(cell, "check")]
    if len(set(own)) < len(own):
        yield "has two exercises with the same code; one of them has lost its own"
    if not notebook.metadata.get("quick"):
        yield "has no values for a quick run in its metadata (quick: {name of a parameter: value, …})"


def _stamps_and_exercises(notebook: NotebookNode, path: Path) -> Iterator[str]:
    try:
        fresh = stamped(notebook, path.stem, repository())
        for number, (old, new) in enumerate(zip(notebook.cells, fresh.cells, strict=True), 1):
            if old != new:
                what = "Colab badge" if old.cell_type == "markdown" else "bootstrap code"
                yield f"cell {number} has a missing or stale {what}; run `make stamp`"
    except ValueError as error:
        yield str(error)
    try:
        for exercise in find_exercises(notebook):
            points_of(notebook, exercise)
    except ValueError as error:
        yield str(error)


def _code(cell: NotebookNode, path: Path) -> Iterator[str]:
    limit = MAX_CHECK_LINES if has_tag(cell, "check") else MAX_LINES
    if (lines := len(cell.source.rstrip().splitlines())) > limit:
        yield f"has {lines} lines of code; {limit} is the limit"
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"shows an error ({output.ename})"


def _messages(cell: NotebookNode, path: Path) -> Iterator[str]:
    if not has_tag(cell, "check"):
        return
    try:
        nodes = ast.walk(ast.parse(cell.source))
    except SyntaxError:
        return  # `find_exercises` reports it
    for node in filter(is_assert, nodes):
        words = {keyword.arg for keyword in getattr(node, "keywords", ())} & {"msg", "err_msg"}
        if not (words or getattr(node, "msg", None)):
            yield f"has an assert without a message (line {node.lineno}); say what was expected and what came"


def _figures(cell: NotebookNode, path: Path) -> Iterator[str]:
    wordless = False
    for output in cell.outputs:
        data = output.get("data", {})
        if any(kind.startswith("image/") for kind in data) or "<img" in data.get("text/html", ""):
            wordless = True
        elif output.get("name") == "stdout" or not {"text/markdown", "text/html"}.isdisjoint(data):
            wordless = False
    if wordless:
        yield "shows a figure and no text after it; print what there is to be seen, as its alt text"


def _markdown(cell: NotebookNode, path: Path) -> Iterator[str]:
    prose = VERBATIM.sub("", cell.source)
    for picture, alt, target in _links(prose):
        if picture and not alt.strip():
            yield f"has a picture without alt text ({target[:60]})"
        # Addresses, anchors and attachments lead elsewhere.
        if target and not re.match(r"[a-z][a-z0-9+.-]*:|//|#", target, re.IGNORECASE):
            file = unquote(target.partition("#")[0])
            if not _in_repository(path.parent / file, path.resolve().parent.parent):
                yield f"links to {file}, which isn't a file of the repository"


def _in_repository(file: Path, root: Path) -> bool:
    file = file.resolve()
    built = any(file.is_relative_to(root / name) for name in BUILT)
    return file.exists() and file.is_relative_to(root) and not built


def _links(prose: str) -> Iterator[tuple[bool, str, str]]:
    """(is it a picture, its text, its target) of every link in Markdown or HTML; a badge in a link is two."""
    for match in MARKDOWN_LINK.finditer(prose):
        yield bool(match["picture"]), match["text"], match["target"]
        yield from _links(match["text"])
    for match in HTML_TAG.finditer(prose):
        attributes = {name.lower(): value for name, value in HTML_ATTRIBUTE.findall(match[0])}
        target = attributes.get("src") or attributes.get("href", "")
        yield match[1].lower() == "img", attributes.get("alt", ""), target


def _paths(cell: NotebookNode, path: Path) -> Iterator[str]:
    sources = [cell.source]
    for output in cell.get("outputs", []):
        sources += [output.get("text", ""), *output.get("traceback", [])]
        sources += [data for kind, data in output.get("data", {}).items() if kind.startswith("text/")]
    for source in sources:
        if match := ABSOLUTE.search(source):
            yield f"names a path of one machine ({match[0]})"


def main(argv: Sequence[str]) -> int:
    """Check the named notebooks, or all and what `make stamp` writes elsewhere; return the status."""
    failed = for_each([Path(name) for name in argv], check_notebook)
    if failed or argv:
        return failed
    from tools.notebooks.written import renew  # imports torch, which named notebooks needn't wait for

    stale = renew(write=False)
    for file, what, _ in stale:
        print(f"{file}: its {what} is stale; run `make stamp`", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
