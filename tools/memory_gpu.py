"""What full-size models take of a GPU, by running them; writes data/results/memory_gpu.md.

    python tools/memory_gpu.py    # two minutes on a large GPU, 70 GB of it

The library's own steps on models of full size with random weights, beside what `memory_plan` and
data/results/memory.md say before anything runs.
"""

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
from memory import CLIP, GUIDED_DIFFUSION, STABLE_DIFFUSION, VAE, gb, size, table
from transformers import CLIPTextConfig, CLIPTextModel

from antipure_lib import antipure_steps, dreambooth_steps, gridpure_steps, load_stable_diffusion, lora_steps
from antipure_lib.customize import FULL_SIZE
from antipure_lib.images import atomic
from antipure_lib.memory import memory_plan, micro_batch, tile_bytes
from antipure_lib.micro_batch import MicroBatch
from antipure_lib.tiles import tile_count

ROOT = Path(__file__).resolve().parents[1]
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
            rest = memory_plan(ddpm, images, gradients).rest
            for asked in (1, "auto"):
                batch = micro_batch(asked, ddpm, images, gradients)
                kept = gradients and batch.size == images
                planned = size(ddpm.unet) + rest + batch.size * tile_bytes(ddpm, gradients, kept=kept)
                steps_of, options = STEPS[kind]
                seconds, tensors, reserved = measured(steps_of(ddpm, x, batch=batch, **options))
                held = "all at once" if batch.size == images else f"{batch.size} at a time"
                name = str(dtype).removeprefix("torch.")
                yield [kind, name, held, gb(planned), gb(tensors), gb(reserved), f"{seconds:.2f}"]


def capped() -> str:
    """AntiPure in bfloat16 with all tiles asked for at once and 6 GB to be had: how it ends."""
    ddpm, total = purifier(torch.bfloat16), torch.cuda.get_device_properties(0).total_memory
    x = torch.rand((1, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))

    def run(images: int) -> tuple[torch.Tensor, MicroBatch, int]:
        batch = MicroBatch(images, can_recompute=True, whole=2 * TILES)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(CAP / total)
        try:
            *_, last = antipure_steps(ddpm, x, steps=3, batch=batch)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return last.x_adv, batch, torch.cuda.max_memory_reserved()

    ended, batch, reserved = run(2 * TILES)
    same = (ended == run(batch.size)[0]).double().mean()
    return (
        f"With {CAP / 1e9:.0f} GB to be had and {2 * TILES} images asked for in one call, memory ran out "
        f"until {batch.size} at a time were left; three steps then ended in {gb(reserved)} GB, and "
        f"{same:.2%} of the values are those of a run that asked for {batch.size} from the beginning."
    )


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


def printed(rows: Iterator[list[str]]) -> list[list[str]]:
    kept = []
    for row in rows:
        kept.append(row)
        print(*row, flush=True)
    return kept


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here; tools/memory.py counts without one")
    purifiers = table(
        ["", "precision", "in the UNet", "planned", "tensors", "reserved", "s a step"],
        printed(purifier_rows()),
    )
    end = capped()
    print(end, flush=True)
    pipelines = table(
        ["512 px, float16 autocast", "tensors", "reserved", "s a step"], printed(customization_rows())
    )
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    text = TEXT.format(
        gpu=torch.cuda.get_device_name(),
        torch=torch.__version__,
        purifiers=purifiers,
        capped=end,
        pipelines=pipelines,
        context=gb(context),
    )
    with atomic(ROOT / "data/results/memory_gpu.md") as temporary:
        temporary.write_text(text)


TEXT = """# Memory and time at full size on a GPU

Made by `python tools/memory_gpu.py` on one {gpu} with torch {torch}; GB are 10⁹ bytes. Random weights: memory
and time don't depend on them. *Planned*: what `memory_plan` says before. *Tensors*: the most that were alive.
*Reserved*: the most that torch took from the GPU, with workspaces and gaps. The process's context takes
{context} GB beside it.

## The purifier: guided-diffusion's 256 px shape, one 512 px photo

AntiPure: ten tiles at two timesteps a step, balance "equal". GrIDPure: ten tiles, t = 10, an iteration.

{purifiers}

{capped}

## Customization: Stable Diffusion 1.5's shape, `FULL_SIZE`

The caller's pipeline, in float16, is in it. Compare the last column of memory.md.

{pipelines}
"""

if __name__ == "__main__":
    main()
