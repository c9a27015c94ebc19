"""Build the site from executed chapters, without running them: `python -m tools.site.build`.

Sphinx reads a copy of the repository's texts at the same places, so links between them stay as they are. A
link to any other file of the repository becomes its web address.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

import nbformat

from tools.notebooks.links import PICTURES, relinked
from tools.notebooks.stamp import write_notebook
from tools.site import api
from tools.site.chapters import as_page

ROOT = Path(__file__).resolve().parents[2]
OUT = Path("build/site")
TEXTS = ("CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "data/**/*.md")
PARTS = {  # of the navigation: captions and pages, each page in the first part that it fits
    "Chapters": ("notebooks/*",),
    "Look up": ("docs/glossary", "docs/notation", "api/index"),
    "Results": ("docs/measured", "data/results/*"),
    "Teaching": ("docs/teaching", "docs/full_size", "docs/errata"),
    "The project": ("CONTRIBUTING", "CHANGELOG", "data/README", "data/*", "docs/*"),
}


class SiteError(Exception):
    """The site can't be built; the message says why, or ends with Sphinx's warnings."""


def build_site(chapters: Path, out: Path, log: Path, strict: bool = True) -> Path:
    """Build the site of all notebooks in a folder, and return the path of its first page.

    out: an earlier site there is replaced, once the new one is complete. log: Sphinx's output is added to it.
    strict: warnings are errors. Raises SiteError, also if `out` holds something other than a site.
    """
    if out.exists() and any(out.iterdir()) and not (out / "searchindex.js").exists():
        raise SiteError(f"{out} holds something that is no site; choose another folder")
    if not (notebooks := sorted(chapters.glob("*.ipynb"))):
        raise SiteError(f"no notebook in {chapters.absolute()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".site-") as scratch:
        source, made = Path(scratch, "source").resolve(), Path(scratch, "site").resolve()
        stage(notebooks, source)
        _run_sphinx(source, made, log, strict)
        for path in notebooks:  # what the pages' download buttons give: the notebook itself
            shutil.copyfile(path, made / "_sources/notebooks" / path.name)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(made, out)
    return out / "index.html"


def stage(notebooks: Sequence[Path], source: Path) -> None:
    """Write Sphinx's source folder: chapters, texts, pictures, API pages and the navigation."""
    texts = [path for pattern in TEXTS for path in sorted(ROOT.glob(pattern))]
    staged = {*texts, *(ROOT / "notebooks" / path.name for path in notebooks)}

    def stays(target: Path) -> bool:
        if target.suffix in PICTURES:
            copy = source / target.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, copy)
        return target in staged or target.suffix in PICTURES

    for path in notebooks:
        page = as_page(nbformat.read(path, as_version=4))
        for cell in page.cells:
            if cell.cell_type == "markdown":
                cell.source = relinked(cell.source, ROOT / "notebooks", ROOT, stays)
        (source / "notebooks").mkdir(parents=True, exist_ok=True)
        write_notebook(source / "notebooks" / path.name, page)
    for path in texts:
        _write(source / path.relative_to(ROOT), relinked(path.read_text("utf-8"), path.parent, ROOT, stays))
    for name, text in api.pages().items():
        _write(source / "api" / f"{name}.rst", text)
    readme = relinked((ROOT / "README.md").read_text("utf-8"), ROOT, ROOT, stays)
    _write(source / "index.md", readme + navigation(source))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def navigation(source: Path) -> str:
    """The pages of a source folder as hidden lists for the sidebar, in PARTS."""
    files = sorted(path for path in source.rglob("*") if path.suffix in (".ipynb", ".md", ".rst"))
    names = [path.relative_to(source).with_suffix("").as_posix() for path in files]
    text = ""
    for caption, patterns in PARTS.items():
        fitting = [name for pattern in patterns for name in names if fnmatch(name, pattern)]
        names = [name for name in names if name not in fitting]
        entries = "\n".join(dict.fromkeys(fitting))
        text += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{entries}\n```\n"
    return text


def _run_sphinx(source: Path, made: Path, log: Path, strict: bool) -> None:
    """Run Sphinx and add MathJax to its pages. Raises SiteError with its warnings."""
    words = ["-q", "-c", str(Path(__file__).parent), "-d", str(source.parent / "doctrees")]
    words += ["--fail-on-warning", "--keep-going"] if strict else []
    command = [sys.executable, "-m", "sphinx", *words, str(source), str(made)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(done.stdout + done.stderr)
    if done.returncode:
        raise SiteError(f"Sphinx ended with\n{done.stderr.strip()[-2000:]}\nThe full log is {log}.")
    mathjax = Path(find_spec("jupyter_server_mathjax").submodule_search_locations[0], "static")
    unused = shutil.ignore_patterns("a11y", "SVG", "localization")  # more than half of it
    shutil.copytree(mathjax, made / "_static/mathjax", ignore=unused)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. argv: its words; by default those of this process."""
    parser = argparse.ArgumentParser(prog="python -m tools.site.build", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--chapters", type=Path, default=Path("notebooks"), metavar="DIR", help="default: %(default)s")
    add("--out", type=Path, default=OUT, metavar="DIR", help="default: %(default)s")
    args = parser.parse_args(argv)
    log = args.out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    print(f"the site of {args.chapters}/ (log: {log}) ...", flush=True)
    try:
        print(f"Open {build_site(args.chapters, args.out, log).resolve()}")
    except (SiteError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
