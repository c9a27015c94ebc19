import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from antipure_lib.core.diffusion import alpha_bars
from antipure_lib.core.images import quantise, to_model, to_pil
from antipure_lib.core.tiles import extract, merge, tile_count
from antipure_lib.judges.perturbation import survival
from antipure_lib.purifiers.diffpure import diffpure, gridpure, gridpure_steps, purify_tiles
from antipure_lib.purifiers.filters import gaussian_blur, jpeg, resize_and_back
from antipure_lib.purifiers.freqpure import freqpure
from antipure_lib.runtime.noise import image_generators, randn


def stub_ddpm(predict, scheduler, g=16):
    """A DDPMPipeline whose UNet is predict(x_t, t)."""

    class UNet(torch.nn.Module):
        config = SimpleNamespace(sample_size=g)
        dtype, device = torch.float32, torch.device("cpu")

        def forward(self, x_t, t):
            return SimpleNamespace(sample=predict(x_t, t))

    return SimpleNamespace(unet=UNet(), scheduler=scheduler)


@pytest.fixture
def oracle(tiny_ddpm):
    """oracle(x): a model that returns the true noise, because it knows the tiles of x."""

    def make(x):
        x0, alpha_bar = extract(to_model(x), 16), alpha_bars(tiny_ddpm.scheduler)

        def predict(x_t, t):
            a = alpha_bar[t]
            return (x_t - a.sqrt() * x0) / (1 - a).sqrt()

        return stub_ddpm(predict, tiny_ddpm.scheduler)

    return make


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (24, 40), (17, 29)])
def test_a_model_that_knows_the_noise_returns_the_input(oracle, pictures, size):
    x = pictures(2, *size)
    ddpm = oracle(x)
    assert torch.equal(diffpure(ddpm, x, t=50), x)
    assert torch.equal(gridpure(ddpm, x, t=10, iterations=3), x)


@pytest.mark.parametrize("kind", ["fixed_small", "fixed_large", "learned_range"])
def test_a_single_tile_goes_through_diffusers_chain(make_ddpm, pictures, kind):
    ddpm = make_ddpm(out_channels=6 if kind == "learned_range" else 3, variance_type=kind)
    x, t = pictures(1), 12
    generator = image_generators(3, 1)[0]
    scheduler = ddpm.scheduler
    with torch.no_grad():
        noise = torch.randn(x.shape, generator=generator)
        x_t = scheduler.add_noise(2 * x - 1, noise, torch.tensor([t - 1]))
        for s in reversed(range(t)):
            out = ddpm.unet(x_t, s).sample
            learned = kind == "learned_range"
            # Draw here: diffusers draws in the shape of a six-channel output.
            noise = torch.randn(x.shape, generator=generator) if s > 0 else torch.zeros_like(x)
            with pytest.MonkeyPatch.context() as patch:
                import diffusers.schedulers.scheduling_ddpm as module

                patch.setattr(module, "randn_tensor", lambda *a, noise=noise, **k: noise)
                x_t = scheduler.step(out, s, x_t).prev_sample
            assert out.shape[1] == (6 if learned else 3)
    expected = ((x_t + 1) / 2).clamp(0, 1)
    with torch.no_grad():
        ours = purify_tiles(ddpm, x, t, image_generators(3, 1))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(diffpure(ddpm, x, t, seed=3), quantise(expected), atol=1.01 / 255, rtol=0)


def test_one_noise_step_with_a_blind_model_leaves_the_averaged_noise(tiny_ddpm, pictures):
    """ε_θ = 0 and t=1: x̂0 = x_t/√ᾱ_0, so each tile keeps its noise and overlaps average it."""
    x = 0.25 + pictures(2, 24, 40) / 2
    scheduler = tiny_ddpm.scheduler
    scheduler = type(scheduler).from_config(scheduler.config, clip_sample=False)
    out = purify_tiles(stub_ddpm(lambda x_t, t: 0 * x_t, scheduler), x, 1, image_generators(7, 2))
    count = tile_count(24, 40, 16)
    noise = randn((2, count, 3, 16, 16), image_generators(7, 2)).flatten(0, 1)
    a = scheduler.alphas_cumprod[0]
    expected = x + merge(noise, x.shape, 16) * ((1 - a) / a).sqrt() / 2
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=0)


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
    assert torch.equal(
        gridpure(tiny_ddpm, x, t=2, iterations=2, rounds=2, gamma=gamma, seed=5), quantise(state.x)
    )


def test_same_seed_same_bits_whatever_else_is_in_the_batch(tiny_ddpm, pictures):
    x = pictures(3, 24, 24)
    once, again, other = (gridpure(tiny_ddpm, x, t=3, iterations=2, seed=s) for s in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, other)
    alone = gridpure(tiny_ddpm, x[:1], t=3, iterations=2, seed=1)
    torch.testing.assert_close(alone, once[:1], atol=1.01 / 255, rtol=0)
    micro = gridpure(tiny_ddpm, x, t=3, iterations=2, seed=1, batch=4)
    torch.testing.assert_close(micro, once, atol=1.01 / 255, rtol=0)
    assert not torch.equal(once[1], gridpure(tiny_ddpm, x[1:2], t=3, iterations=2, seed=1)[0])


def test_purify_tiles_is_differentiable(tiny_ddpm64, pictures):
    x = (0.25 + pictures(1, 24, 24) / 2).double().requires_grad_()
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def f(x):
        return (v * purify_tiles(tiny_ddpm64, x, 3, image_generators(0, 1))).sum()

    (gradient,) = torch.autograd.grad(f(x), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    h = 1e-6
    with torch.no_grad():
        difference = (f(x + h * direction) - f(x - h * direction)) / (2 * h)
    torch.testing.assert_close((gradient * direction).sum(), difference, rtol=1e-5, atol=1e-8)


def test_purifiers_leave_no_graph(tiny_ddpm, pictures):
    x = pictures(1).requires_grad_()
    assert not diffpure(tiny_ddpm, x, t=2).requires_grad
    assert not gridpure(tiny_ddpm, x, t=2, iterations=1).requires_grad


@pytest.mark.parametrize(
    "purify",
    [
        lambda ddpm, x: diffpure(ddpm, x, t=2),
        lambda ddpm, x: gridpure(ddpm, x, t=2, iterations=1),
        lambda ddpm, x: freqpure(ddpm, x, t=2, rounds=1),
    ],
    ids=["diffpure", "gridpure", "freqpure"],
)
def test_forward_passes_without_gradients_are_channels_last(tiny_ddpm, pictures, purify):
    seen = []

    def look(convolution, _):
        seen.append(convolution.weight.is_contiguous(memory_format=torch.channels_last))

    handle = tiny_ddpm.unet.conv_in.register_forward_pre_hook(look)
    try:
        purify(tiny_ddpm, pictures(1))
        assert seen and all(seen)
        seen.clear()
        purify_tiles(tiny_ddpm, pictures(1).requires_grad_(), 2, image_generators(0, 1))
        assert seen and not any(seen)  # a backward pass would be slower
    finally:
        handle.remove()
    assert tiny_ddpm.unet.conv_in.weight.is_contiguous()


def test_a_purifier_that_waits_leaves_the_model_as_it_was(tiny_ddpm, pictures):
    states = gridpure_steps(tiny_ddpm, pictures(1), t=2, iterations=2)
    next(states)
    assert tiny_ddpm.unet.conv_in.weight.is_contiguous()


def _purifiers(ddpm):
    return {
        "diffpure": lambda x: diffpure(ddpm, x, t=2),
        "gridpure": lambda x: gridpure(ddpm, x, t=2, iterations=1),
        "jpeg": jpeg,
        "gaussian_blur": gaussian_blur,
        "resize_and_back": resize_and_back,
    }


@pytest.mark.parametrize("name", ["diffpure", "gridpure", "jpeg", "gaussian_blur", "resize_and_back"])
def test_one_image_or_a_batch(tiny_ddpm, pictures, name):
    purify = _purifiers(tiny_ddpm)[name]
    x = pictures(2, 19, 24)
    batch, single = purify(x), purify(x[0])
    assert batch.shape == x.shape and single.shape == x[0].shape and batch.dtype == x.dtype
    assert batch.min() >= 0 and batch.max() <= 1
    torch.testing.assert_close(single, batch[0], atol=1.01 / 255, rtol=0)
    with pytest.raises(ValueError, match="x must lie in"):
        purify(x * 255)


def test_survival_is_the_ratio_of_norms_under_common_noise():
    x = torch.full((3, 3, 8, 8), 0.5)
    delta = 0.1 * torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    keep = torch.tensor([0.0, 0.25, 1.0])

    def purify(images, seed):
        noise = randn(images.shape, image_generators(seed, len(images)))
        return 0.5 + keep.view(3, 1, 1, 1) * (images - 0.5) + noise

    torch.testing.assert_close(survival(purify, x, x + delta, seed=4), keep, atol=1e-5, rtol=1e-4)
    assert survival(lambda images, seed: images, x[0], (x + delta)[0]).shape == (1,)
    with pytest.raises(ValueError, match="nothing that could survive"):
        survival(purify, x, x)
    with pytest.raises(ValueError, match="one shape"):
        survival(purify, x, x[:2])


def test_jpeg_halves_the_colours_unless_told_otherwise(pictures):
    x = torch.zeros(1, 3, 16, 16)
    x[:, 0, :, ::2], x[:, 2, :, 1::2] = 1, 1  # red and blue columns of one pixel

    def contrast(y):
        return (y[:, 0, :, ::2].mean() - y[:, 0, :, 1::2].mean()).item()

    assert contrast(jpeg(x, 95, subsampling="4:4:4")) > 0.8
    assert contrast(jpeg(x, 95)) < 0.5
    y = pictures(2, 32, 32)
    errors = [(jpeg(y, quality) - y).square().mean() for quality in (10, 50, 75, 95)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 2e-4


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.7])
def test_gaussian_blur_is_scipys(pictures, sigma):
    x = pictures(2, 20, 23)
    expected = scipy.ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=4)
    np.testing.assert_allclose(gaussian_blur(x, sigma), expected, atol=2e-6)


def test_resize_and_back_is_pillows(pictures):
    x = quantise(0.3 * torch.rand((1, 3, 32, 40), generator=torch.Generator().manual_seed(0)) + 0.3)
    small = to_pil(x).resize((20, 16), Image.Resampling.BICUBIC)
    back = np.asarray(small.resize((40, 32), Image.Resampling.BICUBIC)) / 255
    np.testing.assert_allclose(resize_and_back(x)[0].permute(1, 2, 0), back, atol=2.5 / 255)
    torch.testing.assert_close(resize_and_back(x, 1.0), x, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, x: diffpure(d, x, t=0), "t must be 1 … 1000"),
        (lambda d, x: diffpure(d, x, t=1001), "t must be 1 … 1000"),
        (lambda d, x: diffpure(d, x[..., :15], t=2), "smaller than a tile"),
        (lambda d, x: gridpure_steps(d, x, t=0), "t must be"),
        (lambda d, x: gridpure_steps(d, x[..., :8, :]), "smaller than a tile"),
        (lambda d, x: gridpure_steps(d, x, iterations=0), "iterations must be at least 1"),
        (lambda d, x: gridpure_steps(d, x, rounds=0), "rounds must be at least 1"),
        (lambda d, x: gridpure_steps(d, x, gamma=1), "gamma must be"),
        (lambda d, x: gridpure_steps(d, x * float("nan")), "NaN"),
        (lambda d, x: diffpure(d, x, t=2.5), "t must be 1 … 1000 noise steps, got 2.5"),
        (lambda d, x: gridpure_steps(d, x, iterations=1.5), "iterations must be a whole number, got 1.5"),
        (lambda d, x: diffpure(d, x, t=2, seed=-1), "seed must be at least 0"),
        (lambda d, x: jpeg(x, 0), "quality must be"),
        (lambda d, x: jpeg(x, 50, "4:4"), "subsampling must be .*got '4:4'"),
        (lambda d, x: gaussian_blur(x, 0), "sigma must be"),
        (lambda d, x: gaussian_blur(x, 10), "sigma must be"),
        (lambda d, x: resize_and_back(x, 0), "factor must be"),
    ],
)
def test_bad_arguments_fail_at_the_call(tiny_ddpm, pictures, call, message):
    with pytest.raises(ValueError, match=message):
        call(tiny_ddpm, pictures(1))
