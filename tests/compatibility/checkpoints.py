"""Models on disk: damaged, of another kind, saved in another way, with settings that few have."""

import json
import os
import struct
from pathlib import Path

import torch

import antipure_lib as ap
from tests.helpers.adm import ADM

from .helpers import command, ddpm, photos, picture, pipe
from .registry import check_message, refusal, situation

LEARN = {"steps": 1, "batch": 1}
GET_AGAIN = ("get the folder again", "get it again", "download it again")


def saved(model, folder="model", **options) -> Path:
    """A pipeline's folder."""
    model.save_pretrained(folder, **options)
    return Path(folder)


def same(a, b) -> None:
    """Two UNets with equal weights, up to half precision."""
    pairs = zip(a.unet.state_dict().values(), b.unet.state_dict().values(), strict=True)
    assert all((x.float() - y.float()).abs().max() < 1e-2 for x, y in pairs), "other weights"


@situation("diffusers 10928", "causes", cases=["fp16", "ema"])
def variant_alone(variant):
    """A Stable Diffusion folder that holds one variant of its weights alone"""
    same(ap.load_stable_diffusion(saved(pipe(), variant=variant)), pipe())


@situation("diffusers 6602", "causes")
def saved_lora_pipeline():
    """A LoRA pipeline that was saved with save_pretrained"""
    model = ap.lora(pipe(), photos(2), **LEARN)
    folder = saved(model)
    return refusal(lambda: ap.load_stable_diffusion(folder), "LoRA", "save_lora", without=GET_AGAIN)


@situation("Anti-DreamBooth 10", "causes", cases=["unet", "vae", "text_encoder", "scheduler"])
def config_is_missing(part):
    """A folder one of whose configurations is missing"""
    folder = saved(pipe())
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    (folder / part / name).unlink()
    return refusal(lambda: ap.load_stable_diffusion(folder), f"{part}/{name}")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 13921636\n"
DAMAGE = {
    "cut in half": lambda sound: sound[: len(sound) // 2],
    "a Git LFS pointer": lambda sound: LFS,
    "a web page": lambda sound: b"<!DOCTYPE html><html><body>Access denied</body></html>" * 9,
    "noise": lambda sound: os.urandom(4000),
    "a header that claims 2**60 bytes": lambda sound: struct.pack("<Q", 2**60) + sound[8:],
}


@situation("transformers 27923", "damaged checkpoints", cases=DAMAGE)
def damaged_weights_in_a_folder(damage):
    """A folder whose weights are damaged"""
    folder = saved(ddpm())
    file = next(folder.glob("unet/*.safetensors"))
    file.write_bytes(damage(file.read_bytes()))
    return refusal(lambda: ap.load_ddpm(folder), str(folder))


@situation("mmdetection 4835", "damaged checkpoints")
def sound_safetensors_by_itself():
    """--ddpm names a sound .safetensors file instead of its folder"""
    file = next(saved(ddpm()).glob("unet/*.safetensors"))
    ap.save_image(picture(16, 16), "a.png")
    done = command("protect", "a.png", "--out", "out", "--steps", 1, "--ddpm", file)
    return check_message(done.error(), [file.name, "folder"])


def guided(prefix: str = "") -> dict[str, torch.Tensor]:
    """Weights under guided-diffusion's names: 64 channels, two levels, one residual block each."""
    weights = ADM(width=64, mults=(1, 1), attention=(), head_channels=64).state_dict()
    return {f"{prefix}{name}": weight for name, weight in weights.items()}


@situation(
    "mmdetection 4835",
    "damaged checkpoints",
    cases={"20 kB": 20_000, "99 %": -1000},
)
def cut_checkpoint(kept):
    """A .pt file whose end is missing"""
    torch.save(guided(), "whole.pt")
    Path("cut.pt").write_bytes(Path("whole.pt").read_bytes()[:kept])
    return refusal(lambda: ap.load_ddpm("cut.pt"), "cut.pt", "damaged")


@situation("OpenTAD 44", "layers' names", cases=["model.", "module._orig_mod."])
def prefixed_names(prefix):
    """A .pt file whose names a wrapper has prefixed"""
    torch.save(guided(prefix), "a.pt")
    assert ap.load_ddpm("a.pt").unet.config.sample_size == 16


@situation("CompVis 860", "tokenizers", cases=["train", "generate"])
def tokenizer_without_its_configuration(use):
    """A tokenizer without tokenizer_config.json"""
    folder = saved(pipe())
    (folder / "tokenizer/tokenizer_config.json").unlink()
    model = ap.load_stable_diffusion(folder)
    if use == "train":
        ap.lora(model, photos(2), **LEARN)
    else:
        ap.generate(model, "a person", n=1, steps=2)


@situation("CompVis 860", "tokenizers", cases={"10**30": int(1e30), "absent": None})
def limit_of_the_tokenizer(limit):
    """A tokenizer whose limit isn't the text encoder's"""
    folder = saved(pipe())
    path = folder / "tokenizer/tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("model_max_length")
    path.write_text(json.dumps(config | ({"model_max_length": limit} if limit else {})))
    ap.lora(ap.load_stable_diffusion(folder), photos(2), **LEARN)


def rescheduled(model, kind=None, **options):
    """The model with another scheduler or other settings."""
    import diffusers

    kind = getattr(diffusers, kind) if kind else type(model.scheduler)
    model.scheduler = kind.from_config(model.scheduler.config, **options)
    return model


SETTINGS = {
    "thresholding": dict(thresholding=True, clip_sample=False),
    "clip_sample_range": dict(clip_sample_range=0.5),
    "fixed_large": dict(variance_type="fixed_large"),
    "prediction_type v_prediction": dict(prediction_type="v_prediction"),
    "zero terminal SNR": dict(rescale_betas_zero_snr=True),
}


@situation("diffusers 2095", "schedulers", cases=SETTINGS)
def step_like_diffusers(options):
    """A step back under a setting: as diffusers takes it, or refused"""
    settings = rescheduled(ddpm(), **options).scheduler
    x = 2 * torch.randn((1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    eps, noise = x.roll(3, -1), x.flip(-1)
    try:
        ours = ap.reverse_step(x, eps, 700, settings, noise)
    except ValueError as error:
        return refusal(lambda: ap.reverse_step(x, eps, 700, settings, noise), *str(error).split()[:1])
    clean = settings.step(eps, 700, x, torch.Generator().manual_seed(0))
    # The noise that diffusers draws is taken out by a step at the same place without it.
    drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    sigma = settings._get_variance(700)
    sigma = sigma if options.get("variance_type") == "fixed_small_log" else sigma**0.5
    wanted = clean.prev_sample + sigma * (noise - drawn)
    off = (ours - wanted).abs().max().item()
    assert off < 1e-4, f"off by {off:.2g}"


@situation("diffusers 3851", "schedulers", cases=["lora", "mist"])
def zero_terminal_snr(use):
    """A pipeline that predicts ε under zero terminal SNR"""
    model = rescheduled(pipe(), rescale_betas_zero_snr=True)
    if use == "lora":
        for found in ap.lora_steps(model, photos(2), steps=8, batch=4):
            assert found.loss.isfinite(), "the loss isn't finite"
    else:
        ap.protect("mist", photos(), pipe=model, eta=8 / 255, steps=3)


@situation("Min-SNR 2", "schedulers")
def zero_terminal_snr_v():
    """Training a pipeline that predicts v under zero terminal SNR, with min-SNR's weights"""
    model = rescheduled(pipe(), rescale_betas_zero_snr=True, prediction_type="v_prediction")
    for found in ap.lora_steps(model, photos(2), steps=8, batch=4):
        assert found.loss.isfinite(), "the loss isn't finite"


@situation(
    "diffusers 2095",
    "schedulers",
    cases=[
        "PNDMScheduler",
        "EulerDiscreteScheduler",
        "DPMSolverMultistepScheduler",
    ],
)
def pipeline_with_another_scheduler(kind):
    """A pipeline with another scheduler trains as with its own"""
    options = {"skip_prk_steps": True} if kind == "PNDMScheduler" else {}
    found, right = (
        next(iter(ap.lora_steps(model, photos(2), **LEARN))).loss
        for model in (rescheduled(pipe(), kind, **options), pipe())
    )
    assert (found - right).abs() < 1e-5, f"another loss: {found:.4f}, not {right:.4f}"
