"""What full-size models take of a GPU, by running them; writes data/results/memory_gpu.md.

    python -m tools.speed.memory_gpu    # two minutes on a large GPU, 70 GB of it

The library's own steps on models of full size with random weights, next to what `memory_plan` says before
anything runs.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import antipure_lib as ap
from antipure_lib.core.tiles import tile_count
from antipure_lib.customization.full_size import FULL_SIZE
from antipure_lib.photos.pictures import atomic
from antipure_lib.runtime.memory import tile_bytes
from antipure_lib.runtime.micro_batch import in_parts
from tools.speed.models import guided_diffusion

OUT = Path(__file__).resolve().parents[2] / "data/results/memory_gpu.md"
CUDA = torch.device("cuda")
SIDE = 512
TILES = tile_count(SIDE, SIDE, 256)
CAP = 6e9  # bytes, with which AntiPure on a 512 px photo should do
VAE = dict(
    block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2,
    latent_channels=4,
    sample_size=512,
)
UNET = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
CLIP = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)


def photos(n: int) -> torch.Tensor:
    """n photos of noise."""
    return torch.rand((n, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))


def measured(states: Iterator, steps: int) -> tuple[float, float, float]:
    """(bytes of tensors, bytes held in reserve, seconds a step) after a first step that isn't timed."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    next(states)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for state in islice(states, steps):
        del state
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / steps
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved(), seconds


def row(words: Sequence[str], *sizes: float, seconds: float | None = None) -> str:
    """A row of a table: words, sizes in GB, seconds."""
    cells = [*words, *(f"{size / 1e9:.2f}" for size in sizes)]
    return " | ".join(["", *cells, *([] if seconds is None else [f"{seconds:.2f}"]), ""]).strip()


def purifier_rows() -> Iterator[str]:
    """One 512 px photo, in each precision: tile by tile, and as many as fit."""
    kinds = {
        "AntiPure": (lambda *args, batch: ap.antipure_steps(*args, batch=batch, steps=3), 2 * TILES, True),
        "GrIDPure": (lambda *args, batch: ap.gridpure_steps(*args, batch=batch, iterations=3), TILES, False),
    }
    for dtype in (torch.bfloat16, torch.float32):
        ddpm = guided_diffusion(CUDA, dtype)
        for kind, (steps_of, images, gradients) in kinds.items():
            for batch in (1, "auto"):
                plan = ap.memory_plan(ddpm, images, gradients)
                held = plan.batch if batch == "auto" else batch
                tile = tile_bytes(ddpm, gradients, kept=gradients and held == images)
                tensors, reserved, seconds = measured(steps_of(ddpm, photos(1), batch=batch), 1)
                words = "all at once" if held == images else f"{held} at a time"
                name, planned = str(dtype).removeprefix("torch."), plan.model + plan.rest + held * tile
                yield row((kind, name, words), planned, tensors, reserved, seconds=seconds)


def capped_row() -> str:
    """AntiPure in bfloat16 with all tiles asked for at once and 6 GB to be had: how it ends."""
    ddpm, total = guided_diffusion(CUDA, torch.bfloat16), torch.cuda.get_device_properties(0).total_memory

    def run(images: int) -> tuple[torch.Tensor, int, int]:
        model = in_parts(ddpm, images, 2 * TILES, gradients=True)  # as `antipure_steps` does
        loss = ap.antipure_loss(model, (SIDE, SIDE), one_call=False)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.set_per_process_memory_fraction(CAP / total)
        try:
            *_, last = ap.pgd(loss, photos(1).to(CUDA), steps=3, balance="equal", repeat=model.unet.repeat)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return last.x_adv, model.unet.size, torch.cuda.max_memory_reserved()

    ended, size, reserved = run(2 * TILES)
    same = (ended == run(size)[0]).double().mean()
    return row((f"{2 * TILES}", f"{size}", f"{same:.2%}"), reserved)


def customization_rows() -> Iterator[str]:
    """Stable Diffusion 1.5's shape on four 512 px photos, with the library's settings for it."""
    nano = ap.load_stable_diffusion(device="cpu")
    nano.tokenizer.model_max_length = 77
    with CUDA:
        vae, unet = AutoencoderKL(**VAE), UNet2DConditionModel(**UNET)
        parts = {"vae": vae, "unet": unet, "text_encoder": CLIPTextModel(CLIPTextConfig(**CLIP))}
    for part in parts.values():
        part.eval().to(torch.float16)
    pipe, x = StableDiffusionPipeline(**(nano.components | parts), requires_safety_checker=False), photos(4)
    for kind, steps_of in (("lora", ap.lora_steps), ("dreambooth", ap.dreambooth_steps)):
        for recompute in (False, True):
            options = FULL_SIZE[kind] | {"steps": 4, "gradient_checkpointing": recompute}
            options |= {"prior_images": x} if kind == "dreambooth" else {}
            tensors, reserved, seconds = measured(steps_of(pipe, x, dtype=torch.float16, **options), 3)
            how = f"{kind}, AdamW" + (", blocks recomputed" if recompute else "")
            yield row((how,), tensors, reserved, seconds=seconds)


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here")
    parts = {
        "purifiers": "\n".join(purifier_rows()),
        "capped": capped_row(),
        "pipelines": "\n".join(customization_rows()),
    }
    free, total = torch.cuda.mem_get_info()
    context = f"{(total - free - torch.cuda.memory_reserved()) / 1e9:.2f}"
    names = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "context": context}
    page = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    with atomic(OUT) as temporary:
        temporary.write_text(page.format(**names, **parts), encoding="utf-8")


if __name__ == "__main__":
    main()
