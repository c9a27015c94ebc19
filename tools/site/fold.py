"""A Sphinx extension: sections and text of class `bonus` are folded, as myst-nb folds tagged code cells."""

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.application import Sphinx


def fold(app: Sphinx, document: nodes.document, docname: str) -> None:
    """Put what stands under a marked section's title, or in a marked container, into a fold."""
    for node in list(document.findall(_is_bonus)):
        shown = int(isinstance(node, nodes.section))  # a section's title stays
        inside = HideCodeCellNode(prompt_show="Bonus", prompt_hide="Bonus", classes=["above-input"])
        inside.extend(node.children[shown:])
        node.children[shown:] = []
        node.append(nodes.container("", inside, classes=["cell"]))  # myst-nb's style is for folds in cells


def _is_bonus(node: nodes.Node) -> bool:
    return isinstance(node, nodes.section | nodes.container) and "bonus" in node["classes"]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("doctree-resolved", fold)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
