"""Training: divergence, adapters, prompts, arguments of a wrong type, values at the edge of their range."""

from pathlib import Path

import numpy as np
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


def broken():
    """A pipeline with one NaN among its weights."""
    model = pipe()
    with torch.no_grad():
        next(model.unet.parameters()).view(-1)[0] = torch.nan
    return model


@situation(
    "dreambooth 31",
    "training",
    cases={
        "LoRA, lr=1e3": lambda: learned(lr=1e3),
        "DreamBooth, lr=1e3": lambda: dreambooth(lr=1e3),
        "FSMG's surrogate, lr=1e30": lambda: attack("fsmg", lr=1e30),
        "ASPL's surrogate, lr=1e30": lambda: attack("aspl", lr=1e30, steps=7),
    },
    slow=("DreamBooth, lr=1e3", "FSMG's surrogate, lr=1e30", "ASPL's surrogate, lr=1e30"),
)
def diverged(train):
    """A learning rate at which training diverges"""
    return refusal(train, "finite", "lr")


@situation(
    "own",
    "training",
    cases={
        "lr=inf": ("lr", lambda: learned(lr=float("inf"))),
        "lr=nan": ("lr", lambda: learned(lr=float("nan"))),
        "snr_gamma=nan": ("snr_gamma", lambda: learned(snr_gamma=float("nan"))),
        "prior_weight=inf": ("prior_weight", lambda: dreambooth(prior_weight=float("inf"))),
        "text_lr=inf": ("text_lr", lambda: dreambooth(text_lr=float("inf"))),
        "fsmg lr=inf": ("lr must", lambda: attack("fsmg", lr=float("inf"))),
        "aspl lr=inf": ("lr must", lambda: attack("aspl", lr=float("inf"))),
        "aspl lr=-1": ("lr must", lambda: attack("aspl", lr=-1.0)),
        "seed=-1": ("seed", lambda: learned(seed=-1)),
        "warmup=nan": ("warmup", lambda: dreambooth(warmup=float("nan"))),
    },
)
def hopeless_settings(case):
    """A setting with which training can't succeed is refused before it"""
    word, train = case
    return refusal(train, word)


@situation("own", "training", cases={"lora": lambda: ap.lora(broken(), photos(2), **LEARN)})
def broken_base_model(train):
    """A base model with a NaN among its weights"""
    return refusal(train, "finite")


@situation("dreambooth 31", "training")
def broken_adapter_is_saved():
    """An adapter that holds NaN is saved"""
    model = learned()
    with torch.no_grad():
        next(p for key, p in model.unet.named_parameters() if "lora_B" in key).fill_(torch.nan)
    told = refusal(lambda: ap.save_lora(model, "me"), "NaN")
    assert not Path("me").exists() or not list(Path("me").iterdir()), "a file was written"
    return told


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
def trained_twice():
    """lora(lora(pipe))"""
    first = learned(seed=1)
    second = learned(first, seed=2)
    assert len(adapters(second)) == 2 * len(adapters(first))
    assert not pictures(second).equal(pictures(first))


@situation("diffusers 6510", "adapters")
def loaded_adapter_is_saved_again():
    """save_lora of an adapter that was loaded"""
    model = loaded()
    ap.save_lora(model, "again")
    other = pipe()
    other.load_lora_weights("again")
    assert pictures(other).equal(pictures(model)), "another adapter"


@situation("diffusers 6510", "adapters")
def saved_alone():
    """save_lora after training on top of a loaded adapter, and both loaded elsewhere"""
    result = learned(loaded(adapter_name="style"), seed=2)
    ap.save_lora(result, "new")
    both = loaded(adapter_name="style")
    both.load_lora_weights("new", adapter_name="new")
    both.set_adapters(["style", "new"])
    assert (pictures(both) - pictures(result)).abs().max() < 2 / 255, "the two together draw something else"


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


@situation("own", "adapters")
def unloaded_adapter():
    """LoRA on a pipeline whose adapter was unloaded"""
    model = loaded()
    model.unload_lora_weights()
    ap.save_lora(learned(model), "fresh")


@situation("own", "adapters")
def adapter_switched_off():
    """LoRA on a pipeline whose adapter is disabled: it stays off"""
    model = loaded(adapter_name="style")
    model.disable_lora()
    result = learned(model, lr=1e-12, decay=False)
    assert (pictures(result) - pictures(pipe())).abs().max() < 2 / 255, "the disabled adapter draws along"


@situation("own", "adapters", cases={"mist": "mist", "advdm": "advdm", "photoguard": "photoguard"})
def attack_with_an_adapter(name):
    """A protection against a pipeline with an adapter"""
    model = loaded()
    before = adapters(model)
    ap.protect(name, photos(), pipe=model, eta=ETA, steps=1)
    assert all(p.equal(before[key]) for key, p in adapters(model).items())


@situation("own", "adapters")
def dreambooth_with_an_adapter():
    """DreamBooth of a pipeline with an adapter leaves the adapter alone"""
    model = loaded()
    before = adapters(model)
    after = adapters(ap.dreambooth(model, photos(2), n_prior=1, **LEARN))
    lost = [key for key in before if key not in after or not after[key].equal(before[key])]
    assert not lost, f"{len(lost)} of {len(before)} matrices of the loaded adapter changed"


@situation("peft 940", "adapters")
def saved_and_loaded():
    """An adapter that is saved and loaded by diffusers draws the same"""
    model = learned(seed=1)
    ap.save_lora(model, "mine")
    other = pipe()
    other.load_lora_weights("mine")
    assert (pictures(other) - pictures(model)).abs().max() < 2 / 255


@situation("own", "adapters")
def nothing_to_save():
    """save_lora of a pipeline without an adapter"""
    return refusal(lambda: ap.save_lora(pipe(), "me"), "no LoRA adapter")


LONG = "a photo of a person with brown hair and a green background in the light of a late evening, sks"
WORDS = {
    "lora": lambda prompt: learned(prompt=prompt),
    "dreambooth": lambda prompt: dreambooth(prompt=prompt),
    "mist": lambda prompt: ap.protect("mist", photos(), pipe=pipe(), eta=ETA, steps=1, prompt=prompt),
    "aspl": lambda prompt: attack("aspl", prompt=prompt),
    "generate": lambda prompt: ap.generate(pipe(), prompt, n=1, steps=1),
}


@situation("diffusers 2136", "prompts", cases=WORDS, slow=("dreambooth", "aspl"))
def prompt_longer_than_the_tokenizer_takes(use):
    """A prompt that the tokenizer would cut"""
    return refusal(lambda: use(LONG * 2), "prompt", "token")


@situation("own", "prompts", cases=WORDS, slow=("dreambooth", "aspl"))
def list_of_prompts(use):
    """A list of prompts where one is meant"""
    return refusal(lambda: use(["a photo of sks person", "a portrait"]), "prompt", "one text")


@situation("own", "prompts", cases={"None": None, "a number": 3, "bytes": b"sks"})
def prompt_of_another_type(prompt):
    """A prompt that is no text"""
    return refusal(lambda: learned(prompt=prompt), "prompt")


@situation(
    "own",
    "prompts",
    cases={"Chinese": "一张照片", "emoji": "sks 🙂", "line break": "sks\nperson"},
)
def unusual_prompt(prompt):
    """An unusual prompt"""
    learned(prompt=prompt)


@situation("own", "prompts")
def empty_prompt():
    """An empty prompt"""
    return refusal(lambda: learned(prompt=""), "prompt", "one text")


@situation("diffusers 2136", "prompts")
def longest_prompt():
    """A prompt that just fits"""
    model = pipe()
    words = " ".join(["sks"] * (model.tokenizer.model_max_length - 2))
    assert len(model.tokenizer(words).input_ids) == model.tokenizer.model_max_length
    learned(model, prompt=words)


X = picture(16, 16)
WRONG = {
    "seed=2**64": ("seed", lambda: learned(seed=2**64)),
    "antipure seed=2**64": ("seed", lambda: ap.antipure(ddpm(), X, eta=ETA, steps=1, seed=2**64)),
    "diffpure seed=2**200": ("seed", lambda: ap.diffpure(ddpm(), X, t=1, seed=2**200)),
    "generate seed=1.5": ("seed", lambda: ap.generate(pipe(), PROMPT, n=1, steps=1, seed=1.5)),
    "lora seed='0'": ("seed", lambda: learned(seed="0")),
    "lr='1e-4'": ("lr", lambda: learned(lr="1e-4")),
    "dreambooth lr=None": ("lr", lambda: dreambooth(lr=None)),
    "snr_gamma='5'": ("snr_gamma", lambda: learned(snr_gamma="5")),
    "prior_weight='1'": ("prior_weight", lambda: dreambooth(prior_weight="1")),
    "warmup='0'": ("warmup", lambda: dreambooth(warmup="0")),
    "rank='4'": ("rank", lambda: learned(rank="4")),
    "steps=2.5": ("steps", lambda: learned(steps=2.5)),
    "layers='to_q'": ("layers", lambda: learned(layers="to_q")),
    "layers that aren't there": ("layers", lambda: learned(layers=["nothing"])),
    "eta='8/255'": ("eta", lambda: ap.antipure(ddpm(), X, eta="8/255", steps=1)),
    "eta of two": ("eta", lambda: ap.antipure(ddpm(), X, eta=torch.tensor([0.1, 0.2]), steps=1)),
    "step_size='1/255'": ("step_size", lambda: ap.antipure(ddpm(), X, steps=1, step_size="1/255")),
    "step_size=nan": ("step_size", lambda: ap.antipure(ddpm(), X, steps=1, step_size=float("nan"))),
    "step_size=inf": ("step_size", lambda: ap.antipure(ddpm(), X, steps=1, step_size=float("inf"))),
    "momentum='0.9'": ("momentum", lambda: ap.antipure(ddpm(), X, steps=1, momentum="0.9")),
    "t_max=2.5": ("t_max", lambda: ap.antipure(ddpm(), X, steps=1, t_max=2.5)),
    "t_max='10'": ("t_max", lambda: ap.antipure(ddpm(), X, steps=1, t_max="10")),
    "patch='8'": ("patch", lambda: ap.antipure(ddpm(), X, steps=1, patch="8")),
    "weights=0.5": ("weights", lambda: ap.antipure(ddpm(), X, steps=1, weights=0.5)),
    "t='2'": ("t must", lambda: ap.diffpure(ddpm(), X, t="2")),
    "gamma='0.1'": ("gamma", lambda: ap.gridpure(ddpm(), X, t=1, iterations=1, gamma="0.1")),
    "radius='3'": ("radius", lambda: ap.freqpure(ddpm(), X, t=1, rounds=1, radius="3")),
    "phase_slack=None": ("phase_slack", lambda: ap.keep_low_frequencies(X[None], X[None], 3, None)),
    "sigma='1'": ("sigma", lambda: ap.gaussian_blur(X, "1")),
    "sigma=nan": ("sigma", lambda: ap.gaussian_blur(X, float("nan"))),
    "quality='75'": ("quality", lambda: ap.jpeg(X, "75")),
    "quality=75.5": ("quality", lambda: ap.jpeg(X, 75.5)),
    "factor='0.5'": ("factor", lambda: ap.resize_and_back(X, "0.5")),
    "purifier 75": ("name", lambda: ap.purify(75, X)),
    "photos as an array": ("x must be a torch.Tensor", lambda: ap.antipure(ddpm(), X.numpy(), steps=1)),
    "guidance='3'": ("guidance", lambda: ap.generate(pipe(), PROMPT, n=1, steps=1, guidance="3")),
    "device='gpu'": ("device", lambda: ap.load_ddpm(device="gpu")),
    "dtype='float16'": ("dtype", lambda: ap.load_ddpm(dtype="float16")),
    "models swapped": ("ddpm must", lambda: ap.antipure(pipe(), X, steps=1)),
    "size='64'": ("size", lambda: ap.load_image(ap.data_path("faces", "p01", "B1.png"), "64")),
}


@situation("torchattacks 145", "arguments", cases=WRONG)
def wrong_type(case):
    """An argument that isn't what it should be"""
    word, call = case
    return refusal(call, word if " " in word else f"{word} must")


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


NUMBERS = {
    "eta=torch.tensor(8/255)": lambda: ap.antipure(ddpm(), X, eta=torch.tensor(ETA), steps=1),
    "eta=np.float32": lambda: ap.antipure(ddpm(), X, eta=np.float32(ETA), steps=1),
    "eta=np.float64": lambda: ap.protect("random", X, eta=np.float64(ETA), steps=1),
    "seed=np.int64": lambda: ap.antipure(ddpm(), X, eta=ETA, steps=1, seed=np.int64(3)),
    "seed=torch.tensor(3)": lambda: ap.antipure(ddpm(), X, eta=ETA, steps=1, seed=torch.tensor(3)),
    "steps=np.int32": lambda: ap.antipure(ddpm(), X, eta=ETA, steps=np.int32(2)),
    "step_size=np.float32": lambda: ap.antipure(ddpm(), X, eta=ETA, steps=1, step_size=np.float32(1 / 255)),
    "step_size=torch.tensor": lambda: ap.antipure(
        ddpm(), X, eta=ETA, steps=1, step_size=torch.tensor(1 / 255)
    ),
    "weights=np.array": lambda: ap.antipure(ddpm(), X, eta=ETA, steps=1, weights=np.array([1, 0.5, 0.5])),
    "weights=torch.tensor": lambda: ap.antipure(
        ddpm(), X, eta=ETA, steps=1, weights=torch.tensor([1, 0.5, 0.5])
    ),
    "t=np.int64": lambda: ap.diffpure(ddpm(), X, t=np.int64(2)),
    "t=torch.tensor(2)": lambda: ap.diffpure(ddpm(), X, t=torch.tensor(2)),
    "lr=torch.tensor": lambda: learned(lr=torch.tensor(1e-3)),
    "rank=np.int64": lambda: learned(rank=np.int64(4)),
    "prior_weight=1": lambda: dreambooth(prior_weight=1),
    "quality=np.int64": lambda: ap.jpeg(X, np.int64(75)),
    "sigma=torch.tensor": lambda: ap.gaussian_blur(X, torch.tensor(1.0)),
}


@situation("torchattacks 145", "arguments", cases=NUMBERS)
def number_of_another_kind(call):
    """A number that NumPy or torch made"""
    call()


def stretched(low, high):
    """A picture that reaches just these values."""
    x = 0.2 + 0.5 * picture(16, 16)
    x[0, 0, 0], x[0, 0, 1] = low, high
    return x


SLIGHT = {
    "1.0000002": lambda: stretched(0.3, 1.0000002),
    "-1e-7": lambda: stretched(-1e-7, 0.9),
    "1 + 9e-6": lambda: stretched(0.0, 1 + 9e-6),
    "float64": lambda: stretched(0.0, 1.0).double() * (1 + 1e-12),
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


@situation(
    "torchattacks 145",
    "ranges",
    cases={"1.0001": (0.3, 1.0001), "-0.0002": (-0.0002, 1.0), "1.00002": (0, 1.00002)},
)
def outside_by_more(bounds):
    """A picture that leaves [0, 1] by more: the message shows by how much"""
    worst = max(bounds, key=lambda bound: abs(bound - 0.5))
    return refusal(lambda: ap.antipure(ddpm(), stretched(*bounds), eta=ETA, steps=1), str(worst))


@situation(
    "own",
    "ranges",
    cases={
        "[-1, 1]": (lambda: 2 * X - 1, "[0, 1]"),
        "[0, 255]": (lambda: 255 * X, "255"),
        "uint8": (lambda: (255 * X).byte(), "float"),
        "half precision": (lambda: X.half(), "float32"),
        "NaN": (lambda: stretched(0, torch.nan), "NaN"),
        "channels last": (lambda: X.permute(1, 2, 0), "3×H×W"),
        "with alpha": (lambda: torch.rand(4, 16, 16), "RGB"),
        "empty": (lambda: X[:, :0], "3×H×W"),
    },
)
def other_range(case):
    """Pictures in another range or layout"""
    make, word = case
    return refusal(lambda: ap.antipure(ddpm(), make(), eta=ETA, steps=1), word)


@situation("own", "ranges", cases={"η = 1/255": 1 / 255, "η = 1": 1.0})
def smallest_and_largest_budget(eta):
    """The smallest and the largest budget"""
    change = (ap.antipure(ddpm(), X, eta=eta, steps=2) - X).abs().max()
    assert change <= eta + 1e-6
