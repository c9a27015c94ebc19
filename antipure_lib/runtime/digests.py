"""Hashes of what something was made from, so that it need not be made twice."""

import hashlib
import json
from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any
from weakref import WeakKeyDictionary

import torch

_known: WeakKeyDictionary[Any, dict[tuple, tuple[tuple, str]]] = WeakKeyDictionary()


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
    """SHA-256 of the weights of a pipeline's parts, in the precision that they are in.

    Remembered until a weight is replaced or changed in place (through `.data` is not noticed).
    """
    weights = [value for name in names for value in getattr(pipe, name).state_dict(keep_vars=True).values()]
    version = tuple((value.data_ptr(), value._version) for value in weights)
    known = _known.setdefault(pipe, {})
    if known.get(names, (None,))[0] != version:
        known[names] = version, digest(*weights)
    return known[names][1]


def default(function: Callable, argument: str) -> Any:
    """The default value of a function's argument."""
    return signature(function).parameters[argument].default


def defaults(*functions: Callable) -> dict[str, str]:
    """The functions' default values: where one changes, so does what is made without naming it."""
    return {
        f"{number} {parameter.name}": repr(parameter.default)
        for number, function in enumerate(functions)
        for parameter in signature(function).parameters.values()
        if parameter.default is not Parameter.empty
    }
