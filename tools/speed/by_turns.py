"""What bench.py measures with and on: two calls by turns, peak memory, and purifiers with photos."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import torch

from antipure_lib import load_ddpm, load_faces, sample_size
from antipure_lib.core.tiles import tile_count

if TYPE_CHECKING:
    from diffusers import DDPMPipeline

CPU = torch.device("cpu")


class Row(NamedTuple):
    """One line of the report: a / b, by turns. Its group, of those that --only names, is added last."""

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
    return summary(seconds)


def summary(pairs: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Of pairs of seconds (a, b): median, lowest, highest of a/b; median of a, of b."""
    ratios = [a / b for a, b in pairs]
    return median(ratios), min(ratios), max(ratios), *(median(side) for side in zip(*pairs, strict=True))


def timed(call: Callable, device: torch.device) -> float:
    """Seconds of one call, with what it left to do on the device."""
    wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


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
