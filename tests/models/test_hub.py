"""Checkpoints by name, against a hub and a web server on this machine: nothing here reaches a network."""

import hashlib
import json
import pickle
import re
import shutil

import huggingface_hub
import pytest
import torch
from adm import random_adm
from diffusers import UNet2DModel
from fake_hub import fake_hub
from huggingface_hub import constants
from tiny import tiny_stable_diffusion

from antipure_lib.models.checkpoints import (
    KNOWN,
    MIRRORS,
    ModelNotHere,
    WebFile,
    known_checkpoints,
    load_ddpm,
    load_stable_diffusion,
)

GUIDED = "guided-diffusion-256-uncond"
BOTH = pytest.mark.parametrize(
    ("load", "folder"), [(load_ddpm, "ddpm_folder"), (load_stable_diffusion, "sd_folder")]
)


@pytest.fixture(autouse=True)
def empty_caches(monkeypatch, tmp_path):
    """Nothing is on this machine, and a test that starts no hub reaches a closed port."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's client waits between attempts
    monkeypatch.chdir(tmp_path)
    point_to("http://127.0.0.1:9", monkeypatch)


def point_to(address, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def hub(monkeypatch):
    """hub(repos): from then on the hub is a `fake_hub`; returns the list of paths asked for."""
    running = []

    def start(repos):
        running.append(fake_hub(repos))
        address, asked = running[-1].__enter__()
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
    with pytest.raises(ModelNotHere, match=rf"isn't on this.*{load.__name__}\('anna/model', download=True"):
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
    names = ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"]
    unwanted = ["v1-5-pruned.ckpt", "v1-5-pruned-emaonly.safetensors", "safety_checker/model.safetensors"]
    unwanted += [f"{n}.{end}" for n in names for end in ("bin", "fp16.safetensors", "non_ema.safetensors")]
    (sd_folder / "safety_checker").mkdir()
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
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D")}
    blocks |= {"up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "block_out_channels": (8, 16)}
    unet = UNet2DModel(sample_size=16, layers_per_block=1, norm_num_groups=4, **blocks).eval()
    unet.save_config(folder)
    state = unet.state_dict()
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        state = {key.replace(f".{new}.", f".{old}."): value for key, value in state.items()}
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
    asked = hub({second.id: tmp_path / "old"})
    with pytest.warns(UserWarning, match=f"comes from {second.id}, a mirror; {first.id}: .*Not Found"):
        pipe = load_ddpm("ddpm-celebahq-256", "cpu", torch.float32, download=True)
    x, t = torch.randn((1, 3, 16, 16), generator=torch.Generator().manual_seed(0)), torch.tensor([7])
    with torch.no_grad():
        assert torch.equal(pipe.unet(x, t).sample, unet(x, t).sample)
    files = [path for path in asked if "/resolve/" in path]  # the hub's client may ask for other things first
    assert files[0].startswith(f"{first.id}/resolve/{first.revision}/")
    assert files[1].startswith(f"{second.id}/resolve/{second.revision}/")
    assert load_ddpm("ddpm-celebahq-256", "cpu").scheduler.config.variance_type == "fixed_small"


def test_what_every_source_answered_is_told_and_kept(hub):
    hub({})
    with pytest.raises(ModelNotHere, match="couldn't be downloaded.*Not Found.*Use 'nano'") as told:
        load_ddpm("ddpm-celebahq-256", "cpu", download=True)
    error = pickle.loads(pickle.dumps(told.value))  # as it comes from another process
    ids = tuple(source.id for source in KNOWN["DDPMPipeline"]["ddpm-celebahq-256"])
    assert (error.name, error.sources) == ("ddpm-celebahq-256", ids)
    assert tuple(source for source, _ in error.answers) == ids and str(error) == str(told.value)
    with pytest.raises(ModelNotHere, match=MIRRORS["sd15"][0]):
        load_stable_diffusion("sd15", "cpu", download=True)


@BOTH
@pytest.mark.parametrize("lost", ["unet/*.safetensors", "scheduler/*"])
def test_a_download_that_lacks_a_file_names_it(load, folder, lost, hub, request):
    folder = request.getfixturevalue(folder)
    for file in folder.glob(lost):
        file.unlink()
    hub({"anna/model": folder})
    with pytest.raises(ModelNotHere, match=f"anna/model.*{lost.partition('*')[0]}|safetensors"):
        load("anna/model", "cpu", download=True)


@pytest.mark.parametrize("lost", ["vae/*.safetensors", "tokenizer/*", "[!m]*/*"])
@pytest.mark.parametrize("listing", [True, False])
def test_an_interrupted_download_is_completed(hub, sd_folder, tmp_path, monkeypatch, lost, listing):
    hub({"anna/model": sd_folder})
    load_stable_diffusion("anna/model", "cpu", download=True)
    for file in (tmp_path / "hub").glob(f"*/snapshots/*/{lost}"):
        file.resolve().unlink()
        file.unlink()
    if not listing:  # older clients of the hub keep no list of what belongs to a download
        moved = tmp_path / "moved"  # this one remembers its list, by the cache's path
        shutil.copytree(tmp_path / "hub", moved, symlinks=True, ignore=shutil.ignore_patterns("trees"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(moved))
    with pytest.raises(ModelNotHere, match="isn't on this machine"):
        load_stable_diffusion("anna/model", "cpu")
    load_stable_diffusion("anna/model", "cpu", download=True)


def test_offline_is_said_as_offline(monkeypatch):
    with pytest.raises(ModelNotHere, match="celebahq-256: can't be reached: .*offline. Use 'nano'") as told:
        load_ddpm("ddpm-celebahq-256", "cpu", download=True)
    assert len(told.value.answers) == 1  # to find out takes the hub's client half a minute each time
    sources = (WebFile("http://127.0.0.1:9/model.pt", "model.pt", ""),)
    monkeypatch.setitem(KNOWN["DDPMPipeline"], GUIDED, sources)
    with pytest.raises(ModelNotHere, match="model.pt: .*refused"):
        load_ddpm(GUIDED, "cpu", download=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in (GUIDED, "anna/model"):
        with pytest.raises(ModelNotHere, match="HF_HUB_OFFLINE says to stay offline.*Use 'nano'"):
            load_ddpm(name, "cpu", download=True)


def test_one_file_comes_from_the_first_address_that_has_it_whole(hub, monkeypatch, tmp_path):
    adm = random_adm(width=64, mults=(1, 1), head_channels=64).float()
    right, wrong = [tmp_path / "served" / name / "model.pt" for name in ("right", "wrong")]
    for file in (right, wrong):
        file.parent.mkdir(parents=True)
        torch.save(adm.state_dict(), file)
    wrong.write_bytes(right.read_bytes()[:-1])
    hub({"anna/files": tmp_path / "served"})
    digest = hashlib.sha256(right.read_bytes()).hexdigest()
    ids = [f"{constants.ENDPOINT}/anna/files/resolve/main/{n}/model.pt" for n in ("no", "wrong", "right")]
    sources = tuple(WebFile(address, "model.pt", digest) for address in ids)

    monkeypatch.setitem(KNOWN["DDPMPipeline"], GUIDED, sources[:2])
    by_hand = f"downloads it from {ids[0]}, or fetch it yourself and give its path in place of '{GUIDED}'"
    with pytest.raises(ModelNotHere, match=re.escape(by_hand)):
        load_ddpm(GUIDED, "cpu")
    with pytest.raises(ModelNotHere, match=r"no/model.pt: HTTP Error 404.*wrong/model.pt: invalid hash"):
        load_ddpm(GUIDED, "cpu", download=True)
    assert not [file for file in (tmp_path / "torch").rglob("*") if file.is_file()]

    monkeypatch.setitem(KNOWN["DDPMPipeline"], GUIDED, sources)
    with pytest.warns(UserWarning, match="a mirror"):
        pipe = load_ddpm(GUIDED, "cpu", torch.float32, download=True)
    assert torch.equal(pipe.unet.conv_in.weight, adm.input_blocks[0][0].weight)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_ddpm(GUIDED, "cpu").scheduler.config.variance_type == "learned_range"


def test_known_checkpoints_say_what_is_here_and_ask_no_network(hub, ddpm_folder):
    first = KNOWN["DDPMPipeline"]["ddpm-celebahq-256"][0]
    asked = hub({first.id: ddpm_folder})
    rows = {(row.loader, row.name): row for row in known_checkpoints()}
    names = {"load_ddpm": ["nano", "ddpm-celebahq-256", GUIDED], "load_stable_diffusion": ["nano", "sd15"]}
    assert set(rows) == {(loader, name) for loader, known in names.items() for name in known}
    assert {name for (_, name), row in rows.items() if row.path} == {"nano"} and asked == []
    for source in (source for names in KNOWN.values() for sources in names.values() for source in sources):
        fixed = source.sha256 if isinstance(source, WebFile) else source.revision
        assert re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", fixed), source
    assert rows["load_ddpm", "ddpm-celebahq-256"].sources[0] == first.id
    load_ddpm("ddpm-celebahq-256", "cpu", download=True)
    (row,) = [row for row in known_checkpoints() if row.name == "ddpm-celebahq-256"]
    assert load_ddpm(row.path, "cpu").unet.config.sample_size == 16


def test_another_kind_is_refused_before_anything_large_is_downloaded(hub, sd_folder, ddpm_folder):
    edit_index(sd_folder, _class_name="StableDiffusionXLPipeline")
    asked = hub({"anna/xl": sd_folder, "anna/ddpm": ddpm_folder})
    with pytest.raises(
        ValueError, match="anna/xl holds a StableDiffusionXLPipeline; this function loads a St"
    ):
        load_stable_diffusion("anna/xl", "cpu", download=True)
    with pytest.raises(ValueError, match="anna/ddpm holds a DDPMPipeline.*load it with load_ddpm"):
        load_stable_diffusion("anna/ddpm", "cpu", download=True)
    assert files_of(asked) == {"model_index.json"}
