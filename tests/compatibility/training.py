"""Training: divergence, adapters, prompts, arguments of a wrong type, values at the edge of their range."""

import torch

import antipure_lib as ap

from .helpers import ddpm, photos, picture, pipe
from .registry import refusal, situation

ETA = 8 / 255
LEARN = {"steps": 3, "batch": 1}
PROMPT = "a photo of a person"


def learned(model=None, **options):
    """A pipeline with a LoRA adapter."""
    return ap.lora(model or pipe(), photos(2), **LEARN | options)


def adapters(model, name=None) -> dict[str, torch.Tensor]:
    """The LoRA matrices of a UNet, all or one adapter's."""
    found = {key: p.detach().clone() for key, p in model.unet.named_parameters() if "lora_" in key}
    return {key: p for key, p in found.items() if name is None or f".{name}." in key}


def pictures(model) -> torch.Tensor:
    """What a pipeline draws."""
    return ap.generate(model, PROMPT, n=1, steps=2)


def attack(name, **options):
    """A protection that trains surrogates."""
    few = {"eta": ETA, "steps": 2, "surrogate_steps": 3, "n_prior": 1, "batch": 1}
    return ap.protect(name, photos(), pipe=pipe(), set_a=photos(2), **few | options)


def dreambooth(**options):
    """A short DreamBooth."""
    return ap.dreambooth(pipe(), photos(2), **LEARN | {"n_prior": 1} | options)


@situation(
    "dreambooth 31",
    "training",
    cases={
        "LoRA, lr=1e3": lambda: learned(lr=1e3),
        "DreamBooth, lr=1e3": lambda: dreambooth(lr=1e3),
    },
    slow=["DreamBooth, lr=1e3"],
)
def diverged(train):
    """A learning rate at which training diverges"""
    return refusal(train, "finite", "lr")


@situation("diffusers 712", "training")
def training_twice():
    """The same training again gives the same bits"""
    first, second = adapters(learned()), adapters(learned())
    assert all(first[key].equal(second[key]) for key in first)


def loaded(**options):
    """A pipeline whose adapter was loaded by diffusers, as users do."""
    ap.save_lora(learned(seed=1), "mine")
    model = pipe()
    model.load_lora_weights("mine", **options)
    return model


@situation("diffusers 6510", "adapters", cases={"default_0": {}, "named": {"adapter_name": "style"}})
def trained_on_top_of_a_loaded_adapter(options):
    """LoRA on a pipeline whose adapter was loaded"""
    model = loaded(**options)
    own = adapters(model)
    result = learned(model)
    kept = adapters(result)
    lost = [key for key in own if key not in kept or not kept[key].equal(own[key])]
    assert not lost, f"{len(lost)} of {len(own)} matrices of the loaded adapter changed"
    assert len(kept) == 2 * len(own), "no second adapter"
    assert len(result.unet.active_adapters()) == 2, f"active: {result.unet.active_adapters()}"
    assert len(adapters(model)) == len(own), "the caller's pipeline changed"


@situation("diffusers 6510", "adapters")
def loaded_adapter_is_saved_again():
    """save_lora of an adapter that was loaded"""
    model = loaded()
    ap.save_lora(model, "again")
    other = pipe()
    other.load_lora_weights("again")
    assert pictures(other).equal(pictures(model)), "another adapter"


@situation("diffusers 4919", "adapters")
def weighted_adapters():
    """Two adapters with weights of their own, and a third trained on top"""
    model = loaded(adapter_name="a")
    model.load_lora_weights("mine", adapter_name="b")
    model.set_adapters(["a", "b"], [0.5, 0.2])
    scales = _scales(model)
    kept = _scales(learned(model))
    lost = [key for key in scales if kept.get(key) != scales[key]]
    assert not lost, f"the weights of {len(lost)} matrices changed"


def _scales(model):
    layers = [
        (key, m) for key, m in model.unet.named_modules() if hasattr(m, "scaling") and hasattr(m, "lora_A")
    ]
    return {(key, name): m.scaling[name] for key, m in layers for name in m.scaling}


@situation("peft 1064", "adapters")
def fused_adapter():
    """LoRA on a pipeline whose adapter was fused into its weights"""
    model = loaded()
    model.fuse_lora()
    before = pictures(model)
    result = learned(model)
    assert pictures(model).equal(before), "the caller's pipeline changed"
    first = learned(model, lr=1e-12, decay=False)
    assert (pictures(first) - before).abs().max() < 2 / 255, "the fused adapter is gone"
    assert result is not None


@situation("own", "adapters", cases=["mist"])
def attack_with_an_adapter(name):
    """A protection against a pipeline with an adapter"""
    model = loaded()
    before = adapters(model)
    ap.protect(name, photos(), pipe=model, eta=ETA, steps=1)
    assert all(p.equal(before[key]) for key, p in adapters(model).items())


@situation("peft 940", "adapters")
def saved_and_loaded():
    """An adapter that is saved and loaded by diffusers draws the same"""
    model = learned(seed=1)
    ap.save_lora(model, "mine")
    other = pipe()
    other.load_lora_weights("mine")
    assert (pictures(other) - pictures(model)).abs().max() < 2 / 255


LONG = "a photo of a person with brown hair and a green background in the light of a late evening, sks"
WORDS = {
    "lora": lambda prompt: learned(prompt=prompt),
    "dreambooth": lambda prompt: dreambooth(prompt=prompt),
    "generate": lambda prompt: ap.generate(pipe(), prompt, n=1, steps=1),
}


@situation("diffusers 2136", "prompts", cases=WORDS, slow=["dreambooth"])
def prompt_longer_than_the_tokenizer_takes(use):
    """A prompt that the tokenizer would cut"""
    return refusal(lambda: use(LONG * 2), "prompt", "token")


@situation(
    "own",
    "prompts",
    cases={"Chinese": "一张照片", "emoji": "sks 🙂", "line break": "sks\nperson"},
)
def unusual_prompt(prompt):
    """An unusual prompt"""
    learned(prompt=prompt)


@situation("diffusers 2136", "prompts")
def longest_prompt():
    """A prompt that just fits"""
    model = pipe()
    words = " ".join(["sks"] * (model.tokenizer.model_max_length - 2))
    assert len(model.tokenizer(words).input_ids) == model.tokenizer.model_max_length
    learned(model, prompt=words)


X = picture(16, 16)


@situation("SimpleTuner 766", "arguments", cases={"misspelt": "to_outt.0", "a norm": "norm1"})
def one_layer_of_several(name):
    """One of several layers' names fits no layer that can be changed"""
    return refusal(lambda: learned(layers=["to_q", name]), "layers must", name)


CONFIGURED = {
    "quality": lambda text: ap.purify("jpeg", X, quality=text),
    "seed": lambda text: ap.diffpure(ddpm(), X, t=1, seed=text),
}


@situation("avocado-virt 36", "arguments", cases=CONFIGURED)
def number_of_a_configuration_file(use):
    """A number that a configuration file gives as a text"""
    word = next(name for name, known in CONFIGURED.items() if known is use)
    return refusal(lambda: use("75"), f"{word} must be a whole number, got '75'")


def stretched(low, high):
    """A picture that reaches just these values."""
    x = 0.2 + 0.5 * picture(16, 16)
    x[0, 0, 0], x[0, 0, 1] = low, high
    return x


SLIGHT = {
    "1.0000002": lambda: stretched(0.3, 1.0000002),
    "-1e-7": lambda: stretched(-1e-7, 0.9),
    "bilinear resize": lambda: torch.nn.functional.interpolate(
        stretched(0.3, 1.0000002)[None], scale_factor=2
    ),
    "mean and back": lambda: (stretched(0, 1) - 0.485) / 0.229 * 0.229 + 0.485,
}


@situation("torchattacks 145", "ranges", cases=SLIGHT)
def rounding_error(make):
    """A picture that leaves [0, 1] by a rounding error"""
    x = make()
    protected = ap.antipure(ddpm(), x, eta=ETA, steps=1)
    assert 0 <= protected.min() and protected.max() <= 1, "the result leaves [0, 1]"
    ap.save_image(x[0] if x.ndim == 4 else x, "a.png")
