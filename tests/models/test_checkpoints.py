import json
import subprocess
import sys

import pytest
import torch
from diffusers import DDPMPipeline, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from tiny import sd15_folder, tiny_stable_diffusion, tiny_tokenizer

import antipure_lib
from antipure_lib.core.diffusion import add_noise, alpha_bars, predict_eps
from antipure_lib.core.images import quantise, to_model
from antipure_lib.core.tiles import extract
from antipure_lib.customization.full_size import FULL_SIZE
from antipure_lib.customization.lora import lora, save_lora
from antipure_lib.models.checkpoints import load_ddpm, load_stable_diffusion
from antipure_lib.models.embedded import data_path, identities, load_faces
from antipure_lib.runtime.devices import pick_dtype
from antipure_lib.runtime.noise import image_generators, randn

LOADERS = [load_ddpm, load_stable_diffusion]


def half(pipe, folder):
    """Save as the embedded models are: float16 safetensors."""
    pipe.to(dtype=torch.float16).save_pretrained(folder)
    return folder


def test_a_local_purifier_comes_back_in_the_devices_precision_and_silently(make_ddpm, tmp_path, capfd):
    folder = half(make_ddpm(variance_type="fixed_large"), tmp_path)
    assert load_ddpm(folder, device="cpu").unet.dtype == pick_dtype("cpu")
    pipe = load_ddpm(folder, "cpu", torch.float32)
    assert isinstance(pipe, DDPMPipeline) and not pipe.unet.training
    assert pipe.unet.dtype == torch.float32 and pipe.device.type == "cpu"
    assert pipe.scheduler.config.variance_type == "fixed_large"
    x_t = torch.randn((2, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = predict_eps(pipe, x_t, 5) - predict_eps(make_ddpm(), x_t, 5)
    assert difference.abs().max() < 5e-3  # float16 rounding of the weights
    pipe(num_inference_steps=2)
    assert capfd.readouterr() == ("", "")


def test_a_local_stable_diffusion_comes_back_whole_and_silently(tmp_path, capfd):
    folder = half(tiny_stable_diffusion(), tmp_path)
    capfd.readouterr()
    pipe = load_stable_diffusion(str(folder), device="cpu")
    assert isinstance(pipe, StableDiffusionPipeline) and pipe.safety_checker is None
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        assert part.dtype == torch.float32 and not part.training
    pipe("a photo", num_inference_steps=2)
    assert capfd.readouterr() == ("", "")


def test_a_folder_of_stable_diffusion_15s_layout_learns_and_its_lora_loads_back(tmp_path, pictures):
    """PNDM, a tokenizer of two files, four levels with attention in three: only the widths are smaller."""
    folder = sd15_folder(tmp_path / "sd15")
    assert {p.name for p in (folder / "tokenizer").iterdir()} >= {"vocab.json", "merges.txt"}
    assert not (folder / "tokenizer" / "tokenizer.json").exists()
    pipe = load_stable_diffusion(folder, "cpu")
    assert type(pipe.scheduler).__name__ == "PNDMScheduler"
    assert (
        pipe.tokenizer("a photo of sks person").input_ids
        == tiny_tokenizer()("a photo of sks person").input_ids
    )
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    options = FULL_SIZE["lora"] | {"steps": 1, "lr": 1e-2}
    learned = lora(pipe, pictures(1, side, side), **options)
    save_lora(learned, tmp_path / "lora")
    z, t, c = torch.randn((1, 4, 8, 8)), torch.tensor([7]), torch.randn((1, 12, 24))
    with torch.no_grad():
        before, expected = (p.unet(z, t, c).sample for p in (pipe, learned))
        pipe.load_lora_weights(tmp_path / "lora")
        assert torch.allclose(pipe.unet(z, t, c).sample, expected, atol=1e-6)
    assert (expected - before).abs().max() > 1e-5
    image = pipe("a photo of sks person", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (side, side, 3)


def test_dtype_on_request(make_ddpm, tmp_path):
    assert load_ddpm(half(make_ddpm(), tmp_path), "cpu", torch.bfloat16).unet.dtype == torch.bfloat16


@pytest.mark.parametrize("load", LOADERS)
def test_unknown_names_list_the_known_ones(load, tmp_path):
    for name in ("nanoo", str(tmp_path)):
        with pytest.raises(ValueError, match=f"'{name}'.*known names are nano.*local folder"):
            load(name)


@pytest.mark.parametrize("load", LOADERS)
def test_a_folder_of_another_kind_is_refused(load, make_ddpm, tmp_path):
    other = make_ddpm() if load is load_stable_diffusion else tiny_stable_diffusion()
    with pytest.raises(ValueError, match=f"{tmp_path}.*holds a .*Pipeline"):
        load(half(other, tmp_path))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("whole", [True, False])
def test_a_part_that_lacks_a_tensor_is_refused(part, whole, tmp_path):
    """transformers would fill in random numbers and not say so."""
    folder = half(tiny_stable_diffusion(), tmp_path)
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    if not whole:
        del tensors[next(name for name in sorted(tensors) if name.endswith("weight"))]
    save_file(tensors, file, {"format": "pt"})
    if whole:
        load_stable_diffusion(folder, "cpu")
    else:
        with pytest.raises(ValueError, match=f"{tmp_path} can't be loaded .*get the folder again"):
            load_stable_diffusion(folder, "cpu")


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"sample_size": None}, "sample_size None"),
        ({"in_channels": "x"}, "can't be loaded"),
        ({"num_class_embeds": 10}, "class-conditional|can't be loaded"),
    ],
    ids=str,
)
def test_a_purifier_with_a_damaged_or_unfit_configuration_is_refused(config, reason, make_ddpm, tmp_path):
    folder = half(make_ddpm(), tmp_path)
    file = folder / "unet" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    with pytest.raises(ValueError, match=reason):
        load_ddpm(folder, "cpu")


def test_missing_data_is_named():
    with pytest.raises(FileNotFoundError, match="nothing.*reinstall"):
        data_path("nothing")


def test_held_out_people():
    people = identities()
    assert len(people) == 12
    faces = torch.cat([load_faces(person, s) for person in people for s in "ABC"])
    assert faces.shape == (144, 3, 64, 64)
    assert torch.equal(quantise(faces), faces)
    assert len({face.numpy().tobytes() for face in faces}) == 144
    with pytest.raises(ValueError, match="unknown identity 'nobody'; the known ones are p01"):
        load_faces("nobody")
    with pytest.raises(ValueError, match="photo_set must be one of A, B, C"):
        load_faces(people[0], "D")


def test_nano_purifier_predicts_noise_of_every_level():
    ddpm = load_ddpm(device="cpu")
    assert ddpm.unet.config.sample_size == 32 and ddpm.unet.config.in_channels == 3
    assert len(ddpm.scheduler.alphas_cumprod) == 1000 and ddpm.scheduler.config.beta_schedule == "linear"
    x0 = to_model(extract(load_faces("p01"), 32))
    eps = randn(x0.shape, image_generators(0, len(x0)))
    alpha_bar = alpha_bars(ddpm.scheduler)
    for t, worst in ((5, 0.9), (100, 0.3), (900, 0.05)):
        with torch.no_grad():
            error = (predict_eps(ddpm, add_noise(x0, eps, t, alpha_bar), t) - eps).square().mean()
        assert error < worst, f"t={t}: mean squared error {error:.3f}; predicting zero gives 1"


def test_nano_stable_diffusion_knows_its_words():
    pipe = load_stable_diffusion(device="cpu")
    tokens = pipe.tokenizer("a photo of sks person").input_ids
    assert len(tokens) == 7  # five words, one token each, between start and end
    faces = load_faces("p01")
    with torch.no_grad():
        latents = pipe.vae.encode(to_model(faces)).latent_dist.mode()
        decoded = pipe.vae.decode(latents).sample
    assert latents.shape == (4, 4, 16, 16)
    assert (decoded - to_model(faces)).square().mean() < 0.02  # 23 dB
    image = pipe("a photo of a person", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (64, 64, 3)


def test_public_names():
    """The names that notebooks and other people's code rely on."""
    names = """load_image save_image load_ddpm load_stable_diffusion add_noise predict_x0 denoising_loss
    patch_frequency_guidance erroneous_timestep_guidance pgd antipure survival diffpure gridpure jpeg
    gaussian_blur resize_and_back dreambooth lora Judge"""
    assert all(callable(getattr(antipure_lib, name)) for name in names.split())


def test_importing_the_package_leaves_heavy_modules_alone():
    heavy = {"diffusers", "transformers", "peft", "dlib", "skimage", "matplotlib", "flip_evaluator", "scipy"}
    code = f"import sys, antipure_lib; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
