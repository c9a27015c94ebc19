"""One training loop for all nano models: seeded, resumable, averaged weights, a GPU where there is one.

A run lives in its own folder: `state.pt` (model, averaged model, optimiser, step; replaced atomically) and
`loss.csv` (step, loss, seconds). The CPU draws batch `k` by the generator of (seed, k). So a resumed run sees
the batches of an unbroken one, whatever the device.

The learning rate is constant between its warm-up and its last `decay_last` steps. Until those begin, a run
can be prolonged or shortened by another `steps`: what it has done stays as it is.
"""

import math
import os
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from antipure_lib.runtime.devices import pick_dtype
from tools import command_line

START = "run, or pipeline such as data/models/ddpm, to start from"


def training_parser(doc: str, folders: Sequence[str], **defaults: float) -> ArgumentParser:
    """The command line of a training: its folders, --start, and numbers with their defaults as options."""
    parser = command_line(doc)
    for name in folders:
        parser.add_argument(name, type=Path)
    parser.add_argument("--start", type=Path, help=START)
    for name, value in defaults.items():
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=type(value), default=value, help="default: %(default)s")
    return parser


def load_faces(folder: Path) -> tuple[torch.Tensor, list[str], np.ndarray]:
    """The rendered training set: N×3×128×128 uint8, captions, identity numbers."""
    shards = [np.load(path) for path in sorted(folder.glob("[0-9]*.npz"))]
    if not shards:
        raise FileNotFoundError(
            f"{folder}: no training images; run `python -m tools.faces.render train {folder}` first"
        )
    images = torch.from_numpy(np.concatenate([s["images"] for s in shards])).permute(0, 3, 1, 2).contiguous()
    captions = [str(text) for s in shards for text in s["captions"]]
    return images, captions, np.concatenate([s["identity"] for s in shards])


def starting_weights(source: Path, name: str) -> dict[str, torch.Tensor]:
    """Averaged weights of a run, or the fp32 copy of a part of a saved pipeline (such as data/models/sd)."""
    if (source / "state.pt").exists():
        return torch.load(source / "state.pt", map_location="cpu", weights_only=True)["averaged"][name]
    files = sorted((source / name).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{source}: neither a run (state.pt) nor a pipeline with a part '{name}'")
    return {key: value.float() for key, value in load_file(files[0]).items()}


def average(ema: torch.nn.Module, model: torch.nn.Module, step: int, decay: float) -> None:
    """Move the averaged weights towards the model's; the average forgets faster at the beginning."""
    decay = min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for target, source in zip(ema.parameters(), model.parameters(), strict=True):
            target.lerp_(source, 1 - decay)


def learning_rate(step: int, steps: int, warmup: int, decay_last: int) -> float:
    """Factor in [0, 1] of step 0 … steps − 1: a linear rise, then 1, then half a cosine to zero."""
    decayed = max(0, step - (steps - decay_last)) / decay_last
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * decayed))


def fit(
    run: Path,
    models: dict[str, torch.nn.Module],
    averaged: dict[str, torch.nn.Module],
    loss: Callable[[int, torch.Generator], torch.Tensor],
    steps: int,
    lr: float,
    seed: int = 0,
    decay: float = 0.999,
    warmup: int = 100,
    decay_last: int | None = None,
    checkpoint_every: int = 100,
    checkpoint_seconds: float = 300,
) -> None:
    """Train `models` to lower `loss(step, generator)` for `steps` steps; continue `run` where it stopped.

    They and `averaged` are on the device that computes; the generator is on the CPU. decay_last: number of
    steps over which the learning rate falls to zero; None for all. A checkpoint is written every
    `checkpoint_every` steps, with a line of loss.csv, and whenever `checkpoint_seconds` have passed.
    """
    run.mkdir(parents=True, exist_ok=True)
    parameters = [p for model in models.values() for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    bf16 = pick_dtype(device) is torch.bfloat16  # where it is emulated, it is slower than float32
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=1e-3)
    state_file, first, spent, recent = run / "state.pt", 0, 0.0, []
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        for name, model in models.items():
            model.load_state_dict(state["models"][name])
            averaged[name].load_state_dict(state["averaged"][name])
        optimiser.load_state_dict(state["optimiser"])
        first, spent, recent = state["step"], state["seconds"], state["recent"]
    began, saved = time.time() - spent, time.time()
    for step in range(first, steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        for group in optimiser.param_groups:
            group["lr"] = lr * learning_rate(step, steps, warmup, decay_last or steps)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            value = loss(step, generator)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        for name, model in models.items():
            average(averaged[name], model, step, decay)
        # Not yet a number: the host would wait for the GPU. A copy: a mean keeps the storage of its terms.
        recent.append(value.detach().clone())
        whole = (step + 1) % checkpoint_every == 0 or step + 1 == steps
        if whole:
            _log(run, step + 1, steps, recent, time.time() - began)
            recent = []
        if whole or time.time() - saved > checkpoint_seconds:
            state = dict(step=step + 1, seconds=time.time() - began, recent=recent)
            state |= dict(models={name: model.state_dict() for name, model in models.items()})
            state |= dict(averaged={name: model.state_dict() for name, model in averaged.items()})
            torch.save(state | dict(optimiser=optimiser.state_dict()), run / "state.tmp")
            os.replace(run / "state.tmp", state_file)
            saved = time.time()


def _log(run: Path, step: int, steps: int, recent: list[torch.Tensor], seconds: float) -> None:
    mean, left = torch.stack(recent).double().mean().item(), seconds / step * (steps - step)
    print(f"step {step}/{steps} loss {mean:.4f} {seconds:.0f} s, {left:.0f} s left", flush=True)
    with (run / "loss.csv").open("a") as log:
        log.write(f"{step},{mean:.6f},{seconds:.1f}\n")
