"""Measure speed: against the work that can't be avoided, and against loops as they are published.

    python -m tools.speed.bench            # into build/speed.md
    python -m tools.speed.bench --quick    # the small model alone, two rounds

What is compared runs in one process by turns; a ratio is the median over neighbours, with the lowest and the
highest. Only what a process keeps of freed memory is compared between processes.
"""

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import DDPMPipeline

from antipure_lib import antipure_steps, gridpure_steps, load_ddpm, load_faces, pick_dtype, sample_size
from antipure_lib.core.tiles import tile_count
from antipure_lib.photos.pictures import atomic
from tools import command_line
from tools.speed.bare import bare_forwards, bare_step
from tools.speed.by_turns import Ratio, by_turns, summary
from tools.speed.models import guided_diffusion
from tools.speed.peers import peers_gridpure, peers_step

OUT = Path("build/speed.md")
CPU = torch.device("cpu")
ENDLESS, T_ERR = 10_000, 500
STEPS = 4  # in a timed call: not all steps of a loop cost the same
HEAD = "\n## {}\n\n| what | model | where | ratio | s, {} | s, {} |\n|---|---|---|---|---|---|"


class Setting(NamedTuple):
    """A purifier with photos."""

    model: str
    ddpm: DDPMPipeline
    x: torch.Tensor  # N×3×H×W in [0, 1]
    t: int  # noise steps of GrIDPure

    def line(self, what: str, found: Ratio) -> str:
        """A row of a table."""
        where = f"{self.ddpm.device.type} {str(self.ddpm.dtype).removeprefix('torch.')}"
        ratio = f"**{found.median:.2f}** ({found.low:.2f}–{found.high:.2f})"
        return (
            f"| {what} | {self.model} | {where} | {ratio} | {found.seconds_a:.3g} | {found.seconds_b:.3g} |"
        )


def small(device: torch.device) -> Setting:
    """The embedded purifier with two faces of ten tiles each."""
    return Setting("nano", load_ddpm(device=device), load_faces("p01")[:2], 10)


def large(device: torch.device) -> Setting:
    """guided-diffusion's 256 px model in shape, on a CPU narrow, with a photo of ten tiles."""
    width = 256 if device.type == "cuda" else 32
    coarse = torch.rand((1, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.interpolate(coarse, (512, 512), mode="bilinear")
    return Setting(f"256 px, {width} channels", guided_diffusion(device, pick_dtype(device), width), x, 2)


def loops(s: Setting) -> dict[str, Callable]:
    """One step of each of our loops a call."""
    climb = {"steps": ENDLESS, "t_err": T_ERR}
    states = {
        "AntiPure step, plain sum": antipure_steps(s.ddpm, s.x, balance="sum", **climb),
        'AntiPure step, balance="equal"': antipure_steps(s.ddpm, s.x, balance="equal", **climb),
        f"GrIDPure iteration, t={s.t}": gridpure_steps(s.ddpm, s.x, t=s.t, iterations=ENDLESS),
    }
    return {what: lambda steps=steps: next(steps) for what, steps in states.items()}


def over_bare(s: Setting, rounds: int) -> Iterator[str]:
    """Our loops over the UNet's passes alone; both balances over those of a plain sum."""
    tiles = len(s.x) * tile_count(*s.x.shape[-2:], sample_size(s.ddpm))
    passes = bare_step(s.ddpm, tiles, T_ERR)
    bare = (passes, passes, bare_forwards(s.ddpm, tiles, s.t))
    for (what, ours), theirs in zip(loops(s).items(), bare, strict=True):
        yield s.line(what, by_turns(repeated(ours), repeated(theirs), rounds, s.ddpm.device))


def repeated(call: Callable) -> Callable[[], None]:
    """STEPS times the same call."""
    return lambda: [call() for _ in range(STEPS)]


def over_ours(s: Setting, rounds: int) -> Iterator[str]:
    """Loops as they are published, in float32, over ours in the precision that the library picks."""
    precise = copy.copy(s.ddpm)
    precise.unet = copy.deepcopy(s.ddpm.unet).float()
    plain, _, gridpure = loops(s).items()
    published = (peers_step(precise, s.x, t_err=T_ERR), peers_gridpure(precise, s.x, t=s.t))
    for (what, ours), theirs in zip((plain, gridpure), published, strict=True):
        yield s.line(what, by_turns(theirs, ours, rounds, s.ddpm.device))


KEPT = """
import sys
from antipure_lib.runtime import unet
from tools.speed import bench, by_turns
if sys.argv[2] == "without":
    unet.keep_freed_memory = lambda *_: None
step = bench.loops(bench.large(bench.CPU))[sys.argv[1]]
step()
print(by_turns.timed(bench.repeated(step), bench.CPU))
"""


def without_kept_memory(rounds: int) -> Iterator[str]:
    """Our loops with freed memory given back, over themselves, in processes of their own."""

    def seconds(what: str, side: str) -> float:
        command = [sys.executable, "-c", KEPT, what, side]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    setting = large(CPU)
    for what in loops(setting):
        pairs = [[seconds(what, side) for side in ("without", "with")] for _ in range(rounds)]
        yield setting.line(what, summary(pairs))


def report(rounds: int, quick: bool = False) -> Iterator[str]:
    """The report, line by line."""
    devices = [CPU] + [torch.device("cuda")] * torch.cuda.is_available()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers"))
    yield f"# Speed\n\nWritten by `make bench`: {torch.get_num_threads()} threads{gpu}; {packages}."
    for title, rows, columns in (
        ("Over the work that can't be avoided", over_bare, ("ours", "bare")),
        ("Loops as they are published, over ours", over_ours, ("theirs", "ours")),
    ):
        yield HEAD.format(title, *columns)
        for device in devices:
            for setting in (small,) if quick else (small, large):
                yield from rows(setting(device), rounds)
    if not quick:
        yield HEAD.format("Without keeping freed memory, over with it", "without", "with")
        yield from without_kept_memory(3)


def main() -> None:
    """Measure, print and write the report; a run that is stopped leaves what it measured."""
    parser = command_line(__doc__)
    parser.add_argument("--quick", action="store_true")
    quick, lines = parser.parse_args().quick, []
    OUT.parent.mkdir(exist_ok=True)
    for line in report(2 if quick else 7, quick):
        print(line, flush=True)
        lines.append(line)
        with atomic(OUT) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
