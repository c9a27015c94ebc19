"""The command line in an empty folder."""

from pathlib import Path

import pytest

from antipure_lib.__main__ import main
from antipure_lib.photos.pictures import save_image


@pytest.fixture
def run(tiny_folder, tmp_path, monkeypatch, capfd):
    """run("protect", …): (exit status, stdout's lines, stderr's lines); run.estimates: the estimate's."""
    monkeypatch.chdir(tmp_path)

    def call(command, *words, out="out", model=tiny_folder):
        options = ["--ddpm", str(model), "--precision", "float32"] if command in ("protect", "purify") else []
        options += ["--out", str(out)] if out else []
        capfd.readouterr()
        try:
            status = main([command, *options, *map(str, words)])
        except SystemExit as end:  # after the help
            status = end.code
        told, err = (text.splitlines() for text in capfd.readouterr())
        call.estimates = [line for line in err if line.startswith("estimate: ")]
        return status, told, [line for line in err if line not in call.estimates]

    return call


@pytest.fixture
def photos(run, pictures):
    """photos("a.png", "b.png", …, h=16, w=16): their tensors, written into the folder of `run`."""

    def make(*names, h=16, w=16):
        images = pictures(len(names), h, w)
        for name, x in zip(names, images, strict=True):
            save_image(x, name)
        return images

    return make


@pytest.fixture
def files():
    """files(folder): {path: bytes} of all its files, hidden ones too."""

    def read(folder="out"):
        found = (path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}

    return read
