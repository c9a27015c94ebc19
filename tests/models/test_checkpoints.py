import pytest
import torch
from diffusers import DDPMPipeline, StableDiffusionPipeline
from tiny import sd15_folder, tiny_stable_diffusion, tiny_tokenizer

from antipure_lib.core.diffusion import add_noise, alpha_bars, predict_eps
from antipure_lib.core.images import quantise, to_model
from antipure_lib.core.tiles import extract
from antipure_lib.customization.full_size import FULL_SIZE
from antipure_lib.customization.lora import lora, save_lora
from antipure_lib.models.checkpoints import ModelNotHere, load_ddpm, load_stable_diffusion
from antipure_lib.models.embedded import data_path, identities, load_faces
from antipure_lib.models.folders import OtherKind
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
    assert load_ddpm(folder, "cpu", torch.bfloat16).unet.dtype == torch.bfloat16
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
    words = "a photo of sks person"
    assert pipe.tokenizer(words).input_ids == tiny_tokenizer()(words).input_ids
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


@pytest.mark.parametrize("load", LOADERS)
def test_a_model_loaded_in_inference_mode_takes_part_in_gradients(load):
    with torch.inference_mode():
        pipe, x = load(device="cpu", dtype=torch.float32), load_faces("p01")[:1]
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert not any(p.is_inference() for part in parts for p in part.parameters())
    weight = pipe.unet.conv_in.weight
    (x.sum() * weight.sum()).backward()
    assert weight.grad is not None


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("argument", "values"),
    {
        "device": ("gpu", "cuda:x", 1.5, ["cpu"], True, "meta", ""),
        "dtype": ("float32", torch.int8, 16, torch.float8_e5m2, float),
        "download": ("yes", 1, None),
        "name": (None, 3, b"nano", ["nano"]),
    }.items(),
)
def test_arguments_of_a_wrong_type_are_named(load, argument, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{argument} must be"):
            load(**{argument: value})


UNKNOWN = ["nanoo", "a/b/c", "a--b/c", "a b/c", "", "sdxl"]
MISTYPED = ["/no/such/folder", "../nope", "~/a", "weights/A.PT", "x/a.safetensors", "a.ckpt", "here/nope"]
MISTYPED += ["C:\\a", "\0.pt", "x" * 300 + ".pt"]


@pytest.mark.parametrize("load", LOADERS)
def test_a_mistyped_path_is_no_hub_id(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for name in UNKNOWN + MISTYPED:
        with pytest.raises(
            ValueError, match="^unknown model .*; the known names are nano, .*hub id"
        ) as error:
            load(name, "cpu")
        assert f"'{name}'" in str(error.value)
        assert ("no such file or folder" in str(error.value)) == (name in MISTYPED or "/" in name)
    for name in ("anna/model", "anna/model_v1.5", "models/a"):
        with pytest.raises(ModelNotHere):
            load(name, "cpu")


def test_a_known_name_of_the_other_kind_names_the_other_function():
    for load, name, right in (
        (load_ddpm, "sd15", "load_stable_diffusion"),
        (load_stable_diffusion, "ddpm-celebahq-256", "load_ddpm"),
        (load_stable_diffusion, data_path("models", "ddpm"), "load_ddpm"),
        (load_ddpm, str(data_path("models", "sd")), "load_stable_diffusion"),
    ):
        with pytest.raises(OtherKind, match=f"{name}.* a .*Pipeline; .*load it with {right}") as error:
            load(name, "cpu")
        assert error.value.loader == right


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
