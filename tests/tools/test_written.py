"""tools/notebooks/written.py: the parts of README and docs that are made from chapters and measurements."""

from pathlib import Path

import pytest

from tools.notebooks.check import main as check
from tools.notebooks.written import PARTS, main, renew

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The committed notebooks, README and docs, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    Path("notebooks").symlink_to(ROOT / "notebooks")
    Path("docs").mkdir()
    for file in {part.file for part in PARTS}:
        file.write_text((ROOT / file).read_text(encoding="utf-8"), encoding="utf-8")


def test_what_is_committed_is_fresh(folder, capsys):
    assert renew(write=False) == [] and main() == 0 and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("file", "what", "figure"),
    [
        ("README.md", "list of chapters", "| [0"),
        ("README.md", "table of results", "| clean photos |"),
        ("docs/teaching.md", "table of points", "| chapter | exercises |"),
        ("docs/measured.md", "part on the small models", "| DreamBooth |"),
    ],
)
def test_a_typed_figure_is_named_by_the_check_and_overwritten(folder, capsys, file, what, figure):
    committed = Path(file).read_text(encoding="utf-8")
    assert figure in committed
    typed = committed.replace(figure, figure + " typed", 1)
    Path(file).write_text(typed, encoding="utf-8")
    assert check([]) == 1 and Path(file).read_text(encoding="utf-8") == typed
    assert capsys.readouterr().err == f"{file}: its {what} is stale; run `make stamp`\n"
    assert main() == 0 and capsys.readouterr().out == f"{file}: {what} written\n"
    assert Path(file).read_text(encoding="utf-8") == committed


def test_a_missing_file_is_left_out(folder):
    Path("docs/teaching.md").unlink()
    assert renew(write=True) == [] and not Path("docs/teaching.md").exists()
