"""AdverseCleaner's two filters against scipy and their formulas, and what they leave alone."""

import itertools

import numpy as np
import pytest
import scipy.ndimage
import torch

from antipure_lib.purifiers.adversecleaner import adversecleaner, bilateral_filter, guided_filter
from antipure_lib.purifiers.registry import purify


def noisy(pictures, h=14, w=17):
    x = pictures(1, h, w)
    return (x + 0.03 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)


def two_halves():
    """Dark left of the middle, bright right of it."""
    return torch.tensor([0.3, 0.8]).repeat_interleave(10).expand(1, 3, 12, 20).clone()


def test_bilateral_filter_that_sees_no_colours_is_a_gaussian_blur(pictures):
    """Against scipy's correlation, divided by the weight that is inside the image."""
    x, steps = noisy(pictures), np.arange(-3, 4)
    space = steps[:, None] ** 2 + steps**2
    kernel = np.where(space <= 9, np.exp(-space / (2 * 1.5**2)), 0)
    images = [x[0, 0].numpy(), np.ones((14, 17))]
    blurred, inside = (scipy.ndimage.correlate(z, kernel, mode="constant") for z in images)
    ours = bilateral_filter(x, 3, sigma_colour=1e4, sigma_space=1.5)[0, 0]
    np.testing.assert_allclose(ours, blurred / inside, atol=1e-5)


def test_bilateral_filter_is_its_formula_on_colours(pictures):
    x = noisy(pictures, 6, 7)
    ours = bilateral_filter(x, 2, 0.2, 3.0)[0].permute(1, 2, 0).double().numpy()
    image = x[0].permute(1, 2, 0).double().numpy()
    for p in np.ndindex(6, 7):
        total, weights = np.zeros(3), 0.0
        for q in np.ndindex(6, 7):
            space = (p[0] - q[0]) ** 2 + (p[1] - q[1]) ** 2
            if space <= 4:
                colour = np.abs(image[p] - image[q]).sum()
                weight = np.exp(-space / (2 * 3.0**2) - colour**2 / (2 * 0.2**2))
                total, weights = total + weight * image[q], weights + weight
        np.testing.assert_allclose(ours[p], total / weights, atol=1e-6)


def box(image, radius):
    """The mean over a window, scipy's; only right where the window is inside."""
    return scipy.ndimage.uniform_filter(image, (0, 0, 2 * radius + 1, 2 * radius + 1))


def test_guided_filter_is_a_line_that_fits_in_every_window(pictures):
    """Against least squares with a ridge on the slope, window by window, and the mean over windows."""
    guide, x, radius, ridge = noisy(pictures, 7, 8), pictures(1, 7, 8, seed=3), 1, 1e-3
    lines = np.zeros((7, 8, 4, 3))
    images = [z[0].permute(1, 2, 0).double().numpy() for z in (guide, x)]

    def window(i, j):
        return [range(max(0, k - radius), min(n, k + radius + 1)) for k, n in ((i, 7), (j, 8))]

    for i, j in np.ndindex(7, 8):
        own, wanted = (image[np.ix_(*window(i, j))].reshape(-1, 3) for image in images)
        design = np.hstack([own, np.ones((len(own), 1))])
        penalty = len(own) * ridge * np.diag([1.0, 1.0, 1.0, 0.0])
        lines[i, j] = np.linalg.solve(design.T @ design + penalty, design.T @ wanted)
    ours = guided_filter(guide, x, radius, ridge)[0]
    for i, j in np.ndindex(7, 8):
        line = np.mean([lines[p] for p in itertools.product(*window(i, j))], 0)
        np.testing.assert_allclose(ours[:, i, j], [*images[0][i, j], 1] @ line, atol=1e-4)


def test_a_guide_of_one_colour_makes_it_a_double_box_filter(pictures):
    x = noisy(pictures, 24, 26)
    ours = guided_filter(torch.full_like(x, 0.4), x, radius=3)
    np.testing.assert_allclose(ours[..., 6:-6, 6:-6], box(box(x.numpy(), 3), 3)[..., 6:-6, 6:-6], atol=1e-5)


def test_an_image_of_one_colour_stays_and_so_does_an_edge():
    flat, edge = torch.tensor([0.2, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 9, 11), two_halves()
    for x, tolerance in ((flat, 1e-5), (edge, 0.01)):
        for y in (bilateral_filter(x), guided_filter(x, x), adversecleaner(x)):
            torch.testing.assert_close(y, x, atol=tolerance, rtol=0)


def test_it_removes_noise_next_to_an_edge():
    x = two_halves()
    noise = 4 / 255 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
    left = adversecleaner(x + noise) - adversecleaner(x)
    assert left.norm() < 0.5 * noise.norm()


@pytest.mark.parametrize("size", [(1, 1), (3, 20), (2, 1)])
def test_any_size_and_the_name_with_its_number(pictures, size):
    x = pictures(2, *size)
    assert adversecleaner(x, 2).shape == x.shape
    assert torch.equal(purify("adversecleaner3", x), (adversecleaner(x, 3) * 255).round() / 255)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: adversecleaner(x, 0), "iterations must be"),
        (lambda x: bilateral_filter(x, -1), "radius must be"),
        (lambda x: bilateral_filter(x, sigma_colour=0), "sigma_colour must be"),
        (lambda x: guided_filter(x, x, smoothness=0), "smoothness must be"),
    ],
)
def test_bad_arguments(pictures, call, message):
    with pytest.raises(ValueError, match=message):
        call(pictures(1))
