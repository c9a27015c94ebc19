"""Pipelines' folders: variants, damage, other kinds, settings that the formulas don't follow."""

import json
import struct
import sys

import pytest
import torch
from adm import Code
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, EDMEulerScheduler, UNet2DModel
from diffusers import FlowMatchEulerDiscreteScheduler as FlowMatch
from safetensors.torch import load_file, save_file
from tiny import tiny_stable_diffusion

from antipure_lib.core.diffusion import reverse_step
from antipure_lib.customization.lora import lora, save_lora
from antipure_lib.models.checkpoints import load_ddpm, load_stable_diffusion
from antipure_lib.runtime.checks import check_scheduler

LOADERS = {"ddpm": load_ddpm, "sd": load_stable_diffusion}
NAMES = pytest.mark.parametrize("name", LOADERS)


@pytest.fixture
def saved(make_ddpm, tmp_path):
    """saved(name, **options): a folder with a tiny pipeline that LOADERS[name] loads."""

    def save(name, pipe=None, **options):
        pipe = pipe or (make_ddpm() if name == "ddpm" else tiny_stable_diffusion())
        pipe.save_pretrained(tmp_path / name, **options)
        return tmp_path / name

    return save


def refused(load, folder, *words, without=("again, whole", "get this file again")):
    """load(folder) says in one line the folder and these words, without a remedy that can't help."""
    with pytest.raises(ValueError) as error:
        load(folder, "cpu")
    message = str(error.value)
    assert all(word in message for word in (str(folder), *words)), message
    assert "\n" not in message and not any(word in message for word in without), message


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@NAMES
@pytest.mark.parametrize("variant", ["fp16", "bf16", "non_ema"])
@pytest.mark.parametrize("shard", ["10GB", "50KB"])
def test_a_folder_with_one_variant_alone_loads(name, variant, shard, saved):
    folder = saved(name, variant=variant, max_shard_size=shard)
    assert len(list(folder.glob(f"unet/*{variant}*.safetensors"))) == 1 or shard == "50KB"
    pipe = LOADERS[name](folder, "cpu", torch.float32)
    for file in folder.glob("unet/*.safetensors"):
        weights = pipe.unet.state_dict()
        assert all(torch.equal(weights[key], tensor) for key, tensor in load_file(file).items())


def test_plain_weights_go_before_a_variant_and_parts_may_differ(saved):
    folder = saved("sd")
    for part, plain in (("unet", True), ("vae", False)):
        (file,) = (folder / part).glob("*.safetensors")
        doubled = {key: 2 * value for key, value in load_file(file).items()}
        save_file(doubled, file.with_suffix(".fp16.safetensors"))
        if not plain:
            file.unlink()
    pipe, right = load_stable_diffusion(folder, "cpu"), tiny_stable_diffusion()
    assert torch.equal(pipe.unet.conv_in.weight, right.unet.conv_in.weight)
    assert torch.equal(pipe.vae.decoder.conv_in.weight, 2 * right.vae.decoder.conv_in.weight)


def test_lora_layers_are_called_by_their_name(saved, pictures, tmp_path):
    pipe = lora(tiny_stable_diffusion(), pictures(1), steps=1, batch=1)
    refused(load_stable_diffusion, saved("sd", pipe), "unet was saved with LoRA layers", "save_lora")
    save_lora(pipe, tmp_path / "me")
    refused(load_stable_diffusion, tmp_path / "me", "no model_index.json", "LoRA", "load_lora_weights")
    file = tmp_path / "me" / "pytorch_lora_weights.safetensors"
    refused(load_stable_diffusion, file, "no model_index.json", "LoRA", "load_lora_weights")
    for load in LOADERS.values():
        refused(load, tmp_path, "has no model_index.json", "whole pipeline")


PLAIN = dict(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, sample_size=16)
PLAIN |= dict(down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, add_attention=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(in_channels=1, out_channels=1), "takes 1 channels"),
        (dict(in_channels=6, out_channels=3), "takes 6 channels"),
        (dict(out_channels=4), "gives 4; use a model of RGB images"),
        (dict(num_class_embeds=10), "class-conditional; use an unconditional"),
        (dict(class_embed_type="timestep"), "class-conditional"),
        (dict(sample_size=None), "sample_size None"),
    ],
    ids=str,
)
def test_a_sound_model_of_another_kind_is_no_damaged_one(options, words, saved):
    pipe = DDPMPipeline(UNet2DModel(**PLAIN | options), DDPMScheduler())
    refused(load_ddpm, saved("ddpm", pipe), words, without=("again",))


def test_parts_that_do_not_belong_together_are_refused(saved):
    folder = saved("sd")
    edit(folder / "unet" / "config.json", in_channels=9)
    refused(load_stable_diffusion, folder, "unet", "take all of them from one place")
    pipe = tiny_stable_diffusion()
    pipe.tokenizer.add_tokens(["<me>", "<you>"])
    refused(load_stable_diffusion, saved("sd", pipe), "tokenizer has 9", "take both from one model")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 13921636\n"
DAMAGE = {
    "empty": lambda sound: b"",
    "one byte": lambda sound: b"x",
    "cut at 100": lambda sound: sound[:100],
    "cut in half": lambda sound: sound[: len(sound) // 2],
    "cut at its end": lambda sound: sound[:-7],
    "a Git LFS pointer": lambda sound: LFS,
    "a web page": lambda sound: b"<!DOCTYPE html><html></html>" * 9,
    "a header that claims 2**60 bytes": lambda sound: struct.pack("<Q", 2**60) + sound[8:],
    "zeros": lambda sound: bytes(len(sound)),
    "UTF-16": lambda sound: b"\xff\xfe" + sound[:50],
}


@NAMES
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_named(name, damage, saved):
    folder = saved(name, safe_serialization=name == "sd")  # a model of pixels may have pickled weights
    for file in [file for file in folder.rglob("*") if file.suffix in (".json", ".safetensors", ".bin")]:
        sound = file.read_bytes()
        file.write_bytes(damage(sound))
        refused(LOADERS[name], folder, f"{file.name} is damaged", "get this file again", without=())
        file.write_bytes(sound)
    LOADERS[name](folder, "cpu")


@NAMES
def test_a_missing_file_and_a_missing_tensor_are_named(name, saved):
    folder = saved(name)
    for file in [file for file in folder.rglob("*") if file.parent != folder and "token" not in file.name]:
        sound = file.read_bytes()
        if file.suffix == ".safetensors":
            tensors = load_file(file)
            lost = next(key for key in sorted(tensors) if key.endswith("weight"))
            save_file({key: value for key, value in tensors.items() if key != lost}, file, {"format": "pt"})
            refused(LOADERS[name], folder, f"{file.parent.name} lacks", lost.split(".")[-2])
        file.unlink()
        word = f"{file.parent.name}/{'*model*' if file.suffix == '.safetensors' else file.name}"
        refused(LOADERS[name], folder, f"has no {word}", "copy it")
        file.write_bytes(sound)
    weights = next((folder / "unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    if name == "sd":
        refused(load_stable_diffusion, folder, "has no unet/", "pickled weights aren't read", "save")


@NAMES
def test_code_in_a_folder_is_never_executed(name, saved, tmp_path, monkeypatch):
    folder = saved(name)
    monkeypatch.syspath_prepend(folder)
    for home in (folder, folder / "unet", folder / "scheduler"):
        (home / "evil.py").write_text(f"open({str(tmp_path / 'written')!r}, 'w').close()\nclass Evil: pass\n")
    index = (folder / "model_index.json").read_text()
    for part in ("unet", "scheduler", "_class_name"):
        edit(folder / "model_index.json", **{part: ["evil", "Evil"]})
        refused(LOADERS[name], folder, "['evil', 'Evil']")
        (folder / "model_index.json").write_text(index)
    assert not (tmp_path / "written").exists() and "evil" not in sys.modules


def test_pickled_weights_never_execute_code(saved, tmp_path):
    folder = saved("ddpm", safe_serialization=False)
    weights = folder / "unet" / "diffusion_pytorch_model.bin"
    torch.save({"conv_in.weight": Code(tmp_path / "written")}, weights)
    refused(load_ddpm, folder, "never run", without=())
    assert not (tmp_path / "written").exists()
    torch.load(weights, weights_only=False)  # the trap is a trap
    assert (tmp_path / "written").exists()


@pytest.mark.parametrize("config", [None, {}, *({"model_max_length": limit} for limit in (10**30, 77, 5))])
def test_a_tokenizer_takes_no_more_than_the_text_encoder(config, saved):
    file = saved("sd") / "tokenizer" / "tokenizer_config.json"
    sound = json.loads(file.read_text())
    sound.pop("model_max_length")
    file.write_text(json.dumps(sound | (config or {})))
    if config is None:
        file.unlink()
    pipe = load_stable_diffusion(file.parents[1], "cpu")
    assert pipe.tokenizer.model_max_length == (5 if config == {"model_max_length": 5} else 12)
    assert pipe("a photo " * 20, num_inference_steps=1, output_type="np").images[0].shape == (16, 16, 3)


HONOURED = [
    dict(),
    dict(clip_sample_range=0.5),
    dict(beta_schedule="squaredcos_cap_v2"),
    dict(beta_schedule="sigmoid"),
    dict(trained_betas=[0.01] * 1000),
    dict(timestep_spacing="trailing", steps_offset=1),
    dict(sample_max_value=3.0, dynamic_thresholding_ratio=0.5),
]
REFUSED = [
    (dict(thresholding=True), "thresholding=True"),
    (dict(thresholding=True, clip_sample=False), "thresholding=True"),
    (dict(variance_type="fixed_large_log"), "variance_type 'fixed_large_log'"),
    (dict(variance_type="learned"), "variance_type 'learned'"),
    (dict(prediction_type="sample"), "predicts 'sample'"),
    (dict(prediction_type="v_prediction"), "predicts 'v_prediction'"),
    (dict(clip_sample_range=0), "clip_sample_range must be positive"),
    (dict(rescale_betas_zero_snr=True), "rescale_betas_zero_snr"),
    (dict(trained_betas=[0.0] * 1000), "ᾱ"),
    (dict(trained_betas=[-0.1] * 1000), "ᾱ"),
    (dict(trained_betas=[float("nan")] * 1000), "ᾱ"),
    (dict(beta_start=1.5, beta_end=1.6), "ᾱ"),
    (dict(trained_betas=[0.01] * 300), "300 ᾱ and num_train_timesteps 1000"),
]


@pytest.mark.parametrize("options", HONOURED, ids=str)
def test_a_setting_that_passes_is_honoured(options):
    scheduler = DDPMScheduler(**options)
    check_scheduler(scheduler)
    x = 2 * torch.randn((1, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    eps, noise = x.roll(3, -1), torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    expected = scheduler.step(eps, 700, x, torch.Generator().manual_seed(1)).prev_sample
    torch.testing.assert_close(reverse_step(x, eps, 700, scheduler, noise), expected)


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=str)
def test_a_setting_that_is_not_honoured_is_refused_at_loading(options, words, make_ddpm, saved):
    folder = saved("ddpm", make_ddpm(**options) if "nan" not in str(options) else None)
    if "nan" in str(options):
        edit(folder / "scheduler" / "scheduler_config.json", **options)
    refused(load_ddpm, folder, words, without=("again",))


@pytest.mark.parametrize("kind", [FlowMatch, EDMEulerScheduler, DDIMScheduler])
def test_a_scheduler_of_another_class(kind, saved):
    pipe = tiny_stable_diffusion()
    pipe.scheduler = kind()
    if kind is DDIMScheduler:
        load_stable_diffusion(saved("sd", pipe), "cpu")
    else:
        refused(load_stable_diffusion, saved("sd", pipe), f"{kind.__name__} has no alphas_cumprod")
    words = "variance_type 'None'" if kind is DDIMScheduler else "no alphas_cumprod"
    with pytest.raises(ValueError, match=words):
        check_scheduler(kind())
    check_scheduler(DDPMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction"), latent=True)
    with pytest.raises(ValueError, match="epsilon or v_prediction"):
        check_scheduler(DDPMScheduler(prediction_type="sample"), latent=True)
