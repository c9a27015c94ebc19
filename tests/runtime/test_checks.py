"""Numbers of other kinds are the same numbers; what is none is refused by its name, before the work."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import photos, tiny_stable_diffusion

from antipure_lib.benchmark.rows import read_rows, write_rows
from antipure_lib.core.antipure import antipure
from antipure_lib.customization.generate import generate
from antipure_lib.customization.lora import lora, save_lora
from antipure_lib.models.checkpoints import load_ddpm
from antipure_lib.photos.jobs import plan_jobs
from antipure_lib.photos.photo import photo_size, read_photo, save_photo
from antipure_lib.photos.pictures import load_image, save_image
from antipure_lib.protections.registry import PROTECTIONS, protect
from antipure_lib.purifiers.registry import PURIFIERS, purify
from antipure_lib.runtime.checks import check_number

PURIFYING = [name for name, purifier in PURIFIERS.items() if purifier.needs]


@pytest.fixture(scope="module")
def given(tiny_ddpm):
    return {"ddpm": tiny_ddpm, "pipe": tiny_stable_diffusion(), "set_a": photos(2, seed=3)}


@pytest.mark.parametrize(
    "seed", [2**63, 2**64, -1, True, 1.0, "0", None, np.float32(1), [1], torch.tensor(0.5)]
)
def test_a_seed_that_is_none_is_named_everywhere(given, pictures, seed):
    x = pictures(1)
    calls = [lambda name=name: purify(name, x, seed=seed, **given_to(name, given)) for name in PURIFYING]
    calls += [
        lambda name=name: protect(name, x, seed=seed, **given) for name in PROTECTIONS if name != "none"
    ]
    calls += [lambda: lora(given["pipe"], x, seed=seed), lambda: generate(given["pipe"], "a", seed=seed)]
    for call in calls:
        with pytest.raises(ValueError, match="^seed must be"):
            call()


def given_to(name, given):
    return {"ddpm": given["ddpm"], "pipe": given["pipe"]} | PURIFIERS[name].quick


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), torch.tensor(3)])
def test_a_whole_number_of_another_kind_is_the_same_seed(given, pictures, seed):
    x, pipe = pictures(1), given["pipe"]
    for run in (
        lambda seed: purify("diffpure2", x, ddpm=given["ddpm"], seed=seed),
        lambda seed: protect("antipure", x, steps=1, seed=seed, **given),
        lambda seed: protect("aspl", x, steps=1, seed=seed, **given, **PROTECTIONS["aspl"].quick),
        lambda seed: protect("random", x, seed=seed),
        lambda seed: lora(pipe, x, steps=1, seed=seed).unet.conv_out.weight,
        lambda seed: generate(pipe, "a photo", n=1, steps=1, seed=seed),
    ):
        assert torch.equal(run(seed), run(3))


@pytest.mark.parametrize(
    "eta", ["8", 8, 0, -0.1, None, True, torch.tensor([0.1, 0.2]), float("nan"), 1j, [0.1]]
)
def test_a_budget_that_is_none_is_named_everywhere(given, pictures, eta):
    for name in PROTECTIONS:
        if name != "none":
            with pytest.raises(ValueError, match="^eta must be"):
                protect(name, pictures(1), eta=eta, **given)


@pytest.mark.parametrize(
    "eta",
    [torch.tensor(8 / 255, dtype=torch.float64), np.float64(8 / 255), Fraction(8, 255), np.array(8 / 255)],
    ids=lambda eta: type(eta).__name__,
)
def test_a_number_of_another_kind_is_the_same_budget(given, pictures, eta):
    for name in ("antipure", "mist", "aspl", "random"):
        options = {"steps": 2, "seed": 1, **given, **PROTECTIONS[name].quick}
        assert torch.equal(
            protect(name, pictures(1), eta=eta, **options), protect(name, pictures(1), eta=8 / 255, **options)
        ), name


@pytest.mark.parametrize("eta", [np.float32(8 / 255), torch.tensor(8 / 255), np.float16(8 / 255)])
def test_a_coarse_number_stays_within_its_own_budget(given, pictures, eta):
    x = pictures(1)
    change = (antipure(given["ddpm"], x, eta=eta, steps=9) - x).abs().max()
    assert 6.5 / 255 < change <= float(eta) + 1e-6


@pytest.mark.parametrize("steps", [True, 2.0, "2", None, 0, -1, np.float64(2), [2]])
def test_a_count_that_is_none_is_named_everywhere(given, pictures, steps):
    for name in PROTECTIONS:
        if name not in ("none", "random"):
            with pytest.raises(ValueError, match="^steps must be"):
                protect(name, pictures(1), **given | {"steps": steps})
    with pytest.raises(ValueError, match="^steps must be"):
        lora(given["pipe"], pictures(1), steps=steps)
    with pytest.raises(ValueError, match="^steps must be"):
        generate(given["pipe"], "a", steps=steps)


@pytest.mark.parametrize(
    "value", [3, 3.0, np.int8(3), np.float32(3), Fraction(3), torch.tensor(3), np.array(3.0)]
)
def test_numbers_become_plain(value):
    assert check_number(value, "x") == 3.0 and type(check_number(value, "x")) is float


def test_a_path_may_begin_with_the_users_own_folder(tmp_path, monkeypatch, tiny_folder, pictures):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    x = pictures(1)[0]
    assert save_image(x, "~/new/a.png") == tmp_path / "home/new/a.png"
    assert load_image(Path("~/new/a.png")).equal(x) and photo_size("~/new/a.png") == (16, 16)
    photo = read_photo("~/new/a.png")
    save_photo(photo, photo.x, "~/b.png")
    trained = lora(tiny_stable_diffusion(), photos(1), steps=1, batch=1, prompt="a photo")
    assert save_lora(trained, "~/me").parent == tmp_path / "home/me"
    write_rows("~/rows.csv", [])
    assert read_rows("~/rows.csv") == []
    (job,) = plan_jobs(["~/b.png"], "~/out", "protect")
    assert (job.photo, job.output) == (tmp_path / "home/b.png", tmp_path / "home/out/b.png")
    (tmp_path / "home/model").symlink_to(tiny_folder)
    expected = load_ddpm(tiny_folder).unet.conv_in.weight
    assert load_ddpm("~/model").unet.conv_in.weight.equal(expected)
    assert not (tmp_path / "~").exists()
