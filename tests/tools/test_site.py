"""The site: made from all committed chapters and one made up here, and clicked through in a browser."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import antipure_lib
from tools.notebooks.stamp import COLAB, badge, repository
from tools.site import build
from tools.site.build import SiteError, build_site
from tools.site.chapters import NEEDS_KERNEL, WIDGET, as_page

for needed in ("sphinx", "myst_nb", "sphinx_book_theme"):
    pytest.importorskip(needed, reason=f"{needed} is missing: pip install -e .[site]")

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAME = "99_made_up"
EXERCISE = "def half(x):\n    # solution\n    return x / 2\n    # end of solution"
BONUS = {"tags": ["bonus"]}


def made_up() -> nbformat.NotebookNode:
    """A chapter with everything that the site treats in a way of its own."""
    widget = new_output("display_data", {WIDGET: {"model_id": "0"}, "text/plain": "VBox(children=(…"})
    table = new_output("display_data", {"text/markdown": r"| $\alpha$ |" + "\n| --- |\n| zyzzyva |"})
    picture = "![three rows](../data/start/faces.png)"
    cells = [
        new_markdown_cell(f"# 99 · Made up\n\n{badge(NAME, repository())}\n\n**You see all of it.**"),
        new_code_cell("import os", metadata={"tags": ["bootstrap"]}),
        new_markdown_cell("## Links\n\n[01](01_diffusion_basics.ipynb), [terms](../docs/glossary.md)\n\n"
                          f"[licence](../LICENSE) {picture}\n\n$$\\hat x_0 = \\mathbb E\\,x$$"),
        new_code_cell("slider", outputs=[widget, table]),
        new_code_cell("bonus_code = 1", metadata=BONUS),
        new_markdown_cell("A bonus paragraph.\n\n- with a list", metadata=BONUS),
        new_markdown_cell("Before.\n\n## More\n\nBonus text.", metadata=BONUS),
        new_code_cell("in_the_bonus = 2"),
        new_markdown_cell("### Below it\n\nBonus, too."),
        new_markdown_cell("## Exercises\n\nAfter the bonus.\n\n[back](#more)"),
        new_markdown_cell("### Exercise 1 · Half · easy\n\nHalve it."),
        new_code_cell(EXERCISE, metadata={"tags": ["exercise"]}),
        new_code_cell("assert half(2) == 1", metadata={"tags": ["check"]}),
    ]  # fmt: skip
    state = {"application/vnd.jupyter.widget-state+json": {"state": {"0": {}}}}
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "widgets": state}
    return new_notebook(cells=cells, metadata=metadata | {"language_info": {"name": "python"}})


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder of a site; its building without a warning is the first test."""
    folder = tmp_path_factory.mktemp("site")
    chapters = Path(shutil.copytree(NOTEBOOKS, folder / "chapters", ignore=shutil.ignore_patterns(".*")))
    nbformat.write(made_up(), chapters / f"{NAME}.ipynb")
    return build_site(chapters, folder / "site", folder / "site.log").parent


class Page(HTMLParser):
    """What a page loads, what it links to, and the anchors that it has."""

    def __init__(self, file: Path):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], {"", "top"}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors.add(found.get("id", ""))
        if "src" in found or tag == "link" and found.get("rel") != "canonical":
            self.loads.append(found.get("src", found.get("href")))
        elif "href" in found:
            self.links.append(found["href"])


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {file: Page(file) for file in sorted(site.rglob("*.html")) if "_static" not in file.parts}


def target(file: Path, link: str) -> tuple[Path, str]:
    """The file and the anchor that a link in a file leads to."""
    parts = urlsplit(urljoin(file.as_uri(), link))
    return Path(unquote(parts.path)), unquote(parts.fragment)


def test_no_link_is_broken_and_nothing_is_loaded_from_elsewhere(site, pages):
    broken, checked = [], 0
    for file, page in pages.items():
        assert [load for load in page.loads if urlsplit(load).scheme not in ("", "data")] == []
        for link in page.loads + page.links:
            if urlsplit(link).scheme or link.startswith("//"):
                continue
            other, anchor = target(file, link)
            checked += 1
            if not other.is_file() or other in pages and anchor not in pages[other].anchors:
                broken.append(f"{file.relative_to(site)}: {link}")
    assert broken == []
    assert checked > 1000


def test_every_chapter_text_and_public_name_has_its_place(site, pages):
    index = {target(site / "index.html", link)[0] for link in pages[site / "index.html"].links}
    chapters = {site / "notebooks" / f"{path.stem}.html" for path in NOTEBOOKS.glob("*.ipynb")}
    texts = ("docs/glossary", "docs/notation", "docs/measured", "docs/teaching", "data/results/README")
    assert chapters | {site / f"{text}.html" for text in texts} <= index
    named = set().union(*(pages[file].anchors for file in site.glob("api/*.html")))
    assert {f"antipure_lib.{name}" for name in antipure_lib.__all__} <= named


def test_the_reference_shows_comments_of_arguments_and_docstrings(site):
    page = (site / "api/core.html").read_text(encoding="utf-8")
    assert "<li><p>momentum: direction" in page  # a hanging indent
    text = re.sub(r"<[^>]+>", "", page)
    assert "protected = antipure(ddpm, x, **fast(8 / 255))" in text
    assert "budget: ‖x_adv − x‖∞ ≤ η, in (0, 1]" in text  # a comment in pgd's head
    assert "Protect images: the last state of antipure_steps" in text


def test_buttons_give_the_notebook_itself_and_open_it_in_colab(site, pages):
    page = site / "notebooks/00_start_here.html"
    (source,) = {link for link in pages[page].links if link.endswith(".ipynb") and "_sources" in link}
    assert target(page, source)[0].read_bytes() == (NOTEBOOKS / "00_start_here.ipynb").read_bytes()
    assert badge("00_start_here", repository()).endswith(f"({_colab(pages[page])})")
    assert not [load for load in pages[page].loads if "badge" in load]


def _colab(page: Page) -> str:
    (link,) = [link for link in page.links if link.startswith(COLAB)]
    return link


def test_links_to_other_files_of_the_repository_are_web_addresses(site, pages):
    page = pages[site / f"notebooks/{NAME}.html"]
    assert {"01_diffusion_basics.html", "../docs/glossary.html"} <= set(page.links)
    assert f"{repository()}/blob/main/LICENSE" in page.links


def test_as_page_leaves_the_notebook_alone_and_needs_no_exercise_in_form():
    notebook = made_up()
    notebook.cells[-2].source = "def half(x):\n    return x / 2  # a student's own, without marks"
    before = nbformat.writes(notebook)
    cells = as_page(notebook).cells
    assert nbformat.writes(notebook) == before
    assert cells[-2].source == notebook.cells[-2].source and len(cells) == len(notebook.cells)
    assert cells[3].outputs[0].data == {"text/markdown": NEEDS_KERNEL}


def test_a_widget_with_a_picture_leaves_the_picture_alone():
    notebook = made_up()
    notebook.cells[3].outputs[0].data["image/png"] = "aGk="
    assert set(as_page(notebook).cells[3].outputs[0].data) == {"image/png", "text/plain"}


def test_only_a_site_is_replaced_and_only_by_a_whole_one(tmp_path, monkeypatch):
    chapters, out, log = tmp_path / "chapters", tmp_path / "out", tmp_path / "log"
    chapters.mkdir()
    with pytest.raises(SiteError, match="no notebook in"):
        build_site(chapters, out, log)
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A\n\n[b](b.md)")]), chapters / "a.ipynb")
    monkeypatch.setattr(build, "TEXTS", ())
    monkeypatch.setattr(build.api, "pages", dict)
    out.mkdir()
    (out / "letter.txt").touch()
    with pytest.raises(SiteError, match="is no site; choose another folder"):
        build_site(chapters, out, log)
    (out / "searchindex.js").touch()
    with pytest.raises(SiteError, match=r"a\.ipynb.*'b\.md'"):
        build_site(chapters, out, log)
    assert sorted(path.name for path in out.iterdir()) == ["letter.txt", "searchindex.js"]
    assert "b.md" in log.read_text() and not list(tmp_path.glob(".site-*"))


@pytest.fixture(scope="module")
def browser(site):
    """open(page, width=…) → the page in a browser that has no network; requests to it fail the test."""
    from browser import blank_page

    asked = []
    with blank_page() as blank:
        blank.on("request", lambda request: asked.append(request.url))

        def open_page(name: str, width: int = 1280):
            blank.set_viewport_size({"width": width, "height": 844})
            blank.goto((site / name).as_uri())
            return blank

        yield open_page
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))] == []
    assert asked


def test_formulas_are_written_and_no_page_asks_the_network_or_scrolls_sideways(site, pages, browser):
    sideways, formulas = [], 0
    for file in pages:
        if "_modules" in file.parts:
            continue  # source code alone
        page = browser(file.relative_to(site).as_posix(), width=390)
        expected = page.locator("span.math.notranslate, div.math.notranslate").count()
        if expected:
            page.wait_for_function("window.MathJax && MathJax.Hub && MathJax.Hub.queue.pending === 0")
            page.wait_for_function(f"document.querySelectorAll('.MathJax').length >= {expected}")
            assert page.locator(".merror, .MathJax_Error").count() == 0, file
            formulas += expected
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            sideways.append(file.relative_to(site).as_posix())
    assert sideways == []
    assert formulas > 100


def test_bonus_and_solutions_open(browser):
    page = browser(f"notebooks/{NAME}.html")
    shown = ["Before.", "After the bonus.", "Exercise 1 · Half", "raise NotImplementedError", "zyzzyva"]
    folded = ["import os", "bonus_code", "A bonus paragraph.", "Bonus text.", "in_the_bonus", "Bonus, too."]
    folded += ["# end of solution"]
    for text in shown:
        assert page.locator("article").get_by_text(text).last.is_visible(), text
    assert page.locator("#more > h2").is_visible()
    for text in folded:
        assert not page.locator("article").get_by_text(text).last.is_visible(), text
    for summary in page.locator("article summary").all():
        summary.click()
    for text in folded:
        assert page.locator("article").get_by_text(text).last.is_visible(), text


def test_search_finds_a_word_of_one_chapter(browser):
    page = browser("index.html")
    page.keyboard.press("Control+k")
    page.locator("input[type=search]:visible").fill("zyzzyva")
    page.keyboard.press("Enter")
    page.locator("#search-results a").first.click()
    page.wait_for_url(re.compile(rf"{NAME}\.html"))


def test_the_sidebar_leads_to_a_chapter_on_a_phone(browser):
    page = browser("index.html", width=390)
    page.locator(".primary-toggle:visible").click()
    page.get_by_role("link", name="10 · The verdict").locator("visible=true").first.click()
    page.wait_for_url(re.compile(r"10_verdict\.html"))


def test_the_command_says_where_the_site_is_or_why_there_is_none(tmp_path, monkeypatch, capsys):
    made = tmp_path / "out/index.html"
    monkeypatch.setattr(build, "build_site", lambda chapters, out, log: made)
    assert build.main(["--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Open {made}"
    monkeypatch.undo()
    assert build.main(["--chapters", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert "error: no notebook in" in capsys.readouterr().err
