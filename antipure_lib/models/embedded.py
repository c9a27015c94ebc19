"""The embedded data: 12 held-out people who don't exist, four photos in each of three sets."""

from pathlib import Path

import torch

from ..photos.pictures import load_image

PHOTO_SETS = ("A", "B", "C")  # A: surrogate; B: protected, then learned; C: reference


def data_path(*parts: str) -> Path:
    """Where an embedded file or folder is: data_path("faces", "p01", "A1.png").

    It is next to the package in a checkout and inside it in an installed wheel.
    Raises FileNotFoundError when this part of the data isn't there.
    """
    package = Path(__file__).resolve().parents[1]
    # Only a checkout has pyproject.toml next to the package: site-packages/data would be somebody else's.
    home = package.parent if (package.parent / "pyproject.toml").exists() else package
    path = home.joinpath("data", *parts)
    if not path.exists():
        raise FileNotFoundError(f"{path}: not in this installation; reinstall antipure_lib or clone it whole")
    return path


def identities() -> list[str]:
    """Names of the held-out people, sorted: the folders of data/faces."""
    return sorted(folder.name for folder in data_path("faces").iterdir() if folder.is_dir())


@torch.inference_mode(False)  # else the photos could never take part in a gradient
def load_faces(identity: str, photo_set: str = "B") -> torch.Tensor:
    """The four photos of one set of one person (data/faces/README.md): 4×3×H×W float32 in [0, 1].

    identity: one of identities(). photo_set: "A", "B" or "C".
    Raises ValueError for an unknown person or set.
    """
    if identity not in identities():
        raise ValueError(f"unknown identity '{identity}'; the known ones are {', '.join(identities())}")
    if photo_set not in PHOTO_SETS:
        raise ValueError(f"photo_set must be one of {', '.join(PHOTO_SETS)}, got '{photo_set}'")
    return torch.stack([load_image(data_path("faces", identity, f"{photo_set}{i}.png")) for i in range(1, 5)])
