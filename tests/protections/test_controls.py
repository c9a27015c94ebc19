"""Random signs of three kinds: the budget, the seed, and where their power lies."""

import math

import pytest
import torch

from antipure_lib.protections.controls import random_grey_steps, random_lowpass_steps, random_steps
from antipure_lib.protections.registry import protect

KINDS = ["random", "random-grey", "random-lowpass"]
GREY = torch.full((4, 3, 64, 64), 0.5)


def signs(steps, **options):
    (state,) = steps(GREY, **options)
    return (state.x_adv - GREY).sign()


def share_below(delta, limit):
    """Of the power, at frequencies below `limit` cycles per pixel."""
    power = torch.fft.fft2(delta.double()).abs().square().sum((0, 1))
    f = torch.fft.fftfreq(64, dtype=torch.float64)
    return float(power[(f[:, None] ** 2 + f**2).sqrt() < limit].sum() / power.sum())


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (7, 20), (64, 64)])
def test_every_colour_value_spends_the_whole_budget(name, size):
    x = torch.full((2, 3, *size), 0.5)
    change = protect(name, x, eta=8 / 255, seed=3) - protect("none", x)
    levels = (255 * change).round().abs()
    assert ((levels == 8) | (levels == 7)).all()  # 0.5 lies between two levels


@pytest.mark.parametrize("steps", [random_steps, random_grey_steps])
def test_signs_are_fair_and_independent(steps):
    found = signs(steps)
    if steps is random_grey_steps:
        assert torch.equal(found, found[:, :1].expand_as(found))
        found = found[:, :1]
    products = [found[0] * found[1], found[:, :, 1:] * found[:, :, :-1], found[..., 1:] * found[..., :-1]]
    products += [found[:, 0] * found[:, 1]] if found.shape[1] > 1 else []
    for product in (*found, *products):
        assert product.abs().min() == 1 and product.mean().abs() < 5 / product.numel() ** 0.5


def test_low_passed_signs_have_more_power_below_their_cutoff():
    coloured = signs(random_steps)
    assert share_below(coloured, 0.2) == pytest.approx(math.pi * 0.2**2, abs=0.01)  # a disc's share
    for cutoff in (0.1, 0.2, 0.3):
        assert share_below(signs(random_lowpass_steps, cutoff=cutoff), cutoff) > 0.6
    whole = signs(random_lowpass_steps, cutoff=0.8)
    assert share_below(whole, 0.2) == pytest.approx(math.pi * 0.2**2, abs=0.01)


@pytest.mark.parametrize("cutoff", [0.12, 0.25])
def test_neighbours_agree_as_often_as_the_arcsine_law_says(cutoff):
    """E[sign·sign'] = 2/π·arcsin(ρ) for Gaussians of correlation ρ (Van Vleck); a disc of frequencies."""
    f = torch.fft.fftfreq(64, dtype=torch.float64)
    low = (f[:, None] ** 2 + f**2).sqrt() <= cutoff
    found = signs(random_lowpass_steps, cutoff=cutoff)
    for lag in (1, 2, 3):
        rho = float((torch.cos(2 * math.pi * lag * f) * low).sum() / low.sum())
        agreement = float((found * found.roll(lag, -1)).mean())
        assert agreement == pytest.approx(2 / math.pi * math.asin(rho), abs=0.03)
    assert abs(float((found[:, 0] * found[:, 1]).mean())) < 0.1  # the channels are independent


@pytest.mark.parametrize("cutoff", [0, -0.1])
def test_bad_cutoffs(cutoff):
    with pytest.raises(ValueError, match="cutoff must be positive"):
        random_lowpass_steps(GREY, cutoff=cutoff)
