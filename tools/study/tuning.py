"""Rendered people who are neither trained on nor reported."""

import torch

from tools.faces.render import photos_of


def rendered(person: int, photos: int = 12, side: int = 64) -> torch.Tensor:
    """Photos of a person, N×3×side×side in [0, 1]. Of twelve, the judge alone sees the last four."""
    return torch.from_numpy(photos_of(person, photos, side)[0]).permute(0, 3, 1, 2).float() / 255
