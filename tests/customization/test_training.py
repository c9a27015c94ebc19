"""What every customization shares: the loss's weights, seeds, memory, refusals."""

import pytest
import torch
import torch.nn.functional as F
from examples import run_example
from tiny import changed, photos, tiny_stable_diffusion, weights

from antipure_lib.core.diffusion import alpha_bars
from antipure_lib.customization import registry
from antipure_lib.customization.dreambooth import dreambooth, dreambooth_steps
from antipure_lib.customization.full_size import FULL_SIZE
from antipure_lib.customization.generate import generate
from antipure_lib.customization.lora import lora, lora_steps
from antipure_lib.customization.registry import CUSTOMIZERS
from antipure_lib.customization.training import timestep_weights
from antipure_lib.runtime.memory import peak_bytes

PROMPT, CLASS_PROMPT = "a photo of sks person", "a photo of a person"


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weighs_the_error_of_the_image(kind):
    """Whatever the model predicts, min-SNR's loss is min(SNR, γ)·‖ẑ0 − z0‖²."""
    scheduler, gamma = tiny_stable_diffusion(prediction_type=kind).scheduler, 5.0
    alpha_bar, g = alpha_bars(scheduler).double(), torch.Generator().manual_seed(0)
    z0, eps, predicted = torch.randn((3, 1000), generator=g, dtype=torch.float64)
    z_t = alpha_bar.sqrt() * z0 + (1 - alpha_bar).sqrt() * eps
    if kind == "epsilon":
        target, z0_hat = eps, (z_t - (1 - alpha_bar).sqrt() * predicted) / alpha_bar.sqrt()
    else:
        target = alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * z0
        z0_hat = alpha_bar.sqrt() * z_t - (1 - alpha_bar).sqrt() * predicted
    found = timestep_weights(scheduler, alpha_bar, gamma) * (predicted - target).square()
    expected = (alpha_bar / (1 - alpha_bar)).clamp(max=gamma) * (z0_hat - z0).square()
    assert torch.allclose(found, expected, rtol=1e-9)
    assert torch.equal(timestep_weights(scheduler, alpha_bar, None), torch.ones_like(alpha_bar))


@pytest.mark.parametrize("name", CUSTOMIZERS)
def test_same_seed_same_bits(pipe, name):
    state, options = torch.get_rng_state(), dict(CUSTOMIZERS[name].quick) | {"lr": 1e-2, "batch": 3}
    first, again, other = (weights(CUSTOMIZERS[name](pipe, photos(), seed=s, **options)) for s in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert changed(first, again) == set() and "unet" in changed(first, other)


def error(pipe, images, prompt=PROMPT) -> float:
    """The denoising loss of images under a prompt, on fixed noise at many timesteps."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        mean = pipe.vae.encode(2 * images - 1).latent_dist.mean
        z0 = pipe.vae.config.scaling_factor * mean.repeat(16, 1, 1, 1)
        eps = torch.randn(z0.shape, generator=generator)
        t = torch.randint(0, 1000, (len(z0),), generator=generator)
        c = pipe.encode_prompt(prompt, "cpu", len(z0), do_classifier_free_guidance=False)[0]
        return F.mse_loss(pipe.unet(pipe.scheduler.add_noise(z0, eps, t), t, c).sample, eps).item()


def test_dreambooth_and_lora_learn(pipe):
    images = photos(2)
    before = error(pipe, images)
    assert error(dreambooth(pipe, images, steps=20, lr=3e-3, prior_weight=0), images) < 0.8 * before
    assert error(lora(pipe, images, steps=20, lr=1e-1), images) < 0.98 * before


@pytest.mark.parametrize("name", list(FULL_SIZE))
def test_full_size_values_are_arguments(pipe, name):
    few = {"steps": 1} | ({"n_prior": 1} if name == "dreambooth" else {})
    (state,) = CUSTOMIZERS[name].steps(pipe, photos(), **FULL_SIZE[name] | few)
    assert state.loss.isfinite()


@pytest.mark.parametrize("train", [dreambooth_steps, lora_steps])
def test_gradient_checkpointing_saves_memory_and_changes_no_bit(pipe, train):
    prior = {"prior_images": photos(4, seed=1)} if train is dreambooth_steps else {}
    weights_of, peaks = [], []
    for checkpointing in (False, True):
        states = train(pipe, photos(), steps=2, batch=16, gradient_checkpointing=checkpointing, **prior)
        next(states)
        peaks.append(peak_bytes(lambda states=states: weights_of.append(weights(next(states).pipe))))
    assert changed(*weights_of) == set()
    assert peaks[1] < 0.9 * peaks[0]


COUNTS = {generate: ("n", "steps", "batch"), lora_steps: ("steps", "batch", "rank")}
COUNTS[dreambooth_steps] = ("steps", "batch", "n_prior")


@pytest.mark.parametrize("run", COUNTS)
def test_a_bad_count_is_named_at_once(pipe, run):
    given = PROMPT if run is generate else photos()
    for argument in COUNTS[run]:
        with pytest.raises(ValueError, match=f"^{argument} must be at least 1"):
            run(pipe, given, **{argument: 0})


@pytest.mark.parametrize("train", [dreambooth_steps, lora_steps])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(4, 3, 24, 24), "images: 24×24 pixels.*size=16"),
        (torch.full((4, 3, 16, 16), torch.nan), "images holds NaN"),
        (photos() * 2 - 1, "images must lie in"),
    ],
)
def test_bad_photos_are_refused_at_once(pipe, train, images, message):
    with pytest.raises(ValueError, match=message):
        train(pipe, images)


def test_the_example_of_a_new_customization_works():
    run_example(registry)
    assert "small-lora" not in CUSTOMIZERS
