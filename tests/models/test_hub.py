"""Checkpoints by name, against a hub and a web server on this machine: nothing here reaches a network."""

import hashlib
import json
import re
import shutil
import sys

import pytest
import torch
from diffusers import UNet2DModel
from fake_hub import fake_hub
from huggingface_hub import constants
from tiny import tiny_stable_diffusion

from antipure_lib.models.checkpoints import KNOWN, known_checkpoints, load_ddpm, load_stable_diffusion
from antipure_lib.models.hub import HubRepo, WebFile, obtain

GUIDED = "guided-diffusion-256-uncond"
BOTH = pytest.mark.parametrize(
    ("load", "folder"), [(load_ddpm, "ddpm_folder"), (load_stable_diffusion, "sd_folder")]
)


@pytest.fixture(autouse=True)
def empty_caches(monkeypatch, tmp_path):
    """Nothing is on this machine, and whoever forgets to start a hub reaches a port where nobody listens."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    point_to("http://127.0.0.1:9", monkeypatch)


def point_to(address, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(monkeypatch):
    """hub(repos): from then on the hub is a `fake_hub`; returns the list of paths asked for."""
    running = []

    def start(repos):
        context = fake_hub(repos)
        running.append(context)
        address, asked = context.__enter__()
        point_to(address, monkeypatch)
        return asked

    yield start
    for context in running:
        context.__exit__(None, None, None)


@pytest.fixture
def ddpm_folder(make_ddpm, tmp_path):
    make_ddpm().save_pretrained(tmp_path / "ddpm")
    return tmp_path / "ddpm"


@pytest.fixture
def sd_folder(tmp_path):
    tiny_stable_diffusion().save_pretrained(tmp_path / "sd")
    return tmp_path / "sd"


def edit_index(folder, **changes):
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))
    return folder


def files_of(asked):
    return {path.split("/", 4)[4] for path in asked if "/resolve/" in path}


@BOTH
def test_a_hub_id_is_downloaded_on_request_alone_and_once(load, folder, hub, request):
    asked = hub({"anna/model": request.getfixturevalue(folder)})
    with pytest.raises(
        FileNotFoundError, match=rf"isn't on this.*{load.__name__}\('anna/model', download=True"
    ):
        load("anna/model", "cpu")
    assert asked == []
    pipe = load("anna/model", "cpu", torch.float32, download=True)
    assert asked and type(pipe) is type(load(request.getfixturevalue(folder), "cpu"))
    del asked[:]
    for download in (False, True):
        again = load("anna/model", "cpu", torch.float32, download=download)
        assert torch.equal(again.unet.conv_in.weight, pipe.unet.conv_in.weight)
    assert asked == []


def test_only_what_is_loaded_is_downloaded(hub, sd_folder):
    (sd_folder / "safety_checker").mkdir()
    unwanted = ["v1-5-pruned.ckpt", "v1-5-pruned-emaonly.safetensors", "safety_checker/model.safetensors"]
    names = ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"]
    unwanted += [
        f"{name}.{end}" for name in names for end in ("bin", "fp16.safetensors", "non_ema.safetensors")
    ]
    for name in unwanted:
        (sd_folder / name).write_bytes(b"gigabytes")
    parts = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    edit_index(sd_folder, feature_extractor=["transformers", "CLIPFeatureExtractor"], **parts)
    asked = hub({"anna/model": sd_folder})
    pipe = load_stable_diffusion("anna/model", "cpu", download=True)
    assert pipe.safety_checker is None and pipe.feature_extractor is None
    assert {f"{name}.safetensors" for name in names} <= files_of(asked)
    assert not files_of(asked) & set(unwanted)


def old_layout(folder):
    """A model as the oldest repositories hold it: no subfolders, pickled weights, attention's old names."""
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()
    unet.save_config(folder)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = unet.state_dict()
    for new, name in old.items():
        state = {key.replace(f".{new}.", f".{name}."): value for key, value in state.items()}
    assert any("proj_attn" in key for key in state)
    torch.save(state, folder / "diffusion_pytorch_model.bin")
    scheduler = {"_class_name": "DDPMScheduler", "variance_type": "fixed_small", "clip_sample": True}
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    parts = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"} | parts))
    return unet


def test_a_known_name_falls_back_to_the_next_source_at_its_pinned_revision(hub, tmp_path):
    (tmp_path / "old").mkdir()
    unet = old_layout(tmp_path / "old")
    first, second = KNOWN["DDPMPipeline"]["ddpm-celebahq-256"]
    asked = hub({first.id: "gone", second.id: tmp_path / "old"})
    with pytest.warns(UserWarning, match=f"comes from {second.id}, a mirror; {first.id} is gone"):
        pipe = load_ddpm("ddpm-celebahq-256", "cpu", torch.float32, download=True)
    x, t = torch.randn((1, 3, 16, 16), generator=torch.Generator().manual_seed(0)), torch.tensor([7])
    with torch.no_grad():
        assert torch.equal(pipe.unet(x, t).sample, unet(x, t).sample)
    files = [path for path in asked if "/resolve/" in path]  # the hub's client may ask for other things first
    assert files[0].startswith(f"{first.id}/resolve/{first.revision}/")
    assert files[1].startswith(f"{second.id}/resolve/{second.revision}/")
    assert load_ddpm("ddpm-celebahq-256", "cpu").scheduler.config.variance_type == "fixed_small"


def test_every_known_source_is_pinned_to_a_commit_or_to_its_weights():
    for source in (source for names in KNOWN.values() for sources in names.values() for source in sources):
        assert source.sha256 or re.fullmatch("[0-9a-f]{40}", source.revision), source


def test_a_mirror_with_the_known_weights_serves(hub, sd_folder):
    files = [f"{part}.safetensors" for part in ("unet/diffusion_pytorch_model", "text_encoder/model")]
    known = tuple((name, hashlib.sha256((sd_folder / name).read_bytes()).hexdigest()) for name in files)
    hub({"mirror/model": sd_folder})
    sources = (HubRepo("anna/model"), HubRepo("mirror/model", sha256=known))
    with pytest.warns(UserWarning, match="'model' comes from mirror/model, a mirror; anna/model is gone"):
        assert obtain("model", "StableDiffusionPipeline", sources, True, "nano").is_dir()


def test_a_mirror_with_other_weights_is_refused_and_not_kept(hub, sd_folder):
    mirror = KNOWN["StableDiffusionPipeline"]["sd15"][1].id
    hub({mirror: sd_folder})
    wrong = "holds another unet/diffusion_pytorch_model.safetensors than the known one"
    with pytest.raises(FileNotFoundError, match=f"{mirror} {wrong}"):
        load_stable_diffusion("sd15", "cpu", download=True)
    with pytest.raises(FileNotFoundError, match="'sd15' isn't on this machine"):
        load_stable_diffusion("sd15", "cpu")


def test_what_became_of_every_source_is_said(hub, tmp_path):
    first, second, third = [source.id for source in KNOWN["StableDiffusionPipeline"]["sd15"]]
    (tmp_path / "empty").mkdir()
    hub({first: "gated", second: "no revision", third: tmp_path / "empty"})
    with pytest.raises(FileNotFoundError) as error:
        load_stable_diffusion("sd15", "cpu", download=True)
    message = str(error.value)
    assert f"{first} is gated: accept its conditions on its page and log in" in message
    assert f"{second} no longer has the revision" in message
    assert f"{third} has no model_index.json" in message
    assert "Use 'nano', a local folder or a hub id" in message


def test_a_vanished_repository_is_said_to_be_gone(hub):
    hub({})
    with pytest.raises(
        FileNotFoundError, match="anna/model is gone from the hub, or private. Use nano, ddpm-cele"
    ):
        load_ddpm("anna/model", "cpu", download=True)


@BOTH
def test_a_download_without_weights_says_which(load, folder, hub, request):
    folder = request.getfixturevalue(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    hub({"anna/model": folder})
    with pytest.raises(FileNotFoundError, match="anna/model has no unet/diffusion_pytorch_model"):
        load("anna/model", "cpu", download=True)


@pytest.mark.parametrize("listing", [True, False])
def test_an_interrupted_download_is_completed(hub, sd_folder, tmp_path, monkeypatch, listing):
    asked = hub({"anna/model": sd_folder})
    load_stable_diffusion("anna/model", "cpu", download=True)
    (weights,) = (tmp_path / "hub").glob("*/snapshots/*/vae/*.safetensors")
    weights.resolve().unlink()
    weights.unlink()
    if not listing:  # older clients of the hub keep no list of what belongs to a download
        moved = tmp_path / "moved"  # this one remembers its list, by the cache's path
        shutil.copytree(tmp_path / "hub", moved, symlinks=True, ignore=shutil.ignore_patterns("trees"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(moved))
    del asked[:]
    with pytest.raises(FileNotFoundError, match="isn't on this machine"):
        load_stable_diffusion("anna/model", "cpu")
    load_stable_diffusion("anna/model", "cpu", download=True)
    assert files_of(asked) == {"model_index.json", "vae/diffusion_pytorch_model.safetensors"} or (
        files_of(asked) == {"vae/diffusion_pytorch_model.safetensors"}
    )


@pytest.mark.parametrize(
    "lost", ["unet/config.json", "vae/config.json", "text_encoder/config.json", "tokenizer/*"]
)
def test_a_cache_that_lost_a_file_is_completed(hub, sd_folder, tmp_path, lost):
    hub({"anna/model": sd_folder})
    load_stable_diffusion("anna/model", "cpu", download=True)
    for file in (tmp_path / "hub").glob(f"*/snapshots/*/{lost}"):
        file.resolve().unlink()
        file.unlink()
    with pytest.raises(FileNotFoundError, match="isn't on this machine"):
        load_stable_diffusion("anna/model", "cpu")
    load_stable_diffusion("anna/model", "cpu", download=True)


def test_offline_is_said_as_offline(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client waits between attempts
    with pytest.raises(
        FileNotFoundError, match="v1-5 can't be reached: this machine seems to be offline. Use 'n"
    ):
        load_stable_diffusion("sd15", "cpu", download=True)
    here = WebFile("http://127.0.0.1:9/model.pt", "model.pt", "")
    monkeypatch.setitem(KNOWN["DDPMPipeline"], GUIDED, (here,))
    with pytest.raises(
        FileNotFoundError, match="model.pt can't be reached: this machine seems to be offline"
    ):
        load_ddpm(GUIDED, "cpu", download=True)


@pytest.mark.parametrize(
    ("load", "name"), [(load_ddpm, GUIDED), (load_ddpm, "anna/model"), (load_stable_diffusion, "sd15")]
)
def test_the_hubs_offline_switch_is_respected(load, name, hub, monkeypatch):
    asked = hub({})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE says to stay offline.*or use.*nano"):
        load(name, "cpu", download=True)
    assert asked == []


def test_one_file_comes_from_the_first_address_that_has_it_whole(hub, monkeypatch, tmp_path):
    from adm import random_adm

    adm = random_adm(width=64, mults=(1, 1), head_channels=64).float()
    (tmp_path / "served" / "right").mkdir(parents=True)
    (tmp_path / "served" / "wrong").mkdir()
    right, wrong = [tmp_path / "served" / name / "model.pt" for name in ("right", "wrong")]
    torch.save(adm.state_dict(), right)
    wrong.write_bytes(right.read_bytes()[:-1])
    hub({"anna/files": tmp_path / "served"})
    digest = hashlib.sha256(right.read_bytes()).hexdigest()
    addresses = [
        f"{constants.ENDPOINT}/anna/files/resolve/main/{name}/model.pt" for name in ("no", "wrong", "right")
    ]
    sources = tuple(WebFile(address, "model.pt", digest) for address in addresses)

    monkeypatch.setitem(KNOWN["DDPMPipeline"], GUIDED, sources[:2])
    with pytest.raises(
        FileNotFoundError, match=rf"fetch it yourself and give its path in place of '{GUIDED}'"
    ) as error:
        load_ddpm(GUIDED, "cpu")
    assert f"downloads it from {addresses[0]}" in str(error.value)
    with pytest.raises(
        FileNotFoundError, match=r"no/model.pt answered HTTP Error 404.*wrong/model.pt invalid hash"
    ):
        load_ddpm(GUIDED, "cpu", download=True)
    assert not [file for file in (tmp_path / "torch").rglob("*") if file.is_file()]

    monkeypatch.setitem(KNOWN["DDPMPipeline"], GUIDED, sources)
    pipe = load_ddpm(GUIDED, "cpu", torch.float32, download=True)
    assert torch.equal(pipe.unet.conv_in.weight, adm.input_blocks[0][0].weight)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_ddpm(GUIDED, "cpu").scheduler.config.variance_type == "learned_range"


def test_the_authors_address_is_named():
    with pytest.raises(
        FileNotFoundError, match="https://openaipublic.*/jul-2021/256x256_diffusion_uncond.pt, or"
    ):
        load_ddpm(GUIDED, "cpu")


def test_known_checkpoints_say_what_is_here(hub, ddpm_folder):
    first = KNOWN["DDPMPipeline"]["ddpm-celebahq-256"][0]
    asked = hub({first.id: ddpm_folder})
    rows = {(row.loader, row.name): row for row in known_checkpoints()}
    assert set(rows) == {
        ("load_ddpm", "nano"),
        ("load_ddpm", "ddpm-celebahq-256"),
        ("load_ddpm", GUIDED),
        ("load_stable_diffusion", "nano"),
        ("load_stable_diffusion", "sd15"),
    }
    assert {name for (_, name), row in rows.items() if row.path} == {"nano"} and asked == []
    row = rows["load_ddpm", "ddpm-celebahq-256"]
    assert row.kind == "DDPMPipeline" and row.sources[0] == first.id and row.path is None
    load_ddpm("ddpm-celebahq-256", "cpu", download=True)
    (row,) = [row for row in known_checkpoints() if row.name == "ddpm-celebahq-256"]
    assert load_ddpm(row.path, "cpu").unet.config.sample_size == 16


def test_every_known_checkpoint_starts_with_something_that_cannot_change():
    for names in KNOWN.values():
        for first, *_ in names.values():
            fixed = first.sha256 if isinstance(first, WebFile) else first.revision
            assert re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", fixed)


@pytest.mark.parametrize("load", [load_ddpm, load_stable_diffusion])
@pytest.mark.parametrize("name", ["sdxl", "stabilityai/stable-diffusion-xl-base-1.0", "anna/my-SDXL"])
def test_sdxl_is_refused_by_name(load, name):
    with pytest.raises(ValueError, match="SDXL isn't supported"):
        load(name, "cpu", download=True)


def test_sdxl_is_refused_by_its_index_before_anything_else_is_downloaded(hub, sd_folder):
    edit_index(sd_folder, _class_name="StableDiffusionXLPipeline")
    with pytest.raises(
        ValueError, match=rf"{sd_folder} holds a StableDiffusionXLPipeline. SDXL isn't supported"
    ):
        load_stable_diffusion(sd_folder, "cpu")
    asked = hub({"anna/model": sd_folder})
    with pytest.raises(
        ValueError, match="anna/model holds a StableDiffusionXLPipeline. SDXL isn't supported"
    ):
        load_stable_diffusion("anna/model", "cpu", download=True)
    assert files_of(asked) == {"model_index.json"}


def test_a_known_name_of_the_other_kind_names_the_other_function():
    with pytest.raises(
        ValueError, match="'sd15' is a StableDiffusionPipeline; load it with load_stable_diffusion"
    ):
        load_ddpm("sd15", "cpu")
    with pytest.raises(ValueError, match=f"'{GUIDED}' is a DDPMPipeline; load it with load_ddpm"):
        load_stable_diffusion(GUIDED, "cpu")


@pytest.mark.parametrize(
    "name", ["nanoo", "a/b/c", "/no/such/folder", "../nope", "./a", "a--b/c", "a b/c", ""]
)
@pytest.mark.parametrize("load", [load_ddpm, load_stable_diffusion])
def test_other_words_are_unknown_names(load, name):
    with pytest.raises(ValueError, match=f"unknown model '{name}'; the known names are nano, .*hub id"):
        load(name, "cpu", download=True)


class Code:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickled_weights_never_execute_code(ddpm_folder, tmp_path):
    (ddpm_folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    weights = ddpm_folder / "unet" / "diffusion_pytorch_model.bin"
    torch.save({"conv_in.weight": Code(tmp_path / "written")}, weights)
    with pytest.raises(ValueError, match=f"{ddpm_folder} can't be loaded"):
        load_ddpm(ddpm_folder, "cpu")
    assert not (tmp_path / "written").exists()
    torch.load(weights, weights_only=False)  # the trap is a trap
    assert (tmp_path / "written").exists()


def test_a_text_to_image_folder_needs_safetensors(sd_folder):
    weights = sd_folder / "text_encoder" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ValueError, match=rf"{sd_folder} has no text_encoder/model\*.safetensors"):
        load_stable_diffusion(sd_folder, "cpu")


@BOTH
@pytest.mark.parametrize("part", ["unet", "scheduler"])
def test_code_in_a_folder_is_never_executed(load, folder, part, request, tmp_path, monkeypatch):
    folder = request.getfixturevalue(folder)
    code = f"open({str(tmp_path / 'written')!r}, 'w').close()\nclass Evil: pass\n"
    for home in (folder, folder / part):
        (home / "evil.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    edit_index(folder, **{part: ["evil", "Evil"]})
    with pytest.raises(ValueError, match=rf"{folder}: its {part} is \['evil', 'Evil'\]"):
        load(folder, "cpu")
    edit_index(folder, _class_name=["evil", "Evil"])
    with pytest.raises(ValueError, match="holds a "):
        load(folder, "cpu")
    assert not (tmp_path / "written").exists() and "evil" not in sys.modules


@BOTH
def test_damaged_folders_are_named(load, folder, request):
    folder = request.getfixturevalue(folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole = weights.read_bytes()
    for content in (b"", whole[:100], whole[:-7]):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match=f"{folder} can't be loaded"):
            load(folder, "cpu")
    weights.write_bytes(whole)
    shutil.copy(folder / "scheduler" / "scheduler_config.json", folder / "unet" / "config.json")
    with pytest.raises(ValueError, match=f"{folder} can't be loaded"):
        load(folder, "cpu")
    for content in ("", "[1]", "3", "{}"):
        (folder / "model_index.json").write_text(content)
        with pytest.raises(ValueError, match=f"{folder}"):
            load(folder, "cpu")
