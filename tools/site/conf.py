"""Sphinx's configuration of the site; `tools.site.build` runs it. No page asks the network for anything."""

from pathlib import Path

from tools.notebooks.stamp import COLAB, repository
from tools.site.api import documented

project = "AntiPure notebooks"
author = "The AntiPure notebooks authors"
copyright = f"{author}; MIT, faces and models CC0 1.0"
html_title = project
extensions = [
    "myst_nb",  # notebooks and Markdown
    "sphinx.ext.autodoc",  # docstrings
    "sphinx.ext.autosummary",  # a table of a page's names
    "sphinx.ext.mathjax",  # formulas
    "sphinx.ext.viewcode",  # the source of each public name
    "tools.site.fold",
]

nb_execution_mode = "off"  # pages show the outputs that the notebooks hold
nb_render_markdown_format = "myst"  # tables that cells print may hold formulas
nb_merge_streams = True
myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 4  # as on GitHub
myst_update_mathjax = False  # its settings are for other versions

html_use_index = False  # the reference and the search have every name
html_theme = "sphinx_book_theme"
html_static_path = [str(Path(__file__).with_name("static"))]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system
html_theme_options = {
    "repository_url": repository(),
    "repository_branch": "main",
    "use_repository_button": True,
    "launch_buttons": {"colab_url": COLAB},
    "navbar_persistent": [],  # the sidebar has a field for search already
    "home_page_in_toc": True,
    "show_toc_level": 2,
}
# build.py copies MathJax into _static. It reads no part of a page but formulas.
mathjax_path = "mathjax/MathJax.js"
mathjax2_config = {
    "config": ["TeX-AMS-MML_HTMLorMML-full.js"],
    "tex2jax": {"ignoreClass": ".*", "processClass": "math"},
    "fast-preview": {"disabled": True},
    "HTML-CSS": {"availableFonts": [], "webFont": "STIX-Web", "imageFont": None},
    "showMathMenu": False,
    "messageStyle": "none",
}

default_role = "code"  # docstrings mark code with one backtick


def _signature(app, what, *_):
    """Leave arguments to `_docstring`, which shows them with their comments."""
    return {"function": ("(...)", ""), "method": ("(...)", ""), "class": ("", "")}.get(what)


def _docstring(app, what, name, value, options, lines):
    """Put the declaration before the docstring."""
    if what in ("function", "class", "method"):
        lines[:] = documented(value, lines)


def setup(app):
    """Connect the hooks above."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _docstring)
