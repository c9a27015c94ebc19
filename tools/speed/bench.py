"""Measure speed: against the work that cannot be avoided, and against loops as they are published.

    python -m tools.speed.bench                      # everything, into data/results/speed.md and speed.json
    python -m tools.speed.bench --only large start   # these groups alone anew; what is there of others stays
    python -m tools.speed.bench --on cuda            # the GPU alone; what is there of the CPU stays
    python -m tools.speed.bench --quick              # few repetitions, no 256 px model; into build/

Two things that are compared run in one process by turns, A B A B …; what is reported is the median of the
ratios of neighbours, with the lowest and the highest: other load on the machine meets both alike. What
depends on what a process did before has processes of its own.
"""

import argparse
import copy
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from antipure_lib import (
    antipure_loss,
    antipure_steps,
    dreambooth_steps,
    frozen,
    gridpure_steps,
    load_faces,
    load_stable_diffusion,
    lora_steps,
    pgd,
    pick_dtype,
    randn,
    sample_size,
)
from antipure_lib.customization.latent_diffusion import latents, text_embeddings
from antipure_lib.runtime.unet import autocast
from tools.speed.bare import T_ERR, bare_forwards, bare_step, bare_training
from tools.speed.by_turns import (
    CPU,
    Row,
    Setting,
    adm,
    by_turns,
    in_float32,
    in_format,
    name_of,
    nano,
    peak_memory,
    summary,
    tiles,
    timed,
)
from tools.speed.peers import peers_gridpure, peers_step
from tools.speed.report import write_report

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

ROOT = Path(__file__).resolve().parents[2]
ENDLESS = 10**9


def unavoidable(s: Setting) -> Iterator[Row]:
    """Our loops over the UNet's passes that they can't do without."""
    n = tiles(s)
    for balance in ("sum", "equal"):
        states = antipure_steps(s.ddpm, s.x, steps=ENDLESS, balance=balance, t_err=T_ERR)
        what = f'AntiPure step, balance="{balance}"'
        yield s.row("bare", what, partial(next, states), bare_step(s.ddpm, n, balance), at_most=1.1)
    what = 'what balance="equal" costs: its step over the passes of a plain sum'
    yield s.row("bare", what, partial(next, states), bare_step(s.ddpm, n, "sum"))
    states = gridpure_steps(s.ddpm, s.x, t=s.t, iterations=ENDLESS)
    what = f"GrIDPure iteration, t={s.t}"
    on_cpu = s.ddpm.unet.device == CPU
    ordered = in_format(s.ddpm, torch.channels_last) if on_cpu else s.ddpm  # as ours has them
    bare = bare_forwards(ordered, n, s.t)
    yield s.row("bare", what, partial(next, states), bare, at_most=1.1)


def published(s: Setting) -> Iterator[Row]:
    """Loops as they are published, over ours; also over ours in their precision."""
    precise = Setting(s.model, in_float32(s.ddpm), s.x, s.t, s.rounds)
    for own in [s] if s.ddpm.unet.dtype is torch.float32 else [s, precise]:
        targets = (1.5, 2.0) if own is s else (None, None)
        states = antipure_steps(own.ddpm, s.x, steps=ENDLESS, balance="sum", t_err=T_ERR)
        peers = peers_step(precise.ddpm, s.x, t_err=T_ERR)
        yield own.row(
            "published", "AntiPure step, plain sum", peers, partial(next, states), at_least=targets[0]
        )
        one_tile = tiles(s) == len(s.x)  # a photo: there is nothing to cut yet
        for x in (s.x, twice_as_large(s.x[:1])) if one_tile else (s.x,):
            states = gridpure_steps(own.ddpm, x, t=s.t, iterations=ENDLESS)
            peers = peers_gridpure(precise.ddpm, x, t=s.t)
            what = f"GrIDPure iteration, photos: {len(x)}, tiles: {tiles(s._replace(x=x))}"
            yield own.row("published", what, peers, partial(next, states), at_least=targets[1])


def means(s: Setting) -> Iterator[Row]:
    """Each of the means by itself: without it, over with it."""
    n, device = tiles(s), s.ddpm.unet.device
    x = s.x.to(device)

    def step(ddpm=s.ddpm, balance="sum", **options):
        loss = antipure_loss(ddpm, x.shape[-2:], t_err=T_ERR, **options)
        return partial(next, pgd(loss, x, steps=ENDLESS, balance=balance, models=(ddpm.unet,)))

    def forwards(ddpm):
        return bare_forwards(ddpm, n, 1)

    def gradients(frozen_models):
        loss, generator = antipure_loss(s.ddpm, x.shape[-2:], t_err=T_ERR), torch.Generator().manual_seed(0)

        def call():
            with frozen(*frozen_models):
                terms = loss(x.clone().requires_grad_(), generator)
                sum(term.sum() for term in terms.values()).backward()
            s.ddpm.unet.zero_grad()

        return call

    yield s.row("means", "no gradients of parameters (sum)", gradients([]), gradients([s.ddpm.unet]))
    yield s.row("means", "t and t_err in one call (step, sum)", step(one_call=False), step())
    yield s.row(
        "means",
        "t and t_err in two (step, equal)",
        step(balance="equal"),
        step(balance="equal", one_call=False),
    )
    one_by_one = gridpure_steps(s.ddpm, s.x, t=s.t, iterations=ENDLESS, batch=1)
    together = gridpure_steps(s.ddpm, s.x, t=s.t, iterations=ENDLESS)
    yield s.row(
        "means", "all tiles in one call (GrIDPure)", partial(next, one_by_one), partial(next, together)
    )
    if s.ddpm.unet.dtype is not torch.float32:
        precise, dtypes = in_float32(s.ddpm), f"float32 → {name_of(s.ddpm.unet.dtype)}"
        yield s.row("means", "low precision (step, sum)", step(precise), step(), dtype=dtypes)
        yield s.row("means", "low precision (forward)", forwards(precise), forwards(s.ddpm), dtype=dtypes)
    yield from formats(s)
    ours = step()
    yield s.row("means", "no wait for the device in a step (sum)", partial(waiting, step()), ours)


def formats(s: Setting) -> Iterator[Row]:
    """Weights in channels-last order."""
    models = [in_format(s.ddpm, kind) for kind in (torch.contiguous_format, torch.channels_last)]
    steps = [partial(next, antipure_steps(d, s.x, steps=ENDLESS, balance="sum", t_err=T_ERR)) for d in models]
    yield s.row("means", "channels last (step, sum)", *steps)
    yield s.row("means", "channels last (forward)", *(bare_forwards(d, tiles(s), 1) for d in models))


def twice_as_large(x: torch.Tensor) -> torch.Tensor:
    """Photos of twice the height and width."""
    return torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")


def waiting(step: Callable) -> float:
    """A step, and its loss as a progress bar would show it."""
    return sum(value.sum().item() for value in step().losses.values())


def shares(s: Setting) -> Iterator[Row]:
    """What is left beside the UNet, over a step."""
    n, g, device = tiles(s), sample_size(s.ddpm), s.ddpm.unet.device
    x, generator = s.x.to(device), torch.Generator().manual_seed(0)
    low, high, signs = x - 0.05, x + 0.05, torch.ones_like(x)
    states = antipure_steps(s.ddpm, x, steps=ENDLESS, balance="sum", t_err=T_ERR)
    for what, part in {
        "drawing the noise": partial(randn, (n, 3, g, g), generator, device),
        "step and projection": lambda: (x + 0.01 * signs.sign()).clamp(low, high),
    }.items():
        yield s.row("shares", what, part, partial(next, states))


def compiled(s: Setting) -> Iterator[Row]:
    """torch.compile of the UNet, by its own one-liner; the first call of each kind counts as warm-up."""
    n, device = tiles(s), s.ddpm.unet.device
    fast = copy.copy(s.ddpm)
    fast.unet = copy.deepcopy(s.ddpm.unet)
    fast.unet.compile()
    states = [antipure_steps(d, s.x, steps=ENDLESS, balance="sum") for d in (s.ddpm, fast)]
    loops = {
        "AntiPure step, sum": [partial(next, state) for state in states],
        "forward": [bare_forwards(d, n, 1) for d in (s.ddpm, fast)],
    }
    for what, (slow, quick) in loops.items():
        warm_up = timed(quick, device)
        row = s.row("means", f"torch.compile ({what})", slow, quick)
        saved = row.seconds_a - row.seconds_b
        worth = f"{warm_up / saved:.0f} calls" if saved > 0 else "never"
        yield row._replace(note=f"warm-up {warm_up:.0f} s, worth it after: {worth}")


def customization(pipe: "StableDiffusionPipeline", x: torch.Tensor, rounds: int) -> Iterator[Row]:
    """Steps of DreamBooth and LoRA over their forward and backward passes."""
    device = pipe.unet.device
    dtype = pick_dtype(device)
    dtype = None if dtype is torch.float32 else dtype
    prior = x.flip(-1)  # any pictures of the right size
    kinds = {
        "DreamBooth": (dreambooth_steps, {"prior_images": prior}, ["a photo of sks person"] * 2),
        "LoRA": (lora_steps, {}, ["a photo of sks person"]),
    }
    for name, (steps_of, options, prompts) in kinds.items():
        states = steps_of(pipe, x, steps=ENDLESS, dtype=dtype, batch=len(x), **options)
        bare = bare_training(copy.deepcopy(next(states).pipe), prompts, len(x), dtype)
        figures = by_turns(partial(next, states), bare, rounds, device)
        autocasting = "float32" if dtype is None else f"{name_of(dtype)} autocast"
        yield Row("training", "nano", device.type, autocasting, f"{name} step", *figures)
    figures = by_turns(partial(encoding, pipe, x, dtype, states), partial(next, states), rounds, device)
    yield Row(
        "means", "nano", device.type, autocasting, "latents and words encoded once (LoRA step)", *figures
    )


@torch.no_grad()
def encoding(pipe, x, dtype, states) -> None:
    """A step that doesn't keep what the networks that aren't trained say of its photos and its prompt."""
    latents(pipe, x, len(x))
    with autocast(pipe, dtype):
        text_embeddings(pipe, ["a photo of sks person"])()
    with torch.enable_grad():
        next(states)


def growth(s: Setting, batch: int, photos: tuple[int, ...], scales: tuple[int, ...]) -> Iterator[Row]:
    """Time per tile with more photos and larger ones over that of the first photo; memory beside it.

    batch: tiles per UNet call, the same for all.
    """
    first = s.x[:1]
    many = {f"{k} photos": first.repeat(k, 1, 1, 1) for k in photos}
    larger = {
        f"{k * first.shape[-2]} px": torch.nn.functional.interpolate(first, scale_factor=k) for k in scales
    }

    def loop(kind, x):
        if kind == "AntiPure":
            states = antipure_steps(s.ddpm, x, steps=ENDLESS, balance="sum", batch=batch)
        else:
            states = gridpure_steps(s.ddpm, x, t=s.t, iterations=ENDLESS, batch=batch)
        return partial(next, states)

    for kind in ("AntiPure", "GrIDPure"):
        for name, x in (many | larger).items():
            per_tile = tiles(s._replace(x=x)) / tiles(s._replace(x=first))
            peaks = []
            for call in (loop(kind, first), loop(kind, x)):
                call()
                peaks.append(peak_memory(call, s.ddpm.unet.device))
            row = s.row("growth", f"{kind}, {name}, {batch} tiles a call", loop(kind, x), loop(kind, first))
            scaled = {key: getattr(row, key) / per_tile for key in ("ratio", "low", "high")}
            note = f"peak {peaks[1] / 1e6:.0f} MB, of the first {peaks[0] / 1e6:.0f} MB"
            yield row._replace(note=note, at_most=1.1, **scaled)


STARTS = {
    "torch and diffusers": "import torch; from diffusers import DDPMPipeline",
    "import antipure_lib": "import antipure_lib",
    "every name of antipure_lib, diffusers": (
        "import antipure_lib as ap; [getattr(ap, name) for name in ap.__all__]; "
        "from diffusers import DDPMPipeline"
    ),
    "--help": "import sys; from antipure_lib.__main__ import main; sys.argv[1:] = ['--help']; main()",
    "first protected image": (
        "import sys, antipure_lib as ap; x = ap.load_faces('p01')[0]; "
        "ap.save_image(ap.antipure(ap.load_ddpm(), x, eta=8 / 255, steps=20), sys.argv[1] + '/p.png')"
    ),
}


def starts(device: torch.device, quick: bool) -> Iterator[Row]:
    """What processes take from their start, over one that imports torch and diffusers alone."""
    if device != CPU:
        return

    def process(code):
        with TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-c", code, folder], check=True, capture_output=True, cwd=ROOT)

    reference, *others = STARTS
    for what in others:
        a, b = (partial(process, STARTS[name]) for name in (what, reference))
        target = 1.5 if what.startswith("every") else None
        figures = by_turns(a, b, 1 if quick else 5, CPU)
        yield Row("start", "nano", "cpu", "", what, *figures, at_most=target)


KEPT = """
import sys, time
from tools.speed.bench import *
from antipure_lib.runtime import allocator
if sys.argv[2] == "without":
    allocator._glibc = lambda: None
s = adm(CPU, pick_dtype(CPU), 1)
x = twice_as_large(s.x[:1])
if sys.argv[1] == "AntiPure":
    states = antipure_steps(s.ddpm, x, steps=3, balance="sum")
else:
    states = gridpure_steps(s.ddpm, x, t=s.t, iterations=3)
next(states)
began = time.perf_counter()
list(states)
print((time.perf_counter() - began) / 2)
"""


def kept(device: torch.device, quick: bool) -> Iterator[Row]:
    """Freed memory kept for the next tensors (`kept_memory`), in processes of their own.

    In one process the second would find what the first has left.
    """
    if device != CPU or quick:
        return

    def seconds(name, side):
        command = [sys.executable, "-c", KEPT, name, side]
        return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout)

    for name, what in {"AntiPure": "step, sum", "GrIDPure": "iteration"}.items():
        pairs = [[seconds(name, side) for side in ("without", "with")] for _ in range(3)]
        what = f"freed memory kept ({name} {what}, 10 tiles)"
        model, dtype = "256 px, ADM's shape, 32 channels", name_of(pick_dtype(CPU))
        yield Row("means", model, "cpu", dtype, what, *summary(pairs))


def precisions(device: torch.device) -> list[torch.dtype]:
    """What a device computes fast in, the one that the library picks first, and float32."""
    half = [torch.bfloat16, torch.float16] if device.type == "cuda" else []
    return list(dict.fromkeys([pick_dtype(device), *half, torch.float32]))


def small_model(device: torch.device, quick: bool) -> Iterator[Row]:
    """Every comparison on the embedded purifier."""
    rounds, native = 2 if quick else 7, pick_dtype(device)
    for dtype in [native] if quick else precisions(device):
        small = nano(device, dtype, rounds, 1 if quick else 2)
        yield from unavoidable(small)
        yield from means(small)
        if dtype is native:
            yield from shares(small)
    small = nano(device, native, rounds, 1 if quick else 2)
    yield from published(small)
    yield from growth(small, 10, (2, 4) if quick else (2, 4, 8), (2,) if quick else (2, 3))


def large_model(device: torch.device, quick: bool) -> Iterator[Row]:
    """The same for a model of 256 px, where it can tell something else; at its own width on a GPU."""
    if quick:
        return
    large = adm(device, pick_dtype(device), 7, width(device))
    yield from unavoidable(large)
    yield from published(large)
    yield from formats(large)
    if device.type == "cuda":
        for dtype in precisions(device)[1:]:
            yield from unavoidable(adm(device, dtype, 7, width(device)))


def width(device: torch.device) -> int:
    """Channels of the 256 px model's first level: guided-diffusion's own on a GPU."""
    return 256 if device.type == "cuda" else 32


def compiled_models(device: torch.device, quick: bool) -> Iterator[Row]:
    """`torch.compile` on both models."""
    if quick:
        return
    dtype = pick_dtype(device)
    yield from compiled(nano(device, dtype, 7))
    yield from compiled(adm(device, dtype, 7, width(device)))


def training(device: torch.device, quick: bool) -> Iterator[Row]:
    """Customization, on the embedded latent model."""
    pipe = load_stable_diffusion(device=device)
    yield from customization(pipe, load_faces("p01"), 2 if quick else 7)


GROUPS = {
    "nano": small_model,
    "large": large_model,
    "compile": compiled_models,
    "allocator": kept,
    "training": training,
    "start": starts,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for, and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="GROUP")
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    parser.add_argument("--on", nargs="+", choices=devices, default=devices, metavar="DEVICE")
    args = parser.parse_args(argv)
    out = ROOT / "build" if args.quick else ROOT / "data/results"
    for group in args.only:
        for device in args.on:
            measured = []
            for row in GROUPS[group](torch.device(device), args.quick):
                measured.append(row._asdict() | {"group": group})
                print(f"{row.part:10}{row.model[:8]:9}{row.dtype:20}{row.ratio:6.2f}  {row.what}", flush=True)
                write_report(out, group, device, measured)  # a run that is stopped leaves what it measured
    print(out / "speed.md")


if __name__ == "__main__":
    main()
