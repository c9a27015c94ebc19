"""Notebook 00 as its reader meets it: JupyterLab in a browser, the mouse on the panel for one's own photo.

Of its cells the panel's is run, and those that it needs; test_colab.py runs all of them.
"""

import ast
import base64
import io
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from browser import SECOND, blank_page, expect
from committed import FOLDER, quick
from PIL import Image

from antipure_lib import data_path, from_pil, load_image

for needed in ("ipywidgets", "jupyterlab", "papermill"):
    pytest.importorskip(needed, reason=f"{needed} is missing: pip install -e .[notebooks]")

NAME = "00_start_here"
BUILD = Path(__file__).parents[2] / "build"
PHOTO = data_path("faces", "p01", "B1.png")
NOTIFICATION = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"
STDERR = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]'  # tracebacks, too
# Upper limits for a slow machine; what is waited for mostly comes much sooner.
START, RUN_ALL, PROTECT = 90 * SECOND, 900 * SECOND, 180 * SECOND


def what_the_panel_needs(cells: list) -> list:
    """Set-up and the panel's cell, and the cells between them that assign what a later one reads."""
    kept, read = [], set()
    for cell in reversed([cell for cell in cells if cell.cell_type == "code"]):
        if {"bootstrap", "setup", "injected-parameters"} & set(cell.metadata.tags):
            kept.insert(0, cell)
            continue
        tree = ast.parse(cell.source)
        targets = [target for line in tree.body if isinstance(line, ast.Assign) for target in line.targets]
        assigned = {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
        if "photo_panel(" in cell.source or assigned & read:
            kept.insert(0, cell)
            read -= assigned
            read |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - assigned
    return kept


@pytest.fixture
def lab(tmp_path):
    """The address of a notebook of the panel, small parameters in it, in a JupyterLab of its own."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    notebook = parameterize_notebook(load_notebook_node(str(FOLDER / f"{NAME}.ipynb")), quick(NAME))
    notebook.cells = what_the_panel_needs(notebook.cells)
    for cell in notebook.cells:
        cell.outputs, cell.execution_count = [], None
    files, home = tmp_path / "files", tmp_path / "home"
    files.mkdir()
    nbformat.write(notebook, files / f"{NAME}.ipynb")
    # Otherwise a new user is asked whether to fetch news.
    quiet = home / "settings" / NOTIFICATION
    quiet.parent.mkdir(parents=True)
    quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))

    settings = {f"JUPYTER_{name.upper()}_DIR": str(home / name) for name in ("config", "data", "runtime")}
    settings |= {f"JUPYTERLAB_{name.upper()}_DIR": str(home / name) for name in ("settings", "workspaces")}
    settings |= {"IPYTHONDIR": str(home / "ipython")}
    token = secrets.token_hex()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"]
    command += ["--ServerApp.port=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={files}"]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=files, env=os.environ | settings, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        port = free_port(server, home / "runtime", tmp_path / "server.log")
        yield f"http://127.0.0.1:{port}/lab/tree/{NAME}.ipynb?token={token}"
    finally:
        stop(server)


def free_port(server, runtime: Path, log: Path) -> int:
    """The port that the server chose and wrote down, once it listens there."""
    deadline = time.monotonic() + START / SECOND
    while not (found := list(runtime.glob("jpserver-*.json"))):
        assert server.poll() is None, f"JupyterLab ended:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"JupyterLab didn't start in time:\n{log.read_text()}"
        time.sleep(0.1)
    return json.loads(found[0].read_text())["port"]


def stop(server) -> None:
    """End the server, and with it its kernels; whoever stays is killed."""
    try:
        family = psutil.Process(server.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    for process in psutil.wait_procs(family, timeout=5)[1]:
        process.kill()


@pytest.fixture
def page(lab):
    """The notebook, opened there. The last that was to be seen goes to build/browser.png."""
    with blank_page() as page:
        page.goto(lab)
        yield page
        BUILD.mkdir(exist_ok=True)
        page.screenshot(path=BUILD / "browser.png")


def run_all(page) -> None:
    """Run > Run All Cells, and the end of it: every cell has its number, none an error, the kernel rests."""
    # Cells run before the page has heard of its kernel are dropped without a word. The circle above the
    # notebook is "idle" already then; the line below names the kernel, too.
    resting = page.locator("#jp-main-statusbar").get_by_text(re.compile(r"\(ipykernel\) \| Idle$"))
    expect(resting).to_be_visible(timeout=START)
    # The menu is that of the document last clicked.
    page.locator(".jp-Cell").first.click(position={"x": 40, "y": 10})
    expect(page.locator(".lm-TabBar-tab.jp-mod-current")).to_be_visible()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    prompts = page.locator(".jp-CodeCell .jp-InputArea-prompt")
    expect(prompts.first).not_to_have_text("[ ]:")
    # After an error the rest isn't run, and nothing waits either.
    expect(prompts.filter(has_text="[*]")).to_have_count(0, timeout=RUN_ALL)
    expect(resting).to_be_visible()
    assert page.locator(STDERR).filter(has_text=re.compile("Error")).all_text_contents() == []
    assert prompts.all_text_contents() == [f"[{number}]:" for number in range(1, prompts.count() + 1)]


class Panel:
    """The panel for one's own photo, by what a person sees of it."""

    def __init__(self, page):
        self.page = page
        self.box = page.locator(".widget-vbox").filter(has=page.locator(".widget-upload")).first
        self.box.scroll_into_view_if_needed()
        self.drawn = []
        self.wait_for_pictures(1)

    def upload(self, path: Path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.box.get_by_role("button", name="Your photo").click()
        chooser.value.set_files(path)

    def wait(self, status: str) -> None:
        """Until the panel says so and shows its four pictures anew."""
        expect(self.box.get_by_text(status)).to_be_visible(timeout=PROTECT)
        self.wait_for_pictures(4)

    def wait_for_pictures(self, count: int) -> None:
        self.page.wait_for_function(
            """([box, count, drawn]) => {
                 const images = [...box.querySelectorAll(".widget-image")];
                 return images.length === count &&
                   images.every(image => image.naturalWidth > 0 && !drawn.includes(image.src));
               }""",
            arg=[self.box.element_handle(), count, self.drawn],
        )
        self.drawn = self.box.locator(".widget-image").evaluate_all("images => images.map(i => i.src)")

    def pictures(self) -> dict:
        """What each caption's picture shows."""
        found = self.box.locator(".widget-image").evaluate_all(
            """images => Promise.all(images.map(async image => {
                 const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
                 const caption = image.parentElement.querySelector(".widget-html").textContent.trim();
                 return [caption, btoa(String.fromCharCode(...bytes))];
               }))"""
        )
        return {caption: from_pil(Image.open(io.BytesIO(base64.b64decode(data)))) for caption, data in found}

    def download(self, folder: Path) -> Path:
        with self.page.expect_download() as download:
            self.box.get_by_role("link", name=re.compile("^download ")).click()
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path


def change(path: Path):
    """The largest change of any value in a protected PNG, in steps of 1/255."""
    protected = load_image(path)
    return (protected - load_image(PHOTO, protected.shape[-1])).abs().max().item() * 255


def test_a_photo_is_protected_in_the_browser(page, tmp_path):
    run_all(page)
    panel = Panel(page)
    slider = panel.box.get_by_role("slider")
    eta = int(float(slider.get_attribute("aria-valuenow")))
    assert list(panel.pictures()) == ["photo"]
    ours = panel.pictures()["photo"]

    panel.upload(PHOTO)
    panel.wait(f"done: budget {eta}/255")
    before = panel.pictures()
    assert not before["photo"].equal(ours)
    file = panel.download(tmp_path)
    assert file.read_bytes().startswith(b"\x89PNG")
    assert 0 < change(file) <= eta + 1e-3

    slider.press("Home")  # the smallest budget
    panel.wait("done: budget 1/255")
    after = panel.pictures()
    assert after["photo"].equal(before["photo"])
    assert not after["protected"].equal(before["protected"])
    assert "change × 128" in after
    smaller = panel.download(tmp_path)
    assert smaller.read_bytes() != file.read_bytes()
    assert 0 < change(smaller) <= 1 + 1e-3

    panel.box.get_by_role("combobox").select_option("blur")
    panel.wait("purifier blur")
    assert panel.pictures()["protected"].equal(after["protected"])
    assert not panel.pictures()["protected, purified"].equal(after["protected, purified"])
