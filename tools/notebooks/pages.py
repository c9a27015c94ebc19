"""Web pages of executed notebooks, and the index that links them."""

import html
import os
import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from tools.notebooks.stamp import title_and_promise, write_text

LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)\s#])")  # the file in a Markdown link; no URL, no anchor
ROW = '<tr><td><a href="{}.html">{}</a></td><td>{}</td><td>{}</td></tr>'
# The one font that lies in the package, and no rough draft of every formula first.
MATHJAX = """<script type="text/x-mathjax-config"> MathJax.Hub.Config({ "fast-preview": { disabled: true },
  "HTML-CSS": { availableFonts: [], webFont: "STIX-Web", imageFont: null } }); </script>
"""


def to_html(notebook: nbformat.NotebookNode, source: Path, out_dir: Path) -> str:
    """An executed notebook as one page with its pictures inside.

    source: the file that was executed; links in it start from its folder. out_dir: where the page will lie.
    Links to notebooks in the source's folder become links to their pages. MathJax writes the formulas: the
    copy in out_dir (see `copy_mathjax`), without one that of the network.
    """

    def relink(match: re.Match) -> str:
        target = source.parent / match[0]
        if not target.exists():
            return match[0]
        if target.suffix == ".ipynb" and target.parent.samefile(source.parent):
            return target.with_suffix(".html").name
        return Path(os.path.relpath(target.resolve(), out_dir.resolve())).as_posix()

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(relink, cell.source)
    own = {"mathjax_url": "mathjax/MathJax.js?config=TeX-AMS-MML_HTMLorMML-full,Safe"}
    exporter = HTMLExporter(embed_images=True, **(own if (out_dir / "mathjax").exists() else {}))
    resources = {"metadata": {"name": title_and_promise(notebook, source.stem)[0], "path": str(out_dir)}}
    page = exporter.from_notebook_node(notebook, resources)[0]
    return page.replace("</head>", MATHJAX + "</head>", 1)


def copy_mathjax(out_dir: Path) -> None:
    """Copy MathJax into out_dir, unless it is there or the package jupyter-server-mathjax is missing."""
    package = find_spec("jupyter_server_mathjax")
    if package and not (out_dir / "mathjax").exists():
        with tempfile.TemporaryDirectory(dir=out_dir, prefix=".walk-") as scratch:
            static = Path(package.submodule_search_locations[0], "static")
            unused = shutil.ignore_patterns("a11y", "SVG")  # half of it
            os.rename(shutil.copytree(static, Path(scratch, "mathjax"), ignore=unused), out_dir / "mathjax")


def write_index(out_dir: Path) -> Path:
    """Write out_dir/index.html with a link to every executed page there, and return its path."""
    rows = []
    for executed in sorted(out_dir.glob("*.ipynb")):
        notebook = nbformat.read(executed, as_version=4)
        if run := notebook.metadata.get("papermill"):  # else it isn't from here
            title, promise = title_and_promise(notebook, executed.stem)
            changed = "".join(f" {name} = {value!r}." for name, value in run.parameters.items())
            cells = (executed.stem, title, promise + changed, minutes(run.duration))
            rows.append(ROW.format(*map(html.escape, cells)))
    index = out_dir / "index.html"
    page = Path(__file__).with_name("index.html").read_text(encoding="utf-8")
    write_text(index, page.replace("ROWS", "\n".join(rows)))
    return index


def minutes(seconds: float) -> str:
    """Seconds as people say them: 75.4 → '1 min 15 s'."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
