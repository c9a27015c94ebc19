"""What situations are made of: models, photos, a run of the command line, a process of its own."""

import contextlib
import copy
import importlib.util
import io
import os
import runpy
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch

import antipure_lib as ap

ROOT = Path(__file__).resolve().parents[2]


@cache
def _ddpm():
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    with torch.inference_mode(False), torch.random.fork_rng():
        torch.manual_seed(0)
        blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D")}
        blocks |= {"up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "block_out_channels": (8, 16)}
        unet = UNet2DModel(sample_size=16, layers_per_block=1, norm_num_groups=4, **blocks)
    made = DDPMPipeline(unet.eval(), DDPMScheduler())
    made.set_progress_bar_config(disable=True)
    return made


@cache
def _pipe():
    with torch.inference_mode(False):
        return ap.load_stable_diffusion()


def ddpm():
    """A pixel model of one's own: random weights, 16 px, so that hundreds of calls cost little."""
    return copy.deepcopy(_ddpm())


def model_folder() -> str:
    """A folder with that model, for commands that load one by name."""
    ddpm().save_pretrained("model")
    return "model"


def pipe():
    """A copy of the embedded latent model, 64 px."""
    return copy.deepcopy(_pipe())


def photos(n: int = 1) -> torch.Tensor:
    """Photos of one rendered person, n×3×64×64."""
    return ap.load_faces("p01", "B")[:n]


def picture(height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    """A smooth colourful picture, 3×H×W, on 8-bit levels."""
    coarse = torch.rand((1, 3, 4, 4), generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return ap.quantise(smooth[0])


class Done(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str

    def fine(self) -> "Done":
        """Itself, if it succeeded."""
        assert self.status == 0, f"exit status {self.status}: {(self.err or self.out).strip()[-300:]}"
        return self

    def error(self) -> str:
        """Its error message, one line. Raises for success and for a traceback."""
        assert self.status, f"it claims success: {self.out.strip()[-200:]}"
        assert "Traceback" not in self.err, f"traceback of {len(self.err.splitlines())} lines"
        return self.err.strip().splitlines()[-1]


def command(*words: object) -> Done:
    """`python -m antipure_lib WORDS` in this process, where the library is loaded already."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["antipure_lib", *map(str, words)]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_module("antipure_lib", run_name="__main__", alter_sys=False)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else bool(end.code)
            if isinstance(end.code, str):
                err.write(end.code)
    return Done(int(status or 0), out.getvalue(), err.getvalue())


def survives(code: str) -> None:
    """Python code that a process of its own must live through."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-c", "import torch, antipure_lib as ap\n" + code]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=240)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    assert done.returncode == 0, f"the process ended with status {done.returncode}: {last}"


def needs(*modules: str) -> bool:
    """Whether optional packages are here."""
    return all(importlib.util.find_spec(name) for name in modules)
