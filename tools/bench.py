"""Measure speed: against the work that cannot be avoided, and against loops as they are published.

    python tools/bench.py            # everything, into data/results/speed.md and speed.json
    python tools/bench.py --quick    # few repetitions, no 256 px model and no torch.compile, into build/

Two things that are compared run in one process by turns, A B A B …; what is reported is the median of the
ratios of neighbours, with the lowest and the highest: other load on the machine meets both alike.
"""

import argparse
import copy
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import torch
from bench_bare import T_ERR, bare_forwards, bare_step, bare_training
from bench_peers import peers_gridpure, peers_step
from bench_report import write_report

from antipure_lib import (
    antipure_loss,
    antipure_steps,
    dreambooth_steps,
    frozen,
    gridpure_steps,
    load_ddpm,
    load_faces,
    load_stable_diffusion,
    lora_steps,
    pgd,
    pick_dtype,
    randn,
    sample_size,
)
from antipure_lib.fine_tune import latents, text_embeddings
from antipure_lib.generate import autocast
from antipure_lib.tiles import tile_count

if TYPE_CHECKING:
    from diffusers import DDPMPipeline, StableDiffusionPipeline

ROOT = Path(__file__).resolve().parents[1]
ENDLESS = 10**9
CPU = torch.device("cpu")


class Row(NamedTuple):
    """One line of the report: a / b, by turns."""

    part: str
    model: str
    device: str
    dtype: str
    what: str
    ratio: float
    low: float
    high: float
    seconds_a: float
    seconds_b: float
    at_most: float | None = None  # targets
    at_least: float | None = None
    note: str = ""


class Setting(NamedTuple):
    """A purifier with photos, on a device and in a precision."""

    model: str
    ddpm: "DDPMPipeline"
    x: torch.Tensor  # N×3×H×W in [0, 1]
    t: int  # noise steps of GrIDPure
    rounds: int

    def row(self, part: str, what: str, a: Callable, b: Callable, **options) -> Row:
        """Measure a against b."""
        unet = self.ddpm.unet
        dtype = options.pop("dtype", name_of(unet.dtype))
        figures = by_turns(a, b, self.rounds, unet.device)
        return Row(part, self.model, unet.device.type, dtype, what, *figures, **options)


def by_turns(a: Callable, b: Callable, rounds: int, device: torch.device) -> tuple[float, ...]:
    """(median, lowest, highest of a/b; median seconds of a, of b); the first call of each isn't counted."""
    seconds = []
    for turn in range(rounds + 1):
        pair = [timed(call, device) for call in (a, b)]
        if turn:
            seconds.append(pair)
    ratios = [first / second for first, second in seconds]
    return (
        median(ratios),
        min(ratios),
        max(ratios),
        *(median(column) for column in zip(*seconds, strict=True)),
    )


def timed(call: Callable, device: torch.device) -> float:
    """Seconds of one call, with what it left to do on the device."""
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


# The parts of the report.


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
    yield s.row("bare", what, partial(next, states), bare_forwards(s.ddpm, n, s.t), at_most=1.1)


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
        states = gridpure_steps(own.ddpm, s.x, t=s.t, iterations=ENDLESS)
        peers = peers_gridpure(precise.ddpm, s.x, t=s.t)
        yield own.row("published", "GrIDPure iteration", peers, partial(next, states), at_least=targets[1])


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
    one, other = (in_format(s.ddpm, kind) for kind in (torch.contiguous_format, torch.channels_last))
    yield s.row("means", "channels last (step, sum)", step(one), step(other))
    yield s.row("means", "channels last (forward)", forwards(one), forwards(other))
    ours = step()
    yield s.row("means", "no wait for the device in a step (sum)", partial(waiting, step()), ours)


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


def starts(rounds: int) -> Iterator[Row]:
    """What processes take from their start, over one that imports torch and diffusers alone."""

    def process(code):
        with TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-c", code, folder], check=True, capture_output=True, cwd=ROOT)

    reference, *others = STARTS
    for what in others:
        a, b = (partial(process, STARTS[name]) for name in (what, reference))
        target = 1.5 if what.startswith("every") else None
        yield Row("start", "nano", "cpu", "", what, *by_turns(a, b, rounds, CPU), at_most=target)


# Settings and small things.


def nano(device: torch.device, dtype: torch.dtype, rounds: int, photos: int = 2) -> Setting:
    """The embedded purifier and 64 px faces: ten tiles a photo."""
    return Setting("nano", load_ddpm(device=device, dtype=dtype), load_faces("p01")[:photos], 10, rounds)


def adm(device: torch.device, dtype: torch.dtype, rounds: int, width: int = 32, photos: int = 2) -> Setting:
    """guided-diffusion's 256 px model in shape, with random weights and `width` channels in place of 256."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=256,
            out_channels=6,
            block_out_channels=tuple(width * k for k in (1, 1, 2, 2, 4, 4)),
            layers_per_block=2,
            down_block_types=("DownBlock2D",) * 3 + ("AttnDownBlock2D",) * 3,
            up_block_types=("AttnUpBlock2D",) * 3 + ("UpBlock2D",) * 3,
            downsample_type="resnet",
            upsample_type="resnet",
            resnet_time_scale_shift="scale_shift",
            attention_head_dim=min(64, width),
        )
    unet = torch.nn.Module.to(
        unet.eval(), device, dtype
    )  # diffusers' own `to` warns of nothing in particular
    ddpm = DDPMPipeline(unet, DDPMScheduler(variance_type="learned_range"))
    coarse = torch.rand((photos, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(coarse, (256, 256), mode="bilinear")
    return Setting(f"256 px, ADM's shape, {width} channels", ddpm, x, 2, rounds)


def tiles(s: Setting) -> int:
    """Tiles of all the photos."""
    return len(s.x) * tile_count(*s.x.shape[-2:], sample_size(s.ddpm))


def in_float32(ddpm: "DDPMPipeline") -> "DDPMPipeline":
    """The same model in float32."""
    other = copy.copy(ddpm)
    other.unet = copy.deepcopy(ddpm.unet).float()
    return other


def in_format(ddpm: "DDPMPipeline", memory_format: torch.memory_format) -> "DDPMPipeline":
    """The same model with its weights in another order."""
    other = copy.copy(ddpm)
    other.unet = copy.deepcopy(ddpm.unet).to(memory_format=memory_format)
    return other


def peak_memory(call: Callable, device: torch.device) -> float:
    """Bytes at the highest point of a call: of the GPU's tensors, or of the process on Linux; else nan."""
    status = Path("/proc/self/status")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device)
    if not status.exists():
        return math.nan
    Path("/proc/self/clear_refs").write_text("5")  # starts a new high-water mark
    call()
    kilobytes = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(kilobytes.split()[1])


def name_of(dtype: torch.dtype) -> str:
    """ "float32" and so on."""
    return str(dtype).removeprefix("torch.")


def rows(device: torch.device, quick: bool) -> Iterator[Row]:
    """Every comparison on one device."""
    rounds = 2 if quick else 7
    native = pick_dtype(device)
    half = [torch.bfloat16, torch.float16] if device.type == "cuda" else []
    for dtype in [native] if quick else dict.fromkeys([native, *half, torch.float32]):
        small = nano(device, dtype, rounds, 1 if quick else 2)
        yield from unavoidable(small)
        yield from means(small)
        if dtype is native:
            yield from shares(small)
            if not quick:
                yield from compiled(small)
    small = nano(device, native, rounds, 1 if quick else 2)
    yield from published(small)
    yield from growth(small, 10, (2, 4) if quick else (2, 4, 8), (2,) if quick else (2, 3))
    if not quick:
        # A GPU takes the model at its own width.
        large = adm(device, native, 3, 256 if device.type == "cuda" else 32)
        yield from unavoidable(large)
        yield from published(large)
    yield from customization(load_stable_diffusion(device=device), load_faces("p01"), rounds)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for, and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args(argv)
    out = ROOT / "build" if args.quick else ROOT / "data/results"
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    began, measured = time.time(), []
    for device in devices:
        for row in rows(torch.device(device), args.quick):
            measured.append(row)
            print(f"{row.part:10}{row.model[:8]:9}{row.dtype:20}{row.ratio:6.2f}  {row.what}", flush=True)
    measured += starts(1 if args.quick else 5)
    write_report(out, [row._asdict() for row in measured], time.time() - began)


if __name__ == "__main__":
    main()
