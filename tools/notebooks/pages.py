"""Web pages of executed notebooks, and the index that links them."""

import html
import os
import re
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)\s#])")  # the file in a Markdown link; no URL, no anchor
EMPHASIS = re.compile(r"\*+")
INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The walk</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }}
td, th {{ padding: .5rem .8rem; text-align: left; vertical-align: top; border-bottom: 1px solid #ccc; }}
td:last-child {{ white-space: nowrap; }}
</style></head>
<body><h1>The walk</h1>
<p>Every notebook as it was executed here. Its sliders need a running kernel: <code>make lab</code>.</p>
<table><tr><th>Notebook</th><th>What it shows</th><th>Run time</th></tr>
{rows}
</table></body></html>
"""

# The one font that lies in the package, and no rough draft of every formula first.
MATHJAX = """<script type="text/x-mathjax-config">
MathJax.Hub.Config({
  "HTML-CSS": { availableFonts: [], webFont: "STIX-Web", imageFont: null },
  "fast-preview": { disabled: true },
});
</script>
"""

ROW = '<tr><td><a href="{href}">{title}</a></td><td>{promise}</td><td>{run_time}</td></tr>'


def to_html(notebook: Any, source: Path, out_dir: Path) -> str:
    """An executed notebook as one page with its pictures inside.

    notebook: nbformat's NotebookNode. source: the file that was executed, from whose folder relative links
    start. out_dir: where the page will lie; links to the source's neighbours become links to their pages.
    Formulas are set by MathJax, which lies beside the pages (see `add_mathjax`).
    """
    from nbconvert import HTMLExporter

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
    resources = {"metadata": {"name": title_and_promise(notebook, source.stem)[0], "path": str(out_dir)}}
    exporter = HTMLExporter(embed_images=True, **add_mathjax(out_dir))
    page = exporter.from_notebook_node(notebook, resources)[0]
    return page.replace("</head>", MATHJAX + "</head>", 1)


def add_mathjax(out_dir: Path) -> dict[str, str]:
    """Copy MathJax into out_dir, unless it is there, and return nbconvert's option that names it.

    So formulas need no network. Without the package jupyter-server-mathjax: no option, and pages ask the
    network.
    """
    package = find_spec("jupyter_server_mathjax")
    if package is None:
        return {}
    if not (out_dir / "mathjax").exists():
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out_dir, prefix=".walk-") as scratch:
            static = Path(package.submodule_search_locations[0], "static")
            unused = shutil.ignore_patterns("a11y", "SVG")  # half of it
            whole = shutil.copytree(static, Path(scratch, "mathjax"), ignore=unused)
            try:
                os.rename(whole, out_dir / "mathjax")
            except OSError:
                if not (out_dir / "mathjax").exists():  # no other notebook's process was first
                    raise
    return {"mathjax_url": "mathjax/MathJax.js?config=TeX-AMS-MML_HTMLorMML-full,Safe"}


def write_index(out_dir: Path) -> Path:
    """Write out_dir/index.html with a link to every executed page there, and return its path."""
    import nbformat

    rows = []
    for executed in sorted(out_dir.glob("*.ipynb")):
        notebook = nbformat.read(executed, as_version=4)
        run = notebook.metadata.get("papermill")
        if run is None:  # not from here
            continue
        title, promise = title_and_promise(notebook, executed.stem)
        changed = "".join(f" {name} = {value!r}." for name, value in run.parameters.items())
        row = {"href": f"{executed.stem}.html", "title": title, "promise": promise + changed}
        row["run_time"] = minutes(run.duration)
        rows.append(ROW.format_map({key: html.escape(text) for key, text in row.items()}))
    index = out_dir / "index.html"
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".walk-") as scratch:
        whole = Path(scratch, index.name)
        whole.write_text(INDEX.format(rows="\n".join(rows)), encoding="utf-8")
        os.replace(whole, index)
    return index


def title_and_promise(notebook: Any, stem: str) -> tuple[str, str]:
    """The heading of a notebook's first Markdown cell (else `stem`) and the first line of text under it."""
    text = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    title, *rest = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    if not title.startswith("# "):
        return stem, ""
    # Badges, pictures and HTML may stand between the two.
    promise = next((line for line in rest if line[0] not in "#[!<"), "")
    return title.lstrip("# "), EMPHASIS.sub("", promise).strip("*_> ")


def minutes(seconds: float) -> str:
    """Seconds as people say them: 75.4 → '1 min 15 s'."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
