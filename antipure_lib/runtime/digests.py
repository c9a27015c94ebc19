"""Hashes of what something was made from: what has the same hash need not be made twice."""

import hashlib
import json
from collections.abc import Callable
from inspect import Parameter, signature
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


def weights_digest(pipe: Any, names: tuple[str, ...]) -> str:
    """SHA-256 of the weights of a pipeline's parts. A large model takes seconds: call it once per run."""
    return digest(*(value for name in names for value in getattr(pipe, name).state_dict().values()))


def defaults(*functions: Callable) -> dict[str, str]:
    """The functions' default values. Where one of them changes, the result changes without a word."""
    return {
        f"{number} {parameter.name}": repr(parameter.default)
        for number, function in enumerate(functions)
        for parameter in signature(function).parameters.values()
        if parameter.default is not Parameter.empty
    }
