"""DiffPure of tiles against diffusers' own chain, closed forms and finite differences."""

from types import SimpleNamespace

import pytest
import torch
from differences import assert_gradient
from diffusers import DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.schedulers import scheduling_ddpm

from antipure_lib.core.diffusion import alpha_bars, predict, reverse_step
from antipure_lib.core.images import quantise, to_model
from antipure_lib.core.tiles import extract
from antipure_lib.protections.registry import protect
from antipure_lib.purifiers.diffpure import diffpure, purify_tiles
from antipure_lib.purifiers.gridpure import gridpure
from antipure_lib.purifiers.registry import PURIFIERS
from antipure_lib.runtime.noise import image_generators

DIFFUSION = [name for name, record in PURIFIERS.items() if "ddpm" in record.needs]


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
def test_a_single_tile_goes_through_diffusers_chain(make_ddpm, pictures, monkeypatch, kind):
    ddpm = make_ddpm(out_channels=6 if kind == "learned_range" else 3, variance_type=kind)
    x, t = pictures(1), 12
    generator = image_generators(3, 1)[0]
    scheduler = ddpm.scheduler
    with torch.no_grad():
        noise = torch.randn(x.shape, generator=generator)
        x_t = scheduler.add_noise(2 * x - 1, noise, torch.tensor([t - 1]))
        for s in reversed(range(t)):
            out = ddpm.unet(x_t, s).sample
            # Draw here: diffusers draws in the shape of a six-channel output.
            noise = torch.randn(x.shape, generator=generator) if s > 0 else torch.zeros_like(x)
            monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *a, noise=noise, **k: noise)
            x_t = scheduler.step(out, s, x_t).prev_sample
            assert out.shape[1] == (6 if kind == "learned_range" else 3)
    expected = ((x_t + 1) / 2).clamp(0, 1)
    with torch.no_grad():
        ours = purify_tiles(ddpm, x, t, image_generators(3, 1))
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(diffpure(ddpm, x, t, seed=3), quantise(expected), atol=1.01 / 255, rtol=0)


def test_purify_tiles_is_differentiable(tiny_ddpm64, pictures):
    x = (0.25 + pictures(1, 24, 24) / 2).double()
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    assert_gradient(lambda x: (v * purify_tiles(tiny_ddpm64, x, 3, image_generators(0, 1))).sum(), x)


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


@pytest.mark.parametrize("options", [{"iterations": 0}, {"iterations": 1.5}, {"rounds": 0}, {"gamma": 1}])
def test_bad_rounds_fail_at_the_call(tiny_ddpm, pictures, options):
    (argument,) = options
    for name in ("gridpure", "freqpure") if argument == "rounds" else ("gridpure",):
        with pytest.raises(ValueError, match=f"{argument} must be .*{options[argument]}"):
            PURIFIERS[name].run(tiny_ddpm, pictures(1), **options)


@pytest.mark.parametrize("name", DIFFUSION)
@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (DDPMScheduler(thresholding=True), "thresholding=True, which isn't supported"),
        (DDPMScheduler(prediction_type="v_prediction"), "'v_prediction'; use one that predicts epsilon"),
        (DDPMScheduler(variance_type="learned"), "variance_type 'learned' isn't supported"),
        (FlowMatchEulerDiscreteScheduler(), "FlowMatchEulerDiscreteScheduler has no alphas_cumprod"),
        (EDMEulerScheduler(), "EDMEulerScheduler has no alphas_cumprod"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_a_chain_does_not_compute_is_refused_at_the_call(tiny_ddpm, pictures, name, scheduler, message):
    ddpm = SimpleNamespace(unet=tiny_ddpm.unet, scheduler=scheduler)
    with pytest.raises(ValueError, match=message):
        PURIFIERS[name].run(ddpm, pictures(1))
    x, refusing = pictures(1), [lambda: protect("end-to-end", x, ddpm=ddpm, steps=1)]
    if "thresholding" in message or "variance" in message:  # which reverse steps alone need
        refusing.append(lambda: reverse_step(x, x, 3, scheduler, x))
    else:
        refusing += [lambda: predict(ddpm, x, 3), lambda: protect("antipure", x, ddpm=ddpm, steps=1)]
    for refused in refusing:
        with pytest.raises(ValueError, match=message):
            refused()
