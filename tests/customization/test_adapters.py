"""LoRA on a pipeline that has adapters: they stay, bit for bit; a new one is trained on top, saved alone."""

import warnings

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from tiny import photos, tiny_stable_diffusion

from antipure_lib.customization.dreambooth import dreambooth
from antipure_lib.customization.generate import generate
from antipure_lib.customization.lora import ATTENTION, lora, save_lora

PROMPT = "a photo of sks person"
HOW = {"steps": 2, "lr": 1e-1, "layers": ATTENTION}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two saved adapters of the tiny model."""
    made = {}
    for name, rank in (("first", 2), ("second", 4)):
        trained = lora(tiny_stable_diffusion(), photos(seed=rank), rank=rank, seed=rank, **HOW)
        made[name] = save_lora(trained, tmp_path_factory.mktemp(name)).parent
    return made


def loaded(folders, *names):
    pipe = tiny_stable_diffusion()
    for name in names:
        pipe.load_lora_weights(folders[name], adapter_name=name)
    if names:
        pipe.set_adapters(list(names), [0.5, 2.0][: len(names)])
    return pipe


def loaded_then(folders, method, **options):
    pipe = loaded(folders, "first")
    getattr(pipe, method)(**options)
    return pipe


def trained_before(folders):
    return lora(tiny_stable_diffusion(), photos(seed=5), rank=3, **HOW)


def loaded_on_trained(folders):
    pipe = trained_before(folders)
    pipe.load_lora_weights(folders["first"], adapter_name="another")
    return pipe


ORDERS = {
    "load": lambda folders: loaded(folders, "first"),
    "load, load": lambda folders: loaded(folders, "first", "second"),
    "load, disable": lambda folders: loaded_then(folders, "disable_lora"),
    "load, fuse": lambda folders: loaded_then(folders, "fuse_lora", adapter_names=["first"]),
    "load, unload": lambda folders: loaded_then(folders, "unload_lora_weights"),
    "train": trained_before,
    "load, train": lambda folders: lora(loaded(folders, "second"), photos(), **HOW),
    "train, load": loaded_on_trained,
}


def matrices(pipe):
    names = list(getattr(pipe.unet, "peft_config", {}))
    found = {name: get_peft_model_state_dict(pipe.unet, adapter_name=name) for name in names}
    return {name: {key: value.clone() for key, value in state.items()} for name, state in found.items()}


def scales(pipe, names):
    modules = pipe.unet.named_modules()
    return {(key, n): m.scaling[n] for key, m in modules for n in names if n in getattr(m, "scaling", {})}


@pytest.mark.parametrize("order", ORDERS)
def test_what_was_there_stays_and_the_new_one_is_trained_on_top(folders, tmp_path, order):
    pipe = ORDERS[order](folders)
    before, drawn = matrices(pipe), generate(pipe, PROMPT, n=1, steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained = lora(pipe, photos(), **HOW)
    after = matrices(trained)
    *known, new = after
    assert known == ([] if order == "load, fuse" else list(before)) and new not in before
    for name in known:
        assert all(torch.equal(after[name][key], value) for key, value in before[name].items()), name
    assert scales(trained, known) == scales(pipe, known)
    assert any(value.any() for key, value in after[new].items() if "lora_B" in key)
    # The new one's start, B = 0, is the pipeline as it was used; what is learned changes it.
    fresh = lora(pipe, photos(), **HOW | {"lr": 1e-30})
    torch.testing.assert_close(generate(fresh, PROMPT, n=1, steps=2), drawn, atol=1e-5, rtol=0)
    assert not torch.allclose(generate(trained, PROMPT, n=1, steps=2), drawn, atol=1e-3)
    saved = load_file(save_lora(trained, tmp_path))
    assert len(saved) == len(after[new])
    assert all(any(torch.equal(value, own) for own in after[new].values()) for value in saved.values())
    assert matrices(pipe).keys() == before.keys()  # the caller's pipeline


@pytest.mark.parametrize("order", ["load", "load, load", "train, load"])
def test_a_loaded_adapter_is_saved_as_it_was(folders, tmp_path, order):
    pipe = ORDERS[order](folders)
    last = list(pipe.unet.peft_config)[-1]
    there = folders["second" if last == "second" else "first"]
    saved, original = load_file(save_lora(pipe, tmp_path)), load_file(next(there.glob("*.safetensors")))
    assert saved.keys() == original.keys() and all(torch.equal(saved[key], original[key]) for key in saved)


@pytest.mark.parametrize("order", ["load", "load, load", "train"])
def test_dreambooth_trains_no_adapter(folders, order):
    pipe = ORDERS[order](folders)
    before, trained = matrices(pipe), dreambooth(pipe, photos(), steps=1, prior_weight=0)
    for name, state in matrices(trained).items():
        assert all(torch.equal(before[name][key], value) for key, value in state.items())
    assert not torch.equal(trained.unet.conv_out.weight, pipe.unet.conv_out.weight)
