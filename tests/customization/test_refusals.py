"""What training refuses or names, by every customization and every surrogate: divergence, prompts, modes."""

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
LATENT = [name for name, protection in PROTECTIONS.items() if "pipe" in protection.needs]
TRAINED = [*CUSTOMIZERS, *SURROGATES]


def loop(name, pipe, **options):
    if name in CUSTOMIZERS:
        return CUSTOMIZERS[name].steps(pipe, photos(2), **CUSTOMIZERS[name].quick | options)
    given = {"pipe": pipe, "set_a": photos(2, seed=3)}
    return protect_steps(name, photos(1), **given, **{"steps": 2} | PROTECTIONS[name].quick | options)


@pytest.fixture(scope="module")
def pipe():
    return tiny_stable_diffusion()


# divergence


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("lr", [1e3, 1e10, 1e30])
def test_a_diverged_training_is_no_result(pipe, name, lr):
    more = {"surrogate_steps": 3, "round_steps": 1} if name in SURROGATES else {"steps": 3}
    more.pop("round_steps" if name == "fsmg" else "", None)
    try:
        *_, last = loop(name, pipe, lr=lr, **more)
    except RuntimeError as error:
        assert "training diverged" in str(error) and f"lower lr={lr}" in str(error)
        return
    assert lr < 1e30
    found = weights(last.pipe).values() if name in CUSTOMIZERS else [last.x_adv, *last.losses.values()]
    assert all(value.isfinite().all() for value in found)


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(
    "lr", [float("inf"), float("-inf"), float("nan"), "1e-4", None, True, 0, -1e-3, [1e-3]]
)
def test_a_rate_that_is_none_is_named_before_the_training(pipe, name, lr):
    with pytest.raises(ValueError, match="^lr must be"):
        loop(name, pipe, lr=lr)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), "1", True])
@pytest.mark.parametrize("argument", ["text_lr", "snr_gamma", "prior_weight", "warmup"])
def test_dreambooths_other_numbers_are_named(pipe, argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must be"):
        loop("dreambooth", pipe, **{argument: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_adapter_of_no_numbers_is_not_saved(pipe, tmp_path, value):
    trained = lora(pipe, photos(), steps=1)
    with torch.no_grad():
        next(p for name, p in trained.unet.named_parameters() if "lora_B" in name)[0] = value
    with pytest.raises(ValueError, match="NaN or infinite weights; train it again"):
        save_lora(trained, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


# gradients switched off


@pytest.mark.parametrize("name", [*TRAINED, "advdm", "photoguard", "mist"])
@pytest.mark.parametrize("mode", ["no_grad", "set_grad_enabled", "halfway"])
def test_switched_off_gradients_hinder_nothing_and_stay_off(pipe, name, mode):
    expected = list(loop(name, pipe))[-1]
    states = loop(name, pipe)
    if mode == "set_grad_enabled":
        torch.set_grad_enabled(False)
    try:
        with torch.no_grad() if mode == "no_grad" else torch.set_grad_enabled(mode != "set_grad_enabled"):
            if mode == "halfway":
                next(states)
                assert torch.is_grad_enabled()
                torch.set_grad_enabled(False)
            *_, last = states
            assert not torch.is_grad_enabled()
            stopped = loop(name, pipe)
            next(stopped)
            assert not torch.is_grad_enabled()
            stopped.close()
            assert not torch.is_grad_enabled()
    finally:
        torch.set_grad_enabled(True)
    if name in CUSTOMIZERS:
        assert changed(weights(expected.pipe), weights(last.pipe)) == set()
    else:
        assert torch.equal(expected.x_adv, last.x_adv)


# prompts


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "a photo of a person with brown hair green background sks",
            "prompt has .* tokens and the model reads 12",
        ),
        ("x" * 400, "prompt has .* tokens and the model reads 12; shorten 'xxx"),
        ([PROMPT, PROMPT], "prompt must be one text, got .*call again for each prompt"),
        ((PROMPT,), "prompt must be one text"),
        ("", "prompt must be one text, got ''"),
        (" \n", "prompt must be one text"),
        (None, "prompt must be one text, got None"),
        (PROMPT.encode(), "prompt must be one text, got b'"),
        (7, "prompt must be one text, got 7"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_a_prompt_that_the_model_cannot_read_whole_is_refused_at_once(pipe, prompt, message):
    for name in (*CUSTOMIZERS, *(name for name in LATENT if name != "photoguard")):
        with pytest.raises(ValueError, match=message):
            loop(name, pipe, prompt=prompt)
    with pytest.raises(ValueError, match=message):
        generate(pipe, prompt, n=1, steps=1)


def test_a_tokenizer_that_knows_no_limit_is_held_to_the_encoders(pipe):
    other = tiny_stable_diffusion()
    other.tokenizer.model_max_length = int(1e30)
    with pytest.raises(ValueError, match="the model reads 12"):
        loop("lora", other, prompt="a " * 40)
    assert changed(weights(*_pipes(loop("lora", other))), weights(*_pipes(loop("lora", pipe)))) == set()


def _pipes(states):
    return [list(states)[-1].pipe]


# schedulers


@pytest.mark.parametrize("name", [*CUSTOMIZERS, *LATENT])
@pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, EDMEulerScheduler])
def test_a_scheduler_without_noise_levels_is_named(name, kind):
    other = tiny_stable_diffusion()
    other.scheduler = kind()
    with pytest.raises(ValueError, match=f"{kind.__name__} has no alphas_cumprod"):
        loop(name, other)
