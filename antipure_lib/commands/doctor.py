"""`python -m antipure_lib doctor`: what there is to work with, and whether it works.

Everything heavy is imported where it is used: the command line starts without torch.
"""

import argparse
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

WIDTH = 37  # of the first column: "--ddpm guided-diffusion-256-uncond" and room

NEEDED = ("torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "numpy", "pillow")

OPTIONAL = {
    "tqdm": "progress",
    "matplotlib": "pictures, `inspect`",
    "dlib-bin": "identity judge",
    "face-recognition-models": "identity judge",
    "flip-evaluator": "FLIP",
    "scikit-image": "SSIM",
    "ncnn": "purifier waifu2x",
    "filelock": "`benchmark`",
}


def add_command(subparsers: Any) -> None:
    """Add `doctor` to the command line's parser."""
    summary = "versions, device, memory, cache, and which models load here"
    about = "Downloads nothing. Exit status 0 if protection works with the embedded model."
    parser = subparsers.add_parser("doctor", help=summary, description=f"{summary.capitalize()}. {about}")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    missing = []
    print(f"{'python':{WIDTH}}{platform.python_version()}, {platform.system()} {platform.machine()}")
    for name in (*NEEDED, *OPTIONAL):
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "missing; pip install " + name
            if name in OPTIONAL:
                found += f" (only for {OPTIONAL[name]})"
            else:
                missing.append(name)
        print(f"{name:{WIDTH}}{found}")
    if missing:
        print(f"error: {', '.join(missing)} missing, nothing can work without", file=sys.stderr)
        return 1
    works = True
    for name, found, good in _checks():
        print(f"{name:{WIDTH}}{found}", flush=True)
        works &= good
    if not works:
        print("error: protection doesn't work here; see above", file=sys.stderr)
    return 0 if works else 1


def _checks() -> Iterator[tuple[str, str, bool]]:
    """(what, what was found, whether one can work with it)."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from ..models.checkpoints import load_ddpm
    from ..runtime.devices import pick_device, pick_dtype
    from .options import load_named

    device = pick_device()
    yield "device", f"{device}, computes fastest in {pick_dtype(device)}", True
    yield "free memory", _free_memory(device), True
    cache = Path(HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    yield "cache of downloaded models", f"{cache}, {shutil.disk_usage(there).free / 1e9:.1f} GB free", True
    for option, name, load in _models():
        # Any failure of one model is a finding, not an end.
        try:
            parts = load_named(load, name).components.values()
            size = sum(part.num_parameters() for part in parts if hasattr(part, "num_parameters"))
            found, good = f"loads, {size / 1e6:.1f} M weights", True
        except Exception as error:
            found, good = f"doesn't load: {error}", name != "nano"
        yield f"--{option} {name}", found, good
    try:
        yield "one step of protection", _one_step(load_ddpm("nano")), True
    except Exception as error:
        yield "one step of protection", f"fails: {error}", False


def _models() -> Iterator[tuple[str, str, Callable]]:
    """(option that takes it, name, what loads it) of every model that has a name."""
    from ..models import checkpoints

    for row in checkpoints.known_checkpoints():
        option = "ddpm" if row.kind == "DDPMPipeline" else "pipe"
        yield option, row.name, getattr(checkpoints, row.loader)


def _free_memory(device: Any) -> str:
    import psutil
    import torch

    found = f"{psutil.virtual_memory().available / 1e9:.1f} GB"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        found += f"; {torch.cuda.get_device_name(device)}: {free / 1e9:.1f} of {total / 1e9:.1f} GB"
    return found


def _one_step(ddpm: Any) -> str:
    import torch

    from ..protections.registry import protect
    from ..runtime.unet import sample_size

    side = sample_size(ddpm)
    x = torch.full((3, side, side), 0.5)
    change = (protect("antipure", x, ddpm=ddpm, eta=8 / 255, steps=1) - x).abs().max() * 255
    if not 0 < change < 9:
        raise ValueError(f"the photo changed by {change:g}/255 instead of about 1/255")
    return "works"
