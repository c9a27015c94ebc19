"""GrIDPure, written out as its rounds of DiffPure."""

import itertools

import torch

from antipure_lib.core.images import quantise
from antipure_lib.purifiers.diffpure import purify_tiles
from antipure_lib.purifiers.gridpure import gridpure, gridpure_steps
from antipure_lib.runtime.noise import image_generators


def test_gridpure_iterates_and_blends(tiny_ddpm, pictures):
    x, gamma = pictures(2, 24, 24), 0.3
    generators = image_generators(5, 2)
    expected = x
    states = gridpure_steps(tiny_ddpm, x, t=2, iterations=2, rounds=2, gamma=gamma, seed=5)
    for place, state in zip(itertools.product(range(2), range(2)), states, strict=True):
        with torch.no_grad():
            pure = purify_tiles(tiny_ddpm, expected, 2, generators)
        expected = (1 - gamma) * pure + gamma * expected
        assert (state.round, state.iteration) == place
        torch.testing.assert_close(state.x, expected)
        assert not state.x.requires_grad
    whole = gridpure(tiny_ddpm, x, t=2, iterations=2, rounds=2, gamma=gamma, seed=5)
    assert torch.equal(whole, quantise(state.x))


def test_an_images_noise_is_its_own(tiny_ddpm, pictures):
    x, options = pictures(3, 24, 24), {"t": 3, "iterations": 2, "seed": 1}
    once = gridpure(tiny_ddpm, x, **options)
    alone = gridpure(tiny_ddpm, x[:1], **options)
    torch.testing.assert_close(alone, once[:1], atol=1.01 / 255, rtol=0)
    parts = gridpure(tiny_ddpm, x, batch=4, **options)
    torch.testing.assert_close(parts, once, atol=1.01 / 255, rtol=0)
    assert not torch.equal(once[1], gridpure(tiny_ddpm, x[1:2], **options)[0])  # another position
