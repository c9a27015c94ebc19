"""What full-size models take of a GPU, by running them; writes data/results/memory_gpu.md.

    python -m tools.speed.memory_gpu    # two minutes on a large GPU, 70 GB of it

The library's own steps on models of full size with random weights, beside what `memory_plan` and
data/results/memory.md say before anything runs.
"""

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDPMPipeline,
    DDPMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from antipure_lib import antipure_steps, dreambooth_steps, gridpure_steps, load_stable_diffusion, lora_steps
from antipure_lib.core.tiles import tile_count
from antipure_lib.customization.full_size import FULL_SIZE
from antipure_lib.photos.pictures import atomic
from antipure_lib.runtime.memory import memory_plan, tile_bytes
from tools.speed.memory import CLIP, GUIDED_DIFFUSION, STABLE_DIFFUSION, VAE, gb, size, table

ROOT = Path(__file__).resolve().parents[2]
CUDA = torch.device("cuda")
SIDE = 512
TILES = tile_count(SIDE, SIDE, 256)
CAP = 6e9  # bytes, with which AntiPure on a 512 px photo should do
STEPS = {
    "AntiPure": (antipure_steps, {"steps": 3}),
    "GrIDPure": (gridpure_steps, {"iterations": 3}),
}


def purifier(dtype: torch.dtype) -> DDPMPipeline:
    """guided-diffusion's 256 px shape."""
    with CUDA:
        unet = UNet2DModel(**GUIDED_DIFFUSION).eval().requires_grad_(False)
    torch.nn.Module.to(unet, dtype)
    return DDPMPipeline(unet, DDPMScheduler(variance_type="learned_range"))


def measured(states: Iterator, steps: int = 1) -> tuple[float, float, float]:
    """(seconds a step, bytes of tensors, bytes held in reserve) after a first step that isn't timed."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    next(states)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for state in islice(states, steps):
        del state
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / steps
    return seconds, torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def purifier_rows() -> Iterator[list[str]]:
    """One 512 px photo, in each precision: tile by tile, and as many as fit."""
    x = torch.rand((1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    for dtype in (torch.bfloat16, torch.float32):
        ddpm = purifier(dtype)
        for kind, gradients in zip(STEPS, (True, False), strict=True):
            images = 2 * TILES if gradients else TILES
            plan = memory_plan(ddpm, images, gradients)
            for batch in (1, plan.batch):
                kept = gradients and batch == images
                planned = size(ddpm.unet) + plan.rest + batch * tile_bytes(ddpm, gradients, kept=kept)
                steps_of, options = STEPS[kind]
                seconds, tensors, reserved = measured(steps_of(ddpm, x, batch=batch, **options))
                held = "all at once" if batch == images else f"{batch} at a time"
                name = str(dtype).removeprefix("torch.")
                yield [kind, name, held, gb(planned), gb(tensors), gb(reserved), f"{seconds:.2f}"]


def capped() -> Iterator[list[str]]:
    """AntiPure in bfloat16 with all tiles asked for at once and 6 GB to be had: how it ends."""
    ddpm, total = purifier(torch.bfloat16), torch.cuda.get_device_properties(0).total_memory
    x = torch.rand((1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))

    def run(batch: int) -> tuple[torch.Tensor, int, int]:
        sizes = []
        watch = ddpm.unet.register_forward_hook(lambda unet, call, out: sizes.append(len(call[0])))
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(CAP / total)
        try:
            *_, last = antipure_steps(ddpm, x, steps=3, batch=batch)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            watch.remove()
        return last.x_adv, max(sizes[-2:]), torch.cuda.max_memory_reserved()

    ended, batch, reserved = run(2 * TILES)
    same = (ended == run(batch)[0]).double().mean()
    yield [f"{2 * TILES}", f"{batch}", gb(reserved), f"{same:.2%}"]


def customization_rows() -> Iterator[list[str]]:
    """Stable Diffusion 1.5's shape on four 512 px photos, with the library's settings for it."""
    nano = load_stable_diffusion(device="cpu")
    nano.tokenizer.model_max_length = 77
    with CUDA:
        parts = dict(
            vae=AutoencoderKL(**VAE),
            unet=UNet2DConditionModel(**STABLE_DIFFUSION),
            text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP)),
        )
    for part in parts.values():
        part.eval().to(torch.float16)
    pipe = StableDiffusionPipeline(**(nano.components | parts), requires_safety_checker=False)
    x = torch.rand((4, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    for kind, steps_of, more in (
        ("lora", lora_steps, {}),
        ("dreambooth", dreambooth_steps, {"prior_images": x}),
    ):
        for recompute in (False, True):
            options = FULL_SIZE[kind] | more | {"steps": 4, "gradient_checkpointing": recompute}
            states = steps_of(pipe, x, dtype=torch.float16, **options)
            seconds, tensors, reserved = measured(states, steps=3)
            how = f"{kind}, AdamW" + (", blocks recomputed" if recompute else "")
            yield [how, gb(tensors), gb(reserved), f"{seconds:.2f}"]
            del states


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here; tools/speed/memory.py counts without one")
    found = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    parts = {"purifiers": purifier_rows, "capped": capped, "pipelines": customization_rows}
    for part, rows_of in parts.items():
        for row in rows_of():
            found.setdefault(part, []).append(row)
            print(*row, flush=True)
            write(found)  # a run that is stopped leaves what it measured
    free, total = torch.cuda.mem_get_info()
    write(found | {"context": gb(total - free - torch.cuda.memory_reserved())})


def write(found: dict) -> None:
    """The figures as JSON and as a page, each whole or not at all."""
    texts = {"json": json.dumps(found, indent=1) + "\n", "md": markdown(found)}
    for kind, text in texts.items():
        with atomic(ROOT / f"data/results/memory_gpu.{kind}") as temporary:
            temporary.write_text(text)


def markdown(found: dict) -> str:
    """The page; a part that was not measured says so."""

    def rows(part: str, *head: str) -> str:
        return table(list(head), found[part]) if part in found else "Not measured yet."

    beside = f"The process's context takes {found['context']} GB beside it." if "context" in found else ""
    return TEXT.format(
        gpu=found["gpu"],
        torch=found["torch"],
        purifiers=rows(
            "purifiers", "", "precision", "in the UNet", "planned", "tensors", "reserved", "s a step"
        ),
        capped=rows("capped", "asked for", "ended with", "reserved", "as if asked for that"),
        pipelines=rows("pipelines", "512 px, float16 autocast", "tensors", "reserved", "s a step"),
        context=beside,
    )


TEXT = """# Memory and time at full size on a GPU

Made by `python -m tools.speed.memory_gpu` on one {gpu} with torch {torch}; GB are 10⁹ bytes.
Random weights: memory and time don't depend on them. *Planned*: what `memory_plan` says before. *Tensors*:
the most that were alive, convolutions' workspaces included. *Reserved*: the most that torch took from the
GPU, with gaps between blocks; it gives them back before it runs out. {context}

## The purifier: guided-diffusion's 256 px shape, one 512 px photo

AntiPure: ten tiles at two timesteps a step, balance "equal". GrIDPure: ten tiles, t = 10, an iteration.
float32's convolutions run in TF32, torch's default.

{purifiers}

## When memory runs out

AntiPure in bfloat16, three steps, with 6 GB of the GPU to be had: images asked for in one UNet call, those
that were left when memory sufficed, and the share of values that a run has in common which asks for so many.

{capped}

## Customization: Stable Diffusion 1.5's shape, `FULL_SIZE`

The caller's pipeline, in float16, is in it. Compare the last column of memory.md.

{pipelines}
"""

if __name__ == "__main__":
    main()
