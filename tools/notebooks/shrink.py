"""Reduce the pictures in executed notebooks to 256 colours each: a third to a half of the bytes.

A widget that also has a picture leaves the picture alone: the file has no kernel that could run the widget.

    python -m tools.notebooks.shrink [NOTEBOOK …]     # in place; `make execute` does it after running them

A picture that wouldn't get smaller stays as it is, so a second run changes nothing.
"""

import base64
import io
import sys
from pathlib import Path

from nbformat import NotebookNode
from PIL import Image

from tools.notebooks.stamp import for_each, read_notebook, write_notebook

PNG, WIDGET = "image/png", "application/vnd.jupyter.widget-view+json"


def shrink_picture(png: bytes) -> bytes:
    """A PNG file's bytes, with a palette of 256 colours if that is smaller; transparency is laid on white."""
    picture = Image.open(io.BytesIO(png))
    if picture.mode == "P":
        return png
    white = Image.new("RGBA", picture.size, "white")
    opaque = Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    file = io.BytesIO()
    opaque.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return min(file.getvalue(), png, key=len)


def shrink(notebook: NotebookNode) -> None:
    """Shrink every picture among the outputs of a notebook, and drop the widgets that have one, in place."""
    for cell in notebook.cells:
        for data in (output.get("data", {}) for output in cell.get("outputs", [])):
            if PNG in data:
                data.pop(WIDGET, None)
                data[PNG] = base64.b64encode(shrink_picture(base64.b64decode(data[PNG]))).decode()


def shrink_file(path: Path) -> list[str]:
    """Shrink the pictures of a notebook's file."""
    notebook, before = read_notebook(path), path.stat().st_size
    shrink(notebook)
    write_notebook(path, notebook)
    print(f"{path.name}: {before / 1e3:.0f} kB, now {path.stat().st_size / 1e3:.0f} kB")
    return []


if __name__ == "__main__":
    sys.exit(for_each([Path(given) for given in sys.argv[1:]], shrink_file))
