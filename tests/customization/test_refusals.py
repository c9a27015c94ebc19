"""What training refuses or names, by every customization and every surrogate: divergence, prompts, modes."""

from functools import cache

import pytest
import torch
from diffusers import EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from tiny import changed, photos, tiny_stable_diffusion, weights

from antipure_lib.customization.generate import generate
from antipure_lib.customization.lora import lora, save_lora
from antipure_lib.customization.registry import CUSTOMIZERS
from antipure_lib.protections.registry import PROTECTIONS, protect_steps

PROMPT = "a photo of sks person"
SURROGATES = [name for name, protection in PROTECTIONS.items() if "set_a" in protection.needs]
LATENT = [name for name, p in PROTECTIONS.items() if "pipe" in p.needs and "ddpm" not in p.needs]
TRAINED = [*CUSTOMIZERS, *SURROGATES]
NO_NUMBERS = [float("inf"), float("-inf"), float("nan"), "1e-4", True]


def loop(name, pipe, **options):
    if name in CUSTOMIZERS:
        prior = {"prior_images": photos(2, seed=4)} if CUSTOMIZERS[name].needs_prior else {}
        return CUSTOMIZERS[name].steps(pipe, photos(2), **dict(CUSTOMIZERS[name].quick) | prior | options)
    given = {"pipe": pipe, "set_a": photos(2, seed=3)}
    return protect_steps(name, photos(1), **given, **{"steps": 2} | PROTECTIONS[name].quick | options)


def result(name, state):
    return weights(state.pipe) if name in CUSTOMIZERS else {"x_adv": state.x_adv, **state.losses}


@cache
def usual(name):
    """What the loop ends with when nothing is switched off."""
    return result(name, list(loop(name, tiny_stable_diffusion()))[-1])


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("lr", [1e3, 1e30])
def test_a_diverged_training_is_no_result(pipe, name, lr):
    more = {"surrogate_steps": 3} if name in SURROGATES else {"steps": 3}
    try:
        *_, last = loop(name, pipe, lr=lr, **more)
    except RuntimeError as error:
        assert "training diverged" in str(error) and f"lower lr={lr}" in str(error)
        return
    assert lr < 1e30 and all(value.isfinite().all() for value in result(name, last).values())


@pytest.mark.parametrize("name", TRAINED)
def test_a_rate_that_is_none_is_named_before_the_training(pipe, name):
    for lr in [*NO_NUMBERS, None, 0, -1e-3, [1e-3]]:
        with pytest.raises(ValueError, match="^lr must be"):
            loop(name, pipe, lr=lr)


@pytest.mark.parametrize("argument", ["text_lr", "snr_gamma", "prior_weight", "warmup"])
def test_dreambooths_other_numbers_are_named(pipe, argument):
    for value in NO_NUMBERS:
        with pytest.raises(ValueError, match=f"^{argument} must be"):
            loop("dreambooth", pipe, **{argument: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_of_no_numbers_is_not_saved(pipe, tmp_path, value):
    trained = lora(pipe, photos(), steps=1)
    with torch.no_grad():
        next(p for name, p in trained.unet.named_parameters() if "lora_B" in name)[0] = value
    with pytest.raises(ValueError, match="NaN or infinite weights; train it again"):
        save_lora(trained, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [*TRAINED, "advdm", "photoguard", "mist"])
@pytest.mark.parametrize("halfway", [False, True])
def test_switched_off_gradients_hinder_nothing_and_stay_off(pipe, name, halfway):
    states = loop(name, pipe)
    if halfway:
        next(states)
        assert torch.is_grad_enabled()
    with torch.no_grad():
        *_, last = states
        assert not torch.is_grad_enabled()
        stopped = loop(name, pipe)
        next(stopped)
        assert not torch.is_grad_enabled()
        stopped.close()
        assert not torch.is_grad_enabled()
    found = result(name, last)
    assert all(torch.equal(value, found[key]) for key, value in usual(name).items())


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a photo of a person with brown hair green background sks", "tokens and the model reads 12"),
        ("x" * 400, "prompt has .* tokens and the model reads 12; shorten 'xxx"),
        ([PROMPT, PROMPT], "prompt must be one text, got .*call again for each prompt"),
        (" \n", "prompt must be one text"),
        (None, "prompt must be one text, got None"),
        (PROMPT.encode(), "prompt must be one text, got b'"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_prompt_that_the_model_cannot_read_whole_is_refused_at_once(pipe, prompt, message):
    for name in (*CUSTOMIZERS, *(name for name in LATENT if name != "photoguard")):
        with pytest.raises(ValueError, match=message):
            loop(name, pipe, prompt=prompt)
    with pytest.raises(ValueError, match=message):
        generate(pipe, prompt, n=1, steps=1)


def test_a_tokenizer_that_knows_no_limit_is_held_to_the_encoders():
    other = tiny_stable_diffusion()
    other.tokenizer.model_max_length = int(1e30)
    with pytest.raises(ValueError, match="the model reads 12"):
        loop("lora", other, prompt="a " * 40)
    *_, last = loop("lora", other)
    assert changed(usual("lora"), weights(last.pipe)) == set()


@pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, EDMEulerScheduler])
def test_a_scheduler_without_noise_levels_is_named(kind):
    other = tiny_stable_diffusion()
    other.scheduler = kind()
    for name in (*CUSTOMIZERS, *LATENT):
        with pytest.raises(ValueError, match=f"{kind.__name__} has no alphas_cumprod"):
            loop(name, other)
