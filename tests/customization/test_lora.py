"""LoRA: which layers change and by what rank, and whether diffusers reads it back."""

import pytest
import torch
from peft import get_peft_model_state_dict
from tiny import changed, photos, tiny_stable_diffusion, weights

from antipure_lib.customization.generate import generate
from antipure_lib.customization.latent_diffusion import latents, working_copy
from antipure_lib.customization.lora import ATTENTION, EVERY_LAYER, add_lora, lora, lora_steps, save_lora
from antipure_lib.customization.training import train_steps

PROMPT = "a photo of sks person"


@pytest.mark.parametrize("layers", [ATTENTION, EVERY_LAYER])
def test_lora_changes_the_asked_layers_by_the_asked_rank(pipe, layers):
    before = weights(pipe)
    trained = lora(pipe, photos(), steps=3, lr=1e-2, rank=2, layers=layers)
    assert changed(before, weights(pipe)) == set()
    names = [name for name in trained.unet.state_dict() if "lora_" in name]
    modules = {name.split(".lora_")[0] for name in names}
    asked = {name for name, _ in pipe.unet.named_modules() if name.endswith(tuple("." + e for e in layers))}
    kinds = {type(pipe.unet.get_submodule(name)) for name in asked}
    assert kinds == ({torch.nn.Linear} if layers == ATTENTION else {torch.nn.Linear, torch.nn.Conv2d})
    assert modules == asked and len(names) == 2 * len(asked)

    trained.unet.fuse_lora()
    trained.unet.unload_lora()
    after = weights(trained)
    assert set(after) == set(before)
    for name in before:
        delta = after[name] - before[name]
        if name.removeprefix("unet.").removesuffix(".weight") in asked:
            assert torch.linalg.matrix_rank(delta.flatten(1), atol=1e-6) == 2, name
        else:
            assert torch.equal(delta, torch.zeros_like(delta)), name


@pytest.mark.parametrize("layers", [ATTENTION, EVERY_LAYER])
def test_saved_lora_is_read_back_by_diffusers(pipe, tmp_path, layers):
    trained = lora(pipe, photos(), steps=3, lr=1e-1, layers=layers)
    saved = get_peft_model_state_dict(trained.unet)
    path = save_lora(trained, tmp_path / "new" / "folder")
    assert [path] == list(path.parent.iterdir())

    other = tiny_stable_diffusion()
    plain = generate(other, PROMPT, n=2, steps=3)
    other.load_lora_weights(path.parent)
    (name,) = other.unet.peft_config
    read = get_peft_model_state_dict(other.unet, adapter_name=name)
    assert set(read) == set(saved) and all(torch.equal(read[key], saved[key]) for key in saved)
    learned = generate(trained, PROMPT, n=2, steps=3)
    assert torch.equal(generate(other, PROMPT, n=2, steps=3), learned)
    assert not torch.allclose(plain, learned, atol=1e-3)


def test_save_lora_names_a_pipeline_without_one_and_leaves_no_half_file(pipe, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no LoRA adapter"):
        save_lora(pipe, tmp_path)
    trained = lora(pipe, photos(), steps=1)

    def full(folder, weight_name, **_):
        (folder / weight_name).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(trained, "save_lora_weights", full)
    with pytest.raises(OSError, match="No space"):
        save_lora(trained, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_frozen_weights_kept_in_half_precision_change_no_bit(pipe, tmp_path, dtype):
    options = {"steps": 3, "lr": 1e-2, "batch": 4, "snr_gamma": 5.0}
    trained = working_copy(pipe)  # the same training with float32 weights, which autocast rounds at every use
    trained.unet.requires_grad_(False)
    trained.text_encoder.requires_grad_(False)
    add_lora(trained.unet, rank=8, layers=EVERY_LAYER)
    groups = {"instance": (latents(trained, photos(), 4), PROMPT)}
    generator = torch.Generator().manual_seed(0)
    expected = list(train_steps(trained, groups, {}, generator=generator, dtype=dtype, decay=True, **options))
    states = list(lora_steps(pipe, photos(), rank=8, dtype=dtype, **options))
    assert [s.loss.item() for s in states] == [s.loss.item() for s in expected]
    learned = states[-1].pipe
    ours, theirs = (get_peft_model_state_dict(p.unet) for p in (learned, trained))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    kept = {}  # of the frozen weights, by the kind of their layer
    for layer in learned.unet.modules():
        for parameter in layer.parameters(recurse=False):
            if parameter.requires_grad:
                assert parameter.dtype == torch.float32
            else:
                kept.setdefault(type(layer).__name__, set()).add(parameter.dtype)
    norms = {"GroupNorm": {torch.float32}, "LayerNorm": {torch.float32}}
    assert kept == {"Conv2d": {dtype}, "Linear": {dtype}} | norms

    images = generate(learned, PROMPT, n=2, steps=3, dtype=dtype)
    assert torch.equal(images, generate(trained, PROMPT, n=2, steps=3, dtype=dtype))
    assert torch.equal(images, generate(learned, PROMPT, n=2, steps=3))  # the mixture needs no reminder
    other = tiny_stable_diffusion()
    other.load_lora_weights(save_lora(learned, tmp_path).parent)
    assert torch.equal(images, generate(other, PROMPT, n=2, steps=3, dtype=dtype))
