"""What full-size models need of a GPU's memory; writes data/results/memory.md.

    python -m tools.speed.memory    # minutes on one core, 4 GB

Counted: the tensors alive at one time, by running the library's own code on fake tensors (see
`antipure_lib.memory`), at full size and with every operation, but without computing. Run: the same call
really made on this CPU, each in a process of its own, with random weights. The purifier has the shape of
guided-diffusion's 256 px unconditional model, the latent model that of Stable Diffusion 1.5.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel, UNet2DModel
from transformers import CLIPTextConfig, CLIPTextModel

from antipure_lib.core.antipure import antipure_loss
from antipure_lib.core.tiles import tile_count
from antipure_lib.customization.full_size import FULL_SIZE
from antipure_lib.customization.lora import add_lora
from antipure_lib.photos.pictures import atomic
from antipure_lib.purifiers.diffpure import purify_tiles
from antipure_lib.runtime.memory import fake, memory_plan, peak_bytes, tile_bytes
from antipure_lib.runtime.micro_batch import MicroBatch

ROOT = Path(__file__).resolve().parents[2]
GUIDED_DIFFUSION = dict(
    sample_size=256,
    out_channels=6,
    block_out_channels=(256, 256, 512, 512, 1024, 1024),
    layers_per_block=2,
    down_block_types=("ResnetDownsampleBlock2D",) * 3 + ("AttnDownBlock2D",) * 3,
    up_block_types=("AttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",) * 3,
    attention_head_dim=64,
    resnet_time_scale_shift="scale_shift",
    downsample_type="resnet",
    upsample_type="resnet",
    norm_eps=1e-5,
)
STABLE_DIFFUSION = dict(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
VAE = dict(
    block_out_channels=(128, 256, 512, 512),
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    layers_per_block=2,
    latent_channels=4,
    sample_size=512,
)
CLIP = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
CASES = {  # gradients, recompute
    "forward": (False, False),
    "forward and backward": (True, False),
    "the same, blocks recomputed": (True, True),
}
NAMES = {torch.bfloat16: "16 bits", torch.float32: "32 bits"}


def empty(kind: type, config: dict, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A model whose weights are never written, so that the system gives them no memory."""
    with torch.device("meta"):
        model = kind(**config)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model.to_empty(device="cpu").eval().requires_grad_(False)


def size(*modules: torch.nn.Module) -> int:
    return sum(p.numel() * p.element_size() for module in modules for p in module.parameters())


def purifier(dtype: torch.dtype) -> SimpleNamespace:
    unet = empty(UNet2DModel, GUIDED_DIFFUSION, dtype)
    return SimpleNamespace(unet=unet, scheduler=DDPMScheduler(variance_type="learned_range"))


def run_one(case: str) -> None:
    """Really run one tile with 16-bit weights; prints the bytes of tensors and of the process's memory."""
    gradients, recompute = CASES[case]
    ddpm = purifier(torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    for parameter in ddpm.unet.parameters():
        parameter.data.normal_(std=0.02, generator=generator)

    def tile():
        x = torch.zeros((1, 3, 256, 256), dtype=torch.bfloat16, requires_grad=gradients)
        with torch.set_grad_enabled(gradients), MicroBatch(1, recompute).recomputing(ddpm.unet):
            out = ddpm.unet(x, torch.zeros(1, dtype=torch.long)).sample
        if gradients:
            torch.autograd.grad(out.sum(), x)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
    tensors = peak_bytes(tile)
    print(tensors, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def step_bytes(ddpm: SimpleNamespace, batch: MicroBatch, balance: str = "equal", side: int = 512) -> int:
    """One step of AntiPure with all three terms: all its tensors.

    balance: "equal", the default of `antipure_steps`: a call for each timestep and a backward pass for each
    term. "sum": one call, one backward pass.
    """
    with fake(ddpm.unet) as unet:
        model, one_call = SimpleNamespace(unet=unet, scheduler=ddpm.scheduler), balance == "sum"
        loss = antipure_loss(model, (side, side), batch=batch, one_call=one_call)

        def run():
            x = torch.zeros((1, 3, side, side), requires_grad=True)
            terms = list(loss(x, torch.Generator().manual_seed(0)).values())
            if one_call:
                terms = [sum(terms)]
            for term in terms:
                torch.autograd.grad(term.sum(), x, retain_graph=term is not terms[-1])

        return peak_bytes(run)


def purified_bytes(ddpm: SimpleNamespace, batch: int, side: int = 512) -> int:
    """One step of DiffPure, of which an iteration of GrIDPure has ten: all its tensors."""
    with fake(ddpm.unet) as unet, torch.no_grad():
        model = SimpleNamespace(unet=unet, scheduler=ddpm.scheduler)
        generators = [torch.Generator().manual_seed(0)]
        return peak_bytes(lambda: purify_tiles(model, torch.zeros((1, 3, side, side)), 1, generators, batch))


def training_bytes(unet: torch.nn.Module, images: int) -> int:
    """Forward and backward of one training step in float16 autocast, the gradients included."""
    with fake(unet) as copied:
        learned = [p for p in copied.parameters() if p.requires_grad]

        def run():
            z_t, c = torch.zeros((images, 4, 64, 64)), torch.zeros((images, 77, 768))
            with torch.autocast("cpu", torch.float16):
                prediction = copied(z_t, torch.zeros(images, dtype=torch.long), c).sample
            torch.autograd.grad(prediction.float().square().mean(), learned)

        return peak_bytes(run)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def gb(number: float) -> str:
    return f"{number / 1e9:.2f}"


def tiles_table() -> str:
    rows = []
    for dtype, name in NAMES.items():
        ddpm = purifier(dtype)
        for case, (gradients, recompute) in CASES.items():
            row = [name, case, gb(tile_bytes(ddpm, gradients, recompute))]
            if dtype is torch.bfloat16:
                command = [sys.executable, "-m", "tools.speed.memory", "--run", case]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                row += [gb(int(number)) for number in done.stdout.split()[-2:]]
            else:
                row += ["", ""]
            rows.append(row)
            print(*row, flush=True)
    return table(["precision", "one 256 px tile", "counted", "run: tensors", "run: process"], rows)


def steps_table() -> str:
    rows, tiles = [], tile_count(512, 512, 256)
    for dtype, name in NAMES.items():
        ddpm = purifier(dtype)
        weights = size(ddpm.unet)
        rest = memory_plan(ddpm, 2 * tiles, free=2**62).rest
        for balance, recompute in (("equal", False), ("equal", True), ("sum", False)):
            counted = step_bytes(ddpm, MicroBatch(1, recompute, whole=2 * tiles), balance)
            tile = tile_bytes(ddpm, True, recompute)
            how = f'AntiPure, "{balance}"' + (", blocks recomputed" if recompute else "")
            rows.append(
                [name, how, gb(weights), gb(counted), gb(weights + counted), gb(weights + rest + tile)]
            )
            print(*rows[-1], flush=True)
        counted, plan = purified_bytes(ddpm, 1), memory_plan(ddpm, tiles, False, free=2**62)
        total = weights + plan.rest + plan.tile
        rows.append([name, "GrIDPure", gb(weights), gb(counted), gb(weights + counted), gb(total)])
        print(*rows[-1], flush=True)
    return table(
        ["precision", "512 px, one tile at a time", "weights", "tensors", "together", "planned"], rows
    )


def customization_table() -> str:
    vae, text = empty(AutoencoderKL, VAE), empty(CLIPTextModel, {"config": CLIPTextConfig(**CLIP)})
    others = size(vae, text)  # kept in float32
    pipeline = size(empty(UNet2DConditionModel, STABLE_DIFFUSION)) + others
    with fake(vae) as copied, torch.no_grad():
        encoding = peak_bytes(lambda: copied.encode(torch.zeros(1, 3, 512, 512)))
    rows = []
    for kind in ("lora", "dreambooth"):
        for recompute in (False, True):
            unet = empty(UNet2DConditionModel, STABLE_DIFFUSION)
            if kind == "lora":
                add_lora(unet, FULL_SIZE[kind]["rank"], FULL_SIZE[kind]["layers"], dtype=torch.float16)
            else:
                unet.requires_grad_(True)
            if recompute:
                unet.enable_gradient_checkpointing()
            learned = sum(p.numel() for p in unet.parameters() if p.requires_grad)
            step = training_bytes(unet, 1 if kind == "lora" else 2)  # a photo, and with it a prior image
            for states, adam in ((8, "AdamW"),) if kind == "lora" else ((8, "AdamW"), (2, "8-bit AdamW")):
                weights, optimizer = size(unet) + others, states * learned
                total = weights + optimizer + max(step, encoding)
                how = f"{kind}, {adam}" + (", blocks recomputed" if recompute else "")
                numbers = (learned / 1e6, weights / 1e9, optimizer / 1e9, step / 1e9, total / 1e9)
                rows.append([how, *(f"{number:.2f}" for number in (*numbers, (total + pipeline / 2) / 1e9))])
                print(*rows[-1], flush=True)
    head = [
        "512 px, `FULL_SIZE`",
        "learned (M)",
        "weights",
        "optimiser",
        "step",
        "together",
        "with the caller's",
    ]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", choices=CASES, help="only run one tile for real, and print two numbers")
    case = parser.parse_args().run
    if case:
        return run_one(case)
    text = TEXT.format(tiles=tiles_table(), steps=steps_table(), customization=customization_table())
    with atomic(ROOT / "data/results/memory.md") as temporary:
        temporary.write_text(text)


TEXT = """# Memory at full size

Made by `python -m tools.speed.memory`; figures in GB (10⁹ bytes) unless they say otherwise.

*Counted*: tensors alive at one time, by the library's own code on fake tensors. *Run*: one tile really
computed on a CPU with random weights; the process's growth also holds what the kernels take for themselves,
and differs by up to 0.2 GB between runs.
Not in any figure: a GPU's context (0.3 to 0.5 GB), its convolutions' workspaces, gaps between blocks.

## The purifier: guided-diffusion's 256 px unconditional shape, 552.8 M weights

{tiles}

AntiPure on one 512 px photo sends ten tiles at two timesteps through the UNet. Whole steps, all three terms:
balance "equal", the default, has a call for each timestep and a backward pass for each term, "sum" one of
each; *planned* is what `memory_plan` says before:

{steps}

## Customization: Stable Diffusion 1.5's shape, float16 autocast

DreamBooth's step holds a photo and a prior image; the float32 gradients are in it. Together: weights (with
VAE and text encoder in float32), optimiser, and the larger of a step and of encoding a photo. The last column
adds the caller's own pipeline in float16, which stays where it is.

{customization}
"""

if __name__ == "__main__":
    main()
