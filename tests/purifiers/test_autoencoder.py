"""The autoencoder's round trip against diffusers' own, at its size and at others."""

import pytest
import torch
from tiny import tiny_stable_diffusion

from antipure_lib.purifiers.autoencoder import autoencoder


@pytest.mark.parametrize("size", [(16, 16), (12, 8)])
def test_it_is_diffusers_round_trip(pipe, pictures, size):
    x = pictures(2, *size)
    with torch.no_grad():
        z = pipe.vae.encode(2 * x - 1).latent_dist.mode()
        expected = (pipe.vae.decode(z).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(autoencoder(pipe, x), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(autoencoder(pipe, x[0]), expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (17, 16), (15, 40), (33, 47)])
def test_any_size(pipe, pictures, size):
    x = pictures(1, *size)
    y = autoencoder(pipe, x)
    assert y.shape == x.shape and 0 <= y.min() and y.max() <= 1


def test_a_tile_sees_nothing_of_a_far_corner(pipe, pictures):
    """So memory doesn't grow with the photo: a change in one corner leaves the opposite one as it is."""
    x = pictures(1, 64, 64)
    other = x.clone()
    other[..., 60:, 60:] = 1 - other[..., 60:, 60:]
    changed = (autoencoder(pipe, other) - autoencoder(pipe, x)).abs().amax((0, 1))
    assert changed[60:, 60:].max() > 0 and changed[:16, :16].max() == 0


def test_half_precision_and_another_model(pictures, tiny_ddpm):
    pipe, x = tiny_stable_diffusion(), pictures(1)
    expected = autoencoder(pipe, x)
    pipe.vae.to(torch.bfloat16)
    coarse = autoencoder(pipe, x)
    assert coarse.dtype == torch.float32 and (coarse - expected).abs().max() < 0.05
    with pytest.raises(TypeError, match="pipe must be a StableDiffusionPipeline"):
        autoencoder(tiny_ddpm, x)
