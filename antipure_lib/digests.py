"""Hashes of what something was made from, so that it need not be made twice."""

import hashlib
import json
from functools import cache
from typing import Any

import torch


def digest(*parts: object) -> str:
    """SHA-256 of tensors' contents and of plain values, in order."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            # As bytes, because NumPy knows no bfloat16.
            content = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            found.update(f"{part.dtype}{tuple(part.shape)}".encode() + content)
        elif isinstance(part, dict):
            found.update(digest(*(piece for item in sorted(part.items()) for piece in item)).encode())
        else:
            found.update(json.dumps(part).encode())
        found.update(b"|")
    return found.hexdigest()


@cache
def weights_digest(pipe: Any, names: tuple[str, ...]) -> str:
    """SHA-256 of the weights of a pipeline's parts, in the precision that they are in; remembered."""
    return digest(*(value for name in names for value in getattr(pipe, name).state_dict().values()))
