"""`python -m antipure_lib doctor`: what there is to work with, and whether it works."""

import argparse
import platform
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from .options import add_parser

WIDTH = 37  # of the first column: "--ddpm guided-diffusion-256-uncond" and room

DEVELOPMENT = ("all", "test", "tools")  # extras that nothing in the package needs


def add_command(subparsers: Any) -> None:
    """Add `doctor` to the command line's parser."""
    summary = "versions, device, memory, cache, and which models load here"
    about = "Downloads nothing. Exit status 0 if protection works with the embedded model."
    add_parser(subparsers, "doctor", summary, about, run=_run)


def _run(args: argparse.Namespace) -> int:
    missing, works = [], True
    for name, extra in _packages().items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = f"missing; pip install {name}" + (f" (only for {extra})" if extra else "")
            if not extra:
                missing.append(name)
        print(f"{name:{WIDTH}}{found}")
    if missing:
        raise ValueError(f"{', '.join(missing)} missing, nothing can work without")
    for name, found, good in _checks():
        print(f"{name:{WIDTH}}{found}", flush=True)
        works &= good
    if not works:
        raise ValueError("protection doesn't work here; see above")
    return 0


def _packages() -> dict[str, str]:
    """Package → the extra that asks for it, "" for what everything needs; as pyproject.toml has them."""
    found: dict[str, str] = {}
    for line in requires("antipure-notebooks") or ():
        extra = re.search(r"extra == ['\"](\w+)|$", line)[1] or ""
        if extra not in DEVELOPMENT:
            found.setdefault(re.match(r"[\w.-]+", line)[0], extra)
    return found


def _checks() -> Iterator[tuple[str, object, bool]]:
    """(what, what was found, whether one can work with it)."""
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from ..models import checkpoints
    from ..protections.registry import protect
    from ..runtime.devices import pick_device, pick_dtype
    from ..runtime.memory import free_memory
    from ..runtime.unet import sample_size
    from .one_photo import OPTIONS, words_of_options

    device, cache = pick_device(), Path(HF_HUB_CACHE)
    yield "python", f"{platform.python_version()}, {platform.system()} {platform.machine()}", True
    yield "device", f"{device}, computes fastest in {pick_dtype(device)}", True
    for place in dict.fromkeys(("cpu", device.type)):
        yield f"free memory of {place}", f"{free_memory(place) / 1e9:.1f} GB", True
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    yield "cache of downloaded models", f"{cache}, {shutil.disk_usage(there).free / 1e9:.1f} GB free", True
    for row in checkpoints.known_checkpoints():
        try:
            with words_of_options():
                parts = getattr(checkpoints, row.loader)(row.name).components.values()
            size = sum(part.num_parameters() for part in parts if hasattr(part, "num_parameters"))
            found, good = f"loads, {size / 1e6:.1f} M weights", True
        except Exception as error:  # whatever it is, it is a finding, not an end
            found, good = f"doesn't load: {error}", row.name != "nano"
        yield f"{OPTIONS[row.loader]} {row.name}", found, good
    try:
        ddpm = checkpoints.load_ddpm("nano")
        x = torch.full((3, sample_size(ddpm), sample_size(ddpm)), 0.5, dtype=torch.float32)
        change = 255 * (protect("antipure", x, ddpm=ddpm, eta=8 / 255, steps=1) - x).abs().max().item()
        found, good = f"changes a photo by {change:.0f}/255", 0 < change < 9
    except Exception as error:
        found, good = f"fails: {error}", False
    yield "one step of protection", found, good
