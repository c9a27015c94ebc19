"""The learner that adapts its autoencoder first."""

import copy

import pytest
import torch
from tiny import changed, photos, weights

from antipure_lib.customization.adapted import adapted_lora_steps, fit_autoencoder
from antipure_lib.customization.latent_diffusion import posterior
from antipure_lib.customization.lora import lora


def error(vae, images):
    """Mean squared error of a reconstruction, pixels in [−1, 1]."""
    with torch.no_grad():
        return (
            (vae.decode(vae.encode(2 * images - 1).latent_dist.mean).sample - 2 * images + 1).square().mean()
        )


def test_the_fit_starts_at_the_autoencoders_own_error_and_lowers_it(pipe):
    vae, images = copy.deepcopy(pipe.vae), photos(2)
    first, *_ = losses = list(fit_autoencoder(vae, images, steps=30, lr=1e-2, rank=2, seed=0))
    torch.testing.assert_close(first, error(pipe.vae, images))
    assert error(vae, images) < 0.8 * first and len(losses) == 30
    assert not any(parameter.requires_grad for parameter in vae.parameters())


def test_lora_learns_the_latents_of_the_fitted_encoder_and_the_pipeline_stays(pipe):
    before, images = weights(pipe), photos(2)
    *fit, last = adapted_lora_steps(pipe, images, fit_steps=2, fit_lr=1e-2, steps=1)
    assert changed(before, weights(pipe)) == set()
    assert [(state.step, set(state.losses)) for state in fit] == [(1, {"autoencoder"}), (2, {"autoencoder"})]
    assert last.step == 3 and set(last.losses) == {"instance"}
    theirs, ours = (posterior(model, images)[0] for model in (last.pipe, pipe))
    assert not torch.allclose(theirs, ours, atol=1e-4)


def test_a_rate_too_small_to_matter_is_plain_lora(pipe):
    images, options = photos(2), {"steps": 2, "seed": 3}
    *_, last = adapted_lora_steps(pipe, images, fit_steps=1, fit_lr=1e-12, **options)
    plain = lora(pipe, images, **options)
    for ours, theirs in zip(last.pipe.unet.parameters(), plain.unet.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("bad", [{"fit_steps": 0}, {"fit_lr": 0.0}, {"fit_rank": 0}, {"rank": 0}])
def test_bad_numbers_are_named_before_the_work(pipe, bad):
    (name,) = bad
    with pytest.raises(ValueError, match=name):
        adapted_lora_steps(pipe, photos(1), **bad)
