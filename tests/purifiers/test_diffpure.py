"""DiffPure of tiles against diffusers' own chain, closed forms and finite differences."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler, ScoreSdeVeScheduler

from antipure_lib.core.diffusion import alpha_bars, predict, reverse_step
from antipure_lib.core.images import quantise, to_model
from antipure_lib.core.tiles import extract, merge, tile_count
from antipure_lib.protections.registry import protect
from antipure_lib.purifiers.diffpure import diffpure, purify_tiles
from antipure_lib.purifiers.gridpure import gridpure
from antipure_lib.purifiers.registry import PURIFIERS
from antipure_lib.runtime.noise import image_generators, randn

DIFFUSION = [name for name, purifier in PURIFIERS.items() if purifier.needs]


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


@pytest.mark.parametrize("name", DIFFUSION)
def test_forward_passes_without_gradients_are_channels_last(tiny_ddpm, pictures, name):
    seen = []

    def look(convolution, _):
        seen.append(convolution.weight.is_contiguous(memory_format=torch.channels_last))

    handle = tiny_ddpm.unet.conv_in.register_forward_pre_hook(look)
    try:
        PURIFIERS[name].run(tiny_ddpm, pictures(1), **PURIFIERS[name].quick)
        assert seen and all(seen)
        seen.clear()
        purify_tiles(tiny_ddpm, pictures(1).requires_grad_(), 2, image_generators(0, 1))
        assert seen and not any(seen)  # a backward pass would be slower
    finally:
        handle.remove()
    assert tiny_ddpm.unet.conv_in.weight.is_contiguous()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t": 0}, "t must be 1 … 1000, got 0"),
        ({"t": 1001}, "t must be 1 … 1000, got 1001"),
        ({"t": 2.5}, "t must be a whole number, got 2.5"),
        ({"x": torch.zeros(3, 16, 15)}, "smaller than a tile"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", DIFFUSION)
def test_bad_arguments_fail_at_the_call(tiny_ddpm, pictures, name, options, message):
    with pytest.raises(ValueError, match=message):
        PURIFIERS[name].run(tiny_ddpm, **{"x": pictures(1)} | options)


@pytest.mark.parametrize("name", DIFFUSION)
@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (DDPMScheduler(thresholding=True), "thresholding=True, which isn't supported"),
        (
            DDPMScheduler(prediction_type="v_prediction"),
            "predicts 'v_prediction'; use one that predicts epsilon",
        ),
        (DDPMScheduler(prediction_type="sample"), "predicts 'sample'"),
        (DDPMScheduler(variance_type="learned"), "variance_type 'learned' isn't supported"),
        (FlowMatchEulerDiscreteScheduler(), "FlowMatchEulerDiscreteScheduler has no alphas_cumprod"),
        (EDMEulerScheduler(), "EDMEulerScheduler has no alphas_cumprod"),
        (ScoreSdeVeScheduler(), "ScoreSdeVeScheduler has no alphas_cumprod"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_a_chain_does_not_compute_is_refused_at_the_call(tiny_ddpm, pictures, name, scheduler, message):
    ddpm = SimpleNamespace(unet=tiny_ddpm.unet, scheduler=scheduler)
    with pytest.raises(ValueError, match=message):
        PURIFIERS[name].run(ddpm, pictures(1))
    if "thresholding" not in message and "variance" not in message:  # which reverse steps alone need
        for refused in (
            lambda: predict(ddpm, pictures(1), 3),
            lambda: protect("antipure", pictures(1), ddpm=ddpm, steps=1),
        ):
            with pytest.raises(ValueError, match=message):
                refused()
    else:
        with pytest.raises(ValueError, match=message):
            reverse_step(pictures(1), pictures(1), 3, scheduler, pictures(1))
    with pytest.raises(ValueError, match=message):
        protect("end-to-end", pictures(1), ddpm=ddpm, steps=1)
