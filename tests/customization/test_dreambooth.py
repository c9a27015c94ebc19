"""DreamBooth against a loop written with diffusers' and torch's own functions, on a tiny random model."""

import copy

import pytest
import torch
from latent_references import CLASS_PROMPT, PROMPT, generator, train
from tiny import changed, photos, tiny_stable_diffusion, weights

from antipure_lib.customization.dreambooth import dreambooth, dreambooth_steps
from antipure_lib.customization.generate import generate
from antipure_lib.models.checkpoints import load_stable_diffusion

FEW = {"steps": 1, "prior_weight": 0}


@pytest.mark.parametrize(
    ("prediction_type", "decay", "text_lr", "gamma", "warmup"),
    [
        ("epsilon", True, None, 5.0, 2),
        ("epsilon", True, None, None, 0),
        ("v_prediction", False, 5e-3, 2.0, 3),
    ],
)
def test_dreambooth_equals_a_loop_written_with_diffusers(prediction_type, decay, text_lr, gamma, warmup):
    pipe = tiny_stable_diffusion(prediction_type=prediction_type)
    instance, prior = photos(4), photos(4, seed=1)
    options = {"steps": 3, "lr": 1e-3, "text_lr": text_lr, "prior_weight": 0.7, "seed": 3}
    options |= {"decay": decay, "warmup": warmup / 3}
    more = {key: options[key] for key in ("steps", "lr", "text_lr", "prior_weight", "decay")}
    expected = copy.deepcopy(pipe)
    losses = train(expected, instance, prior, generator(3), gamma=gamma, warmup=warmup, **more)
    states = list(dreambooth_steps(pipe, instance, prior_images=prior, snr_gamma=gamma, **options))
    assert [state.step for state in states] == [1, 2, 3] and set(states[0].losses) == {"instance", "prior"}
    assert torch.allclose(torch.stack([state.loss for state in states]), torch.tensor(losses), rtol=1e-4)
    theirs, ours = weights(expected), weights(states[-1].pipe)
    # Adam's first steps divide by |gradient|: where that is all but zero, rounding decides the direction.
    near = torch.cat([((theirs[name] - ours[name]).abs() < 1e-4).flatten() for name in ours])
    assert near.float().mean() > 0.99


@pytest.mark.parametrize("text_lr", [None, 1e-4, 0])
def test_dreambooth_trains_the_unet_and_if_asked_the_text_encoder(pipe, text_lr):
    trained = dreambooth(pipe, photos(), steps=2, lr=1e-3, prior_weight=0, text_lr=text_lr)
    expected = {"unet"} if text_lr == 0 else {"unet", "text_encoder"}
    assert changed(weights(pipe), weights(trained)) == expected


def test_prior_is_generated_from_the_class_prompt(pipe):
    generated = generate(pipe, CLASS_PROMPT, n=2, seed=4)
    options = {"steps": 2, "seed": 4, "batch": 2}
    own = list(dreambooth_steps(pipe, photos(), n_prior=2, **options))
    given = list(dreambooth_steps(pipe, photos(), prior_images=generated, **options))
    assert [s.loss.item() for s in own] == [s.loss.item() for s in given]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_the_precision_of_the_work_not_of_the_weights(pipe, dtype):
    options = {"steps": 2, "lr": 1e-3, "prior_images": photos(4, seed=1)}
    full = list(dreambooth_steps(pipe, photos(), **options))
    half = list(dreambooth_steps(pipe, photos(), dtype=dtype, **options))
    assert half[0].loss.item() == pytest.approx(full[0].loss.item(), rel=0.02)
    assert half[0].loss != full[0].loss
    assert {p.dtype for p in half[-1].pipe.unet.parameters()} == {torch.float32}
    assert "unet" in changed(weights(pipe), weights(half[-1].pipe))
    images = generate(pipe, PROMPT, n=2, steps=3, dtype=dtype)
    assert images.dtype == torch.float32
    assert torch.allclose(images, generate(pipe, PROMPT, n=2, steps=3), atol=0.05)


def test_a_half_precision_pipeline_is_trained_in_float32(pipe):
    half = copy.deepcopy(pipe)
    for model in (half.vae, half.unet, half.text_encoder):
        model.bfloat16()
    trained = dreambooth(half, photos(), steps=1, prior_weight=0)
    assert {p.dtype for p in trained.unet.parameters()} == {torch.float32}
    assert {p.dtype for p in half.unet.parameters()} == {torch.bfloat16}


def test_saved_dreambooth_is_read_back_by_diffusers(pipe, tmp_path):
    trained = dreambooth(pipe, photos(), **FEW)
    trained.save_pretrained(tmp_path)
    read = load_stable_diffusion(str(tmp_path), device="cpu")
    assert torch.equal(generate(read, PROMPT, n=2, steps=3), generate(trained, PROMPT, n=2, steps=3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text_lr": -1}, "text_lr must be positive"),
        ({"snr_gamma": 0}, "snr_gamma must be positive"),
        ({"warmup": 30}, "warmup must be a share"),
        ({"prior_weight": -1}, "prior_weight must not be negative"),
        ({"prior_images": photos()[..., :8]}, "prior_images: 16×8 pixels.*size=16"),
        ({"prior_images": photos() * 255}, "prior_images must lie in"),
    ],
)
def test_dreambooth_names_a_bad_argument_at_once(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        dreambooth_steps(pipe, photos(), **options)


def test_one_photo_is_enough(pipe):
    (state,) = dreambooth_steps(pipe, photos(1)[0], batch=4, **FEW)
    assert state.loss.isfinite()
