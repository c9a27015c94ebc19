"""tools/models/ddpm.py and pictures.py: what the purifier learns from."""

import functools
from argparse import Namespace

import numpy as np
import pytest
import torch

from antipure_lib.models.embedded import data_path
from tools.models import ddpm, pictures


def radial_power(image):
    """Mean power at frequencies 1 … H/2 − 1, by a full FFT."""
    side = len(image)
    power = np.abs(np.fft.fft2(image)) ** 2
    steps = np.minimum(np.arange(side), side - np.arange(side))
    ring = np.rint(np.hypot(*np.meshgrid(steps, steps))).astype(int)
    return (np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel()))[1 : side // 2]


def slope(powers):
    """Exponent of a power spectrum, fitted in logarithms over f = 3 … 40."""
    f = np.arange(1, len(powers) + 1)[2:40]
    return np.polyfit(np.log(f), np.log(powers[2:40]), 1)[0]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_the_power_of_a_field_falls_like_a_power_of_frequency(exponent):
    rng = np.random.default_rng(0)
    powers = np.mean([radial_power(pictures.field(rng, 128, exponent)) for _ in range(20)], axis=0)
    assert slope(powers) == pytest.approx(-2 * exponent, abs=0.1)


def test_a_stretched_field_is_smoother_along_than_across():
    hair = pictures.field(np.random.default_rng(1), 128, 1.0, stretch=8, turn=0.0)
    across, along = (np.square(np.diff(hair, axis=axis)).mean() for axis in (0, 1))
    assert along < across / 4


def test_dead_leaves_have_the_spectrum_of_photos_and_edges():
    rng = np.random.default_rng(2)
    drawn = [pictures.dead_leaves(rng, 128).mean(axis=2) for _ in range(40)]
    drawn = [image / image.std() for image in drawn]
    assert -3 < slope(np.mean([radial_power(image) for image in drawn], axis=0)) < -1.5
    steps = np.concatenate([np.diff(image, axis=1).ravel() for image in drawn])
    kurtosis = np.mean(steps**4) / np.mean(steps**2) ** 2
    assert kurtosis > 10  # a Gaussian field has 3


def test_pictures_are_in_range_varied_and_those_of_their_seed():
    first, again = ([pictures.draw(np.random.default_rng(k), 96) for k in range(12)] for _ in range(2))
    for image, same in zip(first, again, strict=True):
        assert image.shape == (96, 96, 3) and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1
        assert np.array_equal(image, same)
    assert np.std([image.mean() for image in first]) > 0.1


def test_a_batch_is_that_of_its_generator_and_needs_no_faces_at_first():
    pyramid = ddpm.photo_pyramid(data_path("photos"))
    faces = torch.zeros((2, 3, 128, 128), dtype=torch.uint8)

    def batch(seed, faces=None):
        return ddpm.batch_of(9, faces, pyramid, torch.Generator().manual_seed(seed))

    x = batch(0)
    assert x.shape == (9, 3, 64, 64) and x.dtype == torch.float32
    assert x.min() >= -1 and x.max() <= 1
    assert torch.equal(x, batch(0)) and not torch.equal(x, batch(1))
    black = (batch(0, faces) == -1).flatten(1).all(dim=1)
    assert black.tolist() == [False] * 3 + [True] * 3 + [False] * 3


def test_most_timesteps_are_small():
    t = ddpm.timesteps(20_000, torch.Generator().manual_seed(0))
    shares = [(t < below).float().mean().item() for below in (10, 100, 1000)]
    # Below 10 fall all of the first part, a tenth of the second, a hundredth of the third.
    assert shares == pytest.approx([0.4 + 0.045 + 0.0015, 0.85 + 0.015, 1], abs=0.01)


def test_the_astronaut_is_unseen():
    without = len(ddpm.photo_pyramid(data_path("photos")))
    names = {path.stem for path in data_path("photos").glob("*.png")}
    assert "astronaut" in names and len(names) > 4
    sizes = {tuple(image.shape) for image in ddpm.photo_pyramid(data_path("photos"))}
    assert (3, 512, 512) not in sizes and without >= 4 * (len(names) - 1)


def test_a_run_that_stops_for_want_of_faces_goes_on_to_the_weights_of_an_unbroken_one(tmp_path, monkeypatch):
    monkeypatch.setattr(ddpm, "fit", functools.partial(ddpm.fit, checkpoint_seconds=-1))
    tiny = dict(block_out_channels=(16,), down_block_types=["DownBlock2D"], up_block_types=["UpBlock2D"])
    make_unet = functools.partial(ddpm.UNet2DModel, layers_per_block=1, norm_num_groups=4, **tiny)
    monkeypatch.setattr(ddpm, "make_unet", make_unet)

    def train(run, alone):
        numbers = dict(alone=alone, steps=4, decay_last=2, batch=3, lr=1e-3, seed=0)
        folders = dict(faces=tmp_path / "faces", photos=data_path("photos"), run=tmp_path / run)
        with torch.random.fork_rng():
            ddpm.main(Namespace(start=None, **folders, **numbers))

    with pytest.raises(FileNotFoundError, match="no training images"):
        train("stopped", alone=2)
    assert torch.load(tmp_path / "stopped/state.pt", weights_only=True)["step"] == 2
    train("stopped", alone=4)
    train("unbroken", alone=4)
    found, expected = (ddpm.starting_weights(tmp_path / run, "unet") for run in ("stopped", "unbroken"))
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
