"""FreqPure against numpy's Fourier transform, plain DiffPure, and a written-out loop."""

import math

import numpy as np
import pytest
import torch

from antipure_lib.core.images import quantise
from antipure_lib.core.tiles import extract, merge, tile_count
from antipure_lib.purifiers import freqpure as module
from antipure_lib.purifiers.diffpure import purify_tiles
from antipure_lib.purifiers.freqpure import freqpure_steps, keep_low_frequencies
from antipure_lib.runtime.noise import image_generators, randn


def images(h, w, seed=0):
    return torch.rand((2, 3, h, w), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("h", "w"), [(16, 16), (15, 12), (8, 21)])
@pytest.mark.parametrize("radius", [-1, 0, 3, 3.7, math.inf])
@pytest.mark.parametrize("slack", [0.0, 0.3, math.pi])
def test_exchange_is_numpys(h, w, radius, slack):
    """All frequencies one by one, on the whole plane of the complex transform."""
    x, reference = images(h, w), images(h, w, seed=1)
    ours = keep_low_frequencies(x, reference, radius, slack).numpy()
    for i, c in np.ndindex(2, 3):
        spectrum, kept = np.fft.fft2(x[i, c].numpy()), np.fft.fft2(reference[i, c].numpy())
        for u, v in np.ndindex(h, w):
            if math.hypot(min(u, h - u), min(v, w - v)) <= radius:
                turn = np.angle(spectrum[u, v] / kept[u, v])
                phase = np.angle(kept[u, v]) + min(max(turn, -slack), slack)
                spectrum[u, v] = abs(kept[u, v]) * np.exp(1j * phase)
        np.testing.assert_allclose(ours[i, c], np.fft.ifft2(spectrum).real, atol=1e-9)


@pytest.mark.parametrize("size", [(16, 16), (20, 24)])
@pytest.mark.parametrize("head", [False, True])  # a model with a learned variance
def test_with_nothing_kept_it_is_rounds_of_diffpure(make_ddpm, pictures, size, head):
    """The reference draws noise of its own before each round."""
    ddpm, x = make_ddpm(6, variance_type="learned_range") if head else make_ddpm(), pictures(2, *size)
    generators, shape = image_generators(3, 2), (2, tile_count(*size, 16), 3, 16, 16)
    expected = x
    for state in freqpure_steps(ddpm, x, t=4, rounds=2, radius=-1, seed=3):
        randn(shape, generators)
        with torch.no_grad():
            expected = purify_tiles(ddpm, expected, 4, generators)
        torch.testing.assert_close(state.x, expected, atol=1e-5, rtol=0)
    assert state.round == 1


@pytest.mark.parametrize("t_ref", [1, 7, 20])
def test_with_everything_kept_the_one_step_denoise_comes_back(tiny_ddpm, pictures, monkeypatch, t_ref):
    monkeypatch.setattr(module, "PHASE_SLACK", 0)
    monkeypatch.setattr(module, "T_REF", t_ref)
    x = quantise(0.3 + pictures(1, 20, 24) * 0.4)
    (state,) = freqpure_steps(tiny_ddpm, x, t=2, rounds=1, radius=math.inf, seed=5)
    noise = randn((1, tile_count(20, 24, 16), 3, 16, 16), image_generators(5, 1)).flatten(0, 1)
    tiles = extract(2 * x - 1, 16)
    x_t = tiny_ddpm.scheduler.add_noise(tiles, noise, torch.tensor([t_ref - 1]))
    with torch.no_grad():
        step = tiny_ddpm.scheduler.step(tiny_ddpm.unet(x_t, t_ref - 1).sample, t_ref - 1, x_t)
    expected = merge(((step.pred_original_sample + 1) / 2).clamp(0, 1), x.shape, 16)
    torch.testing.assert_close(state.x, expected, atol=1e-5, rtol=0)
