import math

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antipure_lib.core.guidance import (
    dct_matrix,
    denoising_loss,
    erroneous_timestep_guidance,
    patch_dct,
    patch_frequency_guidance,
)


def image(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


@settings(deadline=None, max_examples=25)
@given(s=st.integers(1, 16), rows=st.integers(1, 3), columns=st.integers(1, 3), seed=st.integers(0, 99))
def test_patch_dct_is_scipys_on_every_patch(s, rows, columns, seed):
    x = image((2, 3, rows * s, columns * s), seed)
    ours = patch_dct(x, s)
    assert ours.shape == (2, 3, rows, columns, s, s)
    for i in range(rows):
        for j in range(columns):
            patch = x[:, :, i * s : (i + 1) * s, j * s : (j + 1) * s].numpy()
            np.testing.assert_allclose(
                ours[:, :, i, j], scipy.fft.dctn(patch, axes=(2, 3), norm="ortho"), atol=1e-12
            )


def test_dct_survives_inference_mode():
    with torch.inference_mode():
        patch_dct(torch.rand(1, 3, 14, 14), 14)  # fills the cache
    x = torch.rand(1, 3, 14, 14, requires_grad=True)
    patch_dct(x, 14).sum().backward()
    assert x.grad is not None
    assert not dct_matrix(14).is_inference()


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("s", [2, 8, 16])
def test_patch_frequency_guidance_against_the_papers_formula(s, absolute):
    x = image((2, 3, 32, 16))
    expected = []
    for one in x.numpy():
        values = []
        for channel in one:
            for i in range(0, 32, s):
                for j in range(0, 16, s):
                    quarter = scipy.fft.dctn(channel[i : i + s, j : j + s], norm="ortho")[s // 2 :, s // 2 :]
                    values.append(4 / s**2 * (np.abs(quarter) if absolute else quarter).sum())
        expected.append(1 / (1 + math.exp(-np.mean(values))))
    np.testing.assert_allclose(patch_frequency_guidance(x, s, absolute), expected, rtol=1e-12)


@pytest.mark.parametrize("s", [8, 16])
def test_signed_guidance_has_one_tiled_kernel_as_its_gradient(s):
    x = image((2, 3, 32, 48)).requires_grad_()
    value = patch_frequency_guidance(x, s)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    # ∂DCT_{mn}/∂x is the basis image; σ' = σ(1−σ); the mean runs over patches and channels.
    basis = scipy.fft.idct(np.eye(s), axis=0, norm="ortho")  # column m: the m-th cosine
    high = basis[:, s // 2 :].sum(1)
    patches = 3 * (32 // s) * (48 // s)
    kernel = torch.from_numpy(np.outer(high, high)) * 4 / s**2 / patches
    slope = (value * (1 - value)).detach()
    expected = slope.view(2, 1, 1, 1) * kernel.tile(32 // s, 48 // s)
    torch.testing.assert_close(gradient, expected.expand_as(gradient), rtol=1e-9, atol=1e-14)


def test_denoising_loss_and_guidance_reduce_by_the_mean_per_image():
    a, b = image((3, 3, 8, 8), 1), image((3, 3, 8, 8), 2)
    expected = [np.mean((p - q) ** 2) for p, q in zip(a.numpy(), b.numpy(), strict=True)]
    np.testing.assert_allclose(denoising_loss(a, b), expected)
    np.testing.assert_allclose(erroneous_timestep_guidance(a, b), np.exp(-np.array(expected)))
    assert torch.equal(erroneous_timestep_guidance(a, a), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("patch", "message"),
    [(7, "must be even"), (6, "patch=6 doesn't divide"), (0, "patch must be at least 1"), (64, "patch=64")],
)
def test_bad_patches(patch, message):
    with pytest.raises(ValueError, match=message):
        patch_frequency_guidance(image((1, 3, 32, 32)), patch)


def test_a_single_image_is_told_to_be_made_a_batch():
    x = image((3, 8, 8))
    for loss in (
        patch_frequency_guidance,
        lambda x: denoising_loss(x, x),
        lambda x: erroneous_timestep_guidance(x, x),
    ):
        with pytest.raises(ValueError, match=r"N×C×H×W is needed, got \(3, 8, 8\); .*x\[None\]"):
            loss(x)
