"""One training loop for all nano models: seeded, resumable, averaged weights, bf16, a GPU where there is one.

A run lives in its own folder: `state.pt` (model, averaged model, optimiser, step; replaced atomically) and
`loss.csv` (step, loss, seconds). Batch `k` is drawn on the CPU by the generator of (seed, k): a resumed run
sees the batches of an unbroken one, whatever the device.
"""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file


def load_faces(folder: Path) -> tuple[torch.Tensor, list[str], np.ndarray]:
    """The rendered training set: N×3×64×64 uint8, captions, identity numbers."""
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
    checkpoint_every: int = 100,
    bf16: bool = True,
) -> None:
    """Train `models` to lower `loss(step, generator)` for `steps` steps; continue `run` where it stopped.

    They and `averaged` are on the device that computes; the generator is on the CPU. The learning rate warms
    up linearly and then falls to zero along a cosine.
    """
    run.mkdir(parents=True, exist_ok=True)
    parameters = [p for model in models.values() for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    optimiser = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=1e-3)
    state_file, first, spent = run / "state.pt", 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        for name, model in models.items():
            model.load_state_dict(state["models"][name])
            averaged[name].load_state_dict(state["averaged"][name])
        optimiser.load_state_dict(state["optimiser"])
        first, spent = state["step"], state["seconds"]
    began, recent = time.time() - spent, []
    for step in range(first, steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        scale = min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = lr * scale
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            value = loss(step, generator)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        for name, model in models.items():
            average(averaged[name], model, step, decay)
        recent.append(value.detach())  # not yet a number: the host would wait for the GPU
        if (step + 1) % checkpoint_every == 0 or step + 1 == steps:
            mean, seconds = torch.stack(recent).double().mean().item(), time.time() - began
            left = seconds / (step + 1) * (steps - step - 1)
            print(
                f"step {step + 1}/{steps} loss {mean:.4f} {seconds:.0f} s, {left:.0f} s left",
                flush=True,
            )
            with (run / "loss.csv").open("a") as log:
                log.write(f"{step + 1},{mean:.6f},{seconds:.1f}\n")
            recent = []
            temporary = run / "state.tmp"
            torch.save(
                dict(
                    models={name: model.state_dict() for name, model in models.items()},
                    averaged={name: model.state_dict() for name, model in averaged.items()},
                    optimiser=optimiser.state_dict(),
                    step=step + 1,
                    seconds=seconds,
                ),
                temporary,
            )
            os.replace(temporary, state_file)
