"""Models on disk: damaged, of another kind, saved in another way, with settings that few have."""

import json
import os
import shutil
import struct
from pathlib import Path

import torch

import antipure_lib as ap
from tests.helpers.adm import ADM

from .helpers import command, ddpm, photos, picture, pipe
from .registry import refusal, situation

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


@situation("diffusers 10928", "causes", cases={"fp16": "fp16", "bf16": "bf16", "ema": "ema"})
def variant_alone_sd(variant):
    """A Stable Diffusion folder that holds one variant of its weights alone"""
    same(ap.load_stable_diffusion(saved(pipe(), variant=variant)), pipe())


@situation("diffusers 10928", "causes", cases={"fp16": "fp16", "no_ema": "no_ema"})
def variant_alone_ddpm(variant):
    """A DDPM folder that holds one variant of its weights alone"""
    same(ap.load_ddpm(saved(ddpm(), variant=variant)), ddpm())


@situation("diffusers 10928", "causes")
def both_variants():
    """A folder with the full weights and an fp16 variant"""
    saved(ddpm(), variant="fp16")
    same(ap.load_ddpm(saved(ddpm())), ddpm())


@situation("diffusers 6602", "causes")
def saved_lora_pipeline():
    """A LoRA pipeline that was saved with save_pretrained"""
    model = ap.lora(pipe(), photos(2), **LEARN)
    folder = saved(model)
    return refusal(lambda: ap.load_stable_diffusion(folder), "LoRA", "save_lora", without=GET_AGAIN)


@situation("diffusers 6602", "causes")
def lora_folder_as_a_model():
    """save_lora's folder given as a model"""
    ap.save_lora(ap.lora(pipe(), photos(2), **LEARN), "me")
    return refusal(lambda: ap.load_stable_diffusion("me"), "LoRA", "load_lora_weights")


def unet_folder(**options):
    """A folder of a pixel model of another kind."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    plain = dict(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, add_attention=False)
    plain |= dict(down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, sample_size=16)
    return saved(DDPMPipeline(UNet2DModel(**plain | options), DDPMScheduler()))


@situation(
    "own",
    "causes",
    cases={
        "grey": (dict(in_channels=1, out_channels=1), "RGB"),
        "four channels": (dict(in_channels=4, out_channels=4), "RGB"),
        "class-conditional": (dict(num_class_embeds=10), "class-conditional"),
        "no size": (dict(sample_size=None), "sample_size"),
    },
)
def sound_model_of_another_kind(case):
    """A sound pixel model that isn't one of RGB pictures alone"""
    options, word = case
    folder = unet_folder(**options)
    return refusal(lambda: ap.load_ddpm(folder), word, without=GET_AGAIN)


@situation("Anti-DreamBooth 10", "causes", cases=["unet", "vae", "text_encoder", "scheduler"])
def config_is_missing(part):
    """A folder one of whose configurations is missing"""
    folder = saved(pipe())
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    (folder / part / name).unlink()
    return refusal(lambda: ap.load_stable_diffusion(folder), f"{part}/{name}")


@situation("own", "causes", cases={"ddpm for sd": ("ddpm", "sd"), "sd for ddpm": ("sd", "ddpm")})
def kinds_swapped(names):
    """A latent model where a pixel model is meant, and the other way round"""
    folder = ap.data_path("models", names[0])
    loaders = {"sd": ap.load_stable_diffusion, "ddpm": ap.load_ddpm}
    told = {"sd": "load_stable_diffusion", "ddpm": "load_ddpm"}
    return refusal(lambda: loaders[names[1]](folder), told[names[0]])


@situation("own", "causes")
def half_the_precision():
    """A model that was saved in float16"""
    model = ddpm()
    model.unet.half()
    same(ap.load_ddpm(saved(model), dtype=torch.float32), ddpm())


@situation("own", "causes")
def sharded_weights():
    """Weights in several files"""
    folder = saved(pipe(), max_shard_size="5MB")
    assert len(list(folder.glob("unet/*.safetensors"))) > 1
    same(ap.load_stable_diffusion(folder), pipe())


@situation("own", "causes")
def pickled_weights():
    """A pixel model with pickled weights"""
    same(ap.load_ddpm(saved(ddpm(), safe_serialization=False)), ddpm())


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 13921636\n"
DAMAGE = {
    "cut in half": lambda sound: sound[: len(sound) // 2],
    "cut in its header": lambda sound: sound[:500],
    "empty": lambda sound: b"",
    "a Git LFS pointer": lambda sound: LFS,
    "a web page": lambda sound: b"<!DOCTYPE html><html><body>Access denied</body></html>" * 9,
    "noise": lambda sound: os.urandom(4000),
    "a header that claims 2**60 bytes": lambda sound: struct.pack("<Q", 2**60) + sound[8:],
    "one byte": lambda sound: b"x",
}


@situation("transformers 27923", "damaged checkpoints", cases=DAMAGE)
def damaged_weights_in_a_folder(damage):
    """A folder whose weights are damaged"""
    folder = saved(ddpm())
    file = next(folder.glob("unet/*.safetensors"))
    file.write_bytes(damage(file.read_bytes()))
    return refusal(lambda: ap.load_ddpm(folder), str(folder))


@situation("mmdetection 4835", "damaged checkpoints", cases=DAMAGE)
def damaged_safetensors_by_itself(damage):
    """--ddpm names a damaged .safetensors file"""
    file = next(saved(ddpm()).glob("unet/*.safetensors"))
    file.write_bytes(damage(file.read_bytes()))
    return _protected_with(file)


@situation("mmdetection 4835", "damaged checkpoints")
def sound_safetensors_by_itself():
    """--ddpm names a sound .safetensors file instead of its folder"""
    told = _protected_with(next(saved(ddpm()).glob("unet/*.safetensors")))
    assert "folder" in told, f"misleading message, 'folder' is missing: {told}"
    return told


def _protected_with(file) -> str:
    ap.save_image(picture(16, 16), "a.png")
    told = command("protect", "a.png", "--out", "out", "--steps", 1, "--ddpm", file).error()
    assert file.name in told, f"misleading message, the file's name is missing: {told}"
    return told


def guided(prefix: str = "") -> dict[str, torch.Tensor]:
    """Weights under guided-diffusion's names: 64 channels, two levels, one residual block each."""
    weights = ADM(width=64, mults=(1, 1), attention=(), head_channels=64).state_dict()
    return {f"{prefix}{name}": weight for name, weight in weights.items()}


@situation(
    "mmdetection 4835",
    "damaged checkpoints",
    cases={"5 kB": 5000, "20 kB": 20_000, "1 byte": 1, "99 %": -1000},
)
def cut_checkpoint(kept):
    """A .pt file whose end is missing"""
    torch.save(guided(), "whole.pt")
    Path("cut.pt").write_bytes(Path("whole.pt").read_bytes()[:kept])
    return refusal(lambda: ap.load_ddpm("cut.pt"), "cut.pt", "damaged")


@situation("own", "damaged checkpoints", cases={name: DAMAGE[name] for name in list(DAMAGE)[2:6]})
def checkpoint_of_something_else(damage):
    """A .pt file that holds something else"""
    Path("other.pt").write_bytes(damage(b""))
    return refusal(lambda: ap.load_ddpm("other.pt"), "other.pt")


@situation(
    "own",
    "damaged checkpoints",
    cases=["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"],
)
def damaged_configuration(name):
    """A folder one of whose configurations is cut off"""
    folder = saved(ddpm())
    (folder / name).write_text((folder / name).read_text()[:40])
    return refusal(lambda: ap.load_ddpm(folder), str(folder))


PREFIXES = ["module.", "model.", "_orig_mod.", "module._orig_mod."]


@situation("OpenTAD 44", "layers' names", cases=PREFIXES)
def prefixed_names(prefix):
    """A .pt file whose names a wrapper has prefixed"""
    torch.save(guided(prefix), "a.pt")
    assert ap.load_ddpm("a.pt").unet.config.sample_size == 16


@situation("own", "layers' names", cases=["state_dict", "model", "ema"])
def nested_weights(key):
    """A .pt file that holds the weights under a key"""
    torch.save({key: guided(), "step": 3}, "a.pt")
    return refusal(lambda: ap.load_ddpm("a.pt"), "a.pt", f"'{key}'")


@situation("own", "layers' names")
def plain_names():
    """A .pt file with guided-diffusion's own names"""
    torch.save(guided(), "a.pt")
    assert ap.load_ddpm("a.pt").unet.config.out_channels == 6


@situation(
    "own", "layers' names", cases={"half precision": lambda t: t.half(), "parameters": torch.nn.Parameter}
)
def weights_of_another_type(change):
    """A .pt file whose tensors are of another type"""
    torch.save({key: change(tensor) for key, tensor in guided().items()}, "a.pt")
    ap.load_ddpm("a.pt")


@situation("CompVis 860", "tokenizers", cases=["train", "attack", "generate"])
def tokenizer_without_its_configuration(use):
    """A tokenizer without tokenizer_config.json"""
    folder = saved(pipe())
    (folder / "tokenizer/tokenizer_config.json").unlink()
    _used(ap.load_stable_diffusion(folder), use)


def _used(model, use):
    if use == "train":
        ap.lora(model, photos(2), **LEARN)
    elif use == "attack":
        ap.protect("mist", photos(), pipe=model, eta=8 / 255, steps=1)
    else:
        ap.generate(model, "a person", n=1, steps=2)


@situation("CompVis 860", "tokenizers", cases={"10**30": int(1e30), "absent": None, "too large": 77})
def limit_of_the_tokenizer(limit):
    """A tokenizer whose limit isn't the text encoder's"""
    folder = saved(pipe())
    path = folder / "tokenizer/tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("model_max_length")
    path.write_text(json.dumps(config | ({"model_max_length": limit} if limit else {})))
    _used(ap.load_stable_diffusion(folder), "train")


def rescheduled(model, kind=None, **options):
    """The model with another scheduler or other settings."""
    import diffusers

    kind = getattr(diffusers, kind) if kind else type(model.scheduler)
    model.scheduler = kind.from_config(model.scheduler.config, **options)
    return model


SETTINGS = {
    "thresholding": dict(thresholding=True, clip_sample=False),
    "thresholding, sample_max_value": dict(thresholding=True, clip_sample=False, sample_max_value=2.0),
    "thresholding and clipping": dict(thresholding=True),
    "clip_sample_range": dict(clip_sample_range=0.5),
    "no clipping": dict(clip_sample=False),
    "fixed_large": dict(variance_type="fixed_large"),
    "fixed_large_log": dict(variance_type="fixed_large_log"),
    "learned": dict(variance_type="learned"),
    "prediction_type sample": dict(prediction_type="sample"),
    "prediction_type v_prediction": dict(prediction_type="v_prediction"),
    "zero terminal SNR": dict(rescale_betas_zero_snr=True),
    "cosine": dict(beta_schedule="squaredcos_cap_v2"),
    "sigmoid": dict(beta_schedule="sigmoid"),
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


NO_ALPHAS = ["FlowMatchEulerDiscreteScheduler", "EDMEulerScheduler"]
USES = {
    "diffpure": lambda kind: ap.diffpure(rescheduled(ddpm(), kind), picture(16, 16), t=2),
    "antipure": lambda kind: ap.antipure(rescheduled(ddpm(), kind), picture(16, 16), eta=8 / 255, steps=1),
    "lora": lambda kind: ap.lora(rescheduled(pipe(), kind), photos(2), **LEARN),
    "mist": lambda kind: ap.protect("mist", photos(), pipe=rescheduled(pipe(), kind), eta=8 / 255, steps=1),
}


@situation("own", "schedulers", cases={f"{use}, {kind}": (use, kind) for use in USES for kind in NO_ALPHAS})
def scheduler_without_alphas(case):
    """A scheduler that has no ᾱ"""
    use, kind = case
    return refusal(lambda: USES[use](kind), "scheduler", kind)


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
        "DDPMScheduler",
        "LCMScheduler",
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


MISTYPED = {
    "models/256x256_diffusion_uncond.pt": "",
    "models/nano": "",
    "my models/face.pt": "",
    "./weights/ddpm": "",
    "~/models/ddpm.pt": "",
    "checkpoints/ddpm.safetensors": "",
    "C:\\models\\ddpm.pt": "",
    "/data/ddpm": "",
}


@situation("own", "paths", cases=[path for path in MISTYPED])
def mistyped_path(path):
    """--ddpm names a path where nothing is"""
    Path("models").mkdir()
    ap.save_image(picture(16, 16), "a.png")
    told = command("protect", "a.png", "--out", "out", "--ddpm", path).error()
    for word, wanted in (("--download", False), (Path(path).name, True)):
        assert (word in told) == wanted, f"misleading message: {told}"
    return told


@situation("own", "paths", cases=["google/ddpm-celebahq-256", "someone/my-model_v1.5"])
def hub_id(name):
    """--ddpm names a model of the hub that isn't here"""
    ap.save_image(picture(16, 16), "a.png")
    told = command("protect", "a.png", "--out", "out", "--ddpm", name).error()
    assert "--download" in told, f"misleading message: {told}"
    return told


@situation("own", "paths")
def folder_of_the_wrong_kind():
    """--ddpm names a folder without a model"""
    Path("empty").mkdir()
    return refusal(lambda: ap.load_ddpm("empty"), "model_index.json")


@situation("own", "paths")
def folder_one_level_too_deep():
    """--ddpm names the folder of the UNet alone"""
    folder = saved(ddpm())
    return refusal(lambda: ap.load_ddpm(folder / "unet"), "model_index.json")


@situation("own", "everyday")
def linked_folder():
    """A model's folder that is a link, with a space and an umlaut in its name"""
    saved(ddpm(), "mein Modell für Gesichter")
    Path("link").symlink_to("mein Modell für Gesichter")
    same(ap.load_ddpm("link"), ddpm())
    shutil.rmtree("mein Modell für Gesichter")
