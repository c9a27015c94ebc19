"""An executed chapter as the site shows it: what belongs folded is marked, what needs a kernel is named."""

import copy
import re

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_output

from tools.notebooks.exercises import find_exercises
from tools.notebooks.stamp import has_tag, without_badge

WIDGET = "application/vnd.jupyter.widget-view+json"
NEEDS_KERNEL = "*Sliders and buttons need a running kernel: open this chapter in Colab or with `make lab`.*"
HEADING = re.compile(r"^(?=#{2,6} )", re.MULTILINE)


def as_page(notebook: NotebookNode) -> NotebookNode:
    """A copy of a chapter for myst-nb, without its badge: the page's header has a button for Colab.

    Folded are set-up code, solutions of exercises, and cells tagged `bonus`. On a heading's cell that tag
    folds the section, up to the next heading of its level.
    """
    page, cells = copy.deepcopy(notebook), []
    page.metadata.pop("widgets", None)  # with their state, myst-nb would load scripts from the network
    stubs = _stubs(page)
    for index, cell in enumerate(page.cells):
        if cell.cell_type == "markdown":
            if index == 0:
                cell.source = without_badge(cell.source)
            if has_tag(cell, "bonus"):
                cell.source = _folded_text(cell.source)
        elif cell.cell_type == "code":
            cell.outputs = [_without_kernel(output) for output in cell.outputs]
            if has_tag(cell, "bootstrap"):
                _fold(cell, "Set-up of this notebook")
            if has_tag(cell, "bonus"):
                _fold(cell, "Bonus")
            if index in stubs:
                cells.append(new_code_cell(stubs[index]))
                _fold(cell, "Solution")
        cells.append(cell)
    page.cells = cells
    return page


def _stubs(notebook: NotebookNode) -> dict[int, str]:
    """{index of a solved exercise's cell: what students are given}; none in a student's own solutions."""
    try:
        return {exercise.cell: exercise.stub for exercise in find_exercises(notebook)}
    except ValueError:  # `make lint` names it in a chapter
        return {}


def _fold(cell: NotebookNode, name: str) -> None:
    """Mark a code cell for myst-nb: folded, with a name to click on."""
    cell.metadata.setdefault("tags", []).append("hide-cell")
    cell.metadata.mystnb = {"code_prompt_show": name, "code_prompt_hide": name}


def _folded_text(source: str) -> str:
    """Text with MyST's mark for `tools.site.fold`: on its first heading, or on all of it if it has none."""
    if HEADING.search(source):
        return HEADING.sub("{.bonus}\n", source, count=1)
    return f"::::::{{container}} bonus\n{source}\n::::::"


def _without_kernel(output: NotebookNode) -> NotebookNode:
    """An output without its widget, which a page can't run: its picture, or else a line of text."""
    if WIDGET not in output.get("data", {}):
        return output
    if "image/png" in output.data:
        del output.data[WIDGET]
        return output
    return new_output("display_data", {"text/markdown": NEEDS_KERNEL})
