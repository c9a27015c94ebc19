"""Purifiers without a model against scipy's and Pillow's own."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from antipure_lib.core.images import quantise, to_pil
from antipure_lib.purifiers.filters import gaussian_blur, jpeg, resize_and_back


def test_jpeg_halves_the_colours_and_loses_less_at_higher_quality(pictures):
    x = torch.zeros(1, 3, 16, 16)
    x[:, 0, :, ::2], x[:, 2, :, 1::2] = 1, 1  # red and blue columns of one pixel
    y = jpeg(x, 95)
    assert (y[:, 0, :, ::2].mean() - y[:, 0, :, 1::2].mean()).item() < 0.5
    z = pictures(2, 32, 32)
    errors = [(jpeg(z, quality) - z).square().mean() for quality in (10, 50, 75, 95)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 2e-4


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.7])
def test_gaussian_blur_is_scipys(pictures, sigma):
    x = pictures(2, 20, 23)
    expected = scipy.ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=4)
    np.testing.assert_allclose(gaussian_blur(x, sigma), expected, atol=2e-6)


def test_resize_and_back_is_pillows():
    x = quantise(0.3 * torch.rand((1, 3, 32, 40), generator=torch.Generator().manual_seed(0)) + 0.3)
    small = to_pil(x).resize((20, 16), Image.Resampling.BICUBIC)
    back = np.asarray(small.resize((40, 32), Image.Resampling.BICUBIC)) / 255
    np.testing.assert_allclose(resize_and_back(x)[0].permute(1, 2, 0), back, atol=2.5 / 255)
    torch.testing.assert_close(resize_and_back(x, 1.0), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: jpeg(x, 0), "quality must be"),
        (lambda x: gaussian_blur(x, 0), "sigma must be"),
        (lambda x: gaussian_blur(x, 10), "sigma must be"),
        (lambda x: resize_and_back(x, 0), "factor must be"),
    ],
)
def test_bad_arguments(pictures, call, message):
    with pytest.raises(ValueError, match=message):
        call(pictures(1))
