"""Photos through `protect` and `purify`: right files, with what belongs to them, at their own size."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_stable_diffusion

from antipure_lib.commands import protect
from antipure_lib.core.pgd import fast
from antipure_lib.core.tiles import tile_count
from antipure_lib.photos.pictures import load_image, save_image
from antipure_lib.protections import registry
from antipure_lib.protections.registry import PROTECTIONS, Protection, protection_plan
from antipure_lib.purifiers.registry import PURIFIERS, Purifier, purify
from antipure_lib.runtime.memory import memory_plan

RANDOM = ("--method", "random", "--steps", 1)


def test_protecting_equals_the_library_and_keeps_the_budget(run, photos, files, make_ddpm):
    (x,) = photos("me.png", h=24, w=37)
    status, out, err = run("protect", "me.png", "--steps", 3, "--eta", 5, "--seed", 2)
    assert (status, err) == (0, [])
    assert out == ["me.png → out/me.png", "out: 1 made, 0 kept, 0 failed"]
    expected = registry.protect("antipure", x, ddpm=make_ddpm(), eta=5 / 255, steps=3, seed=2)
    assert torch.equal(load_image("out/me.png"), expected)
    assert 0 < (load_image("out/me.png") - x).abs().max() <= 5 / 255 + 1e-6
    assert set(files()) == {"me.png", ".manifest/me.png.json"}


def test_fast_takes_ten_long_steps_or_as_many_as_steps_says(run, photos, monkeypatch):
    seen, plain = [], protect.protect_steps

    def noted(*args, **options):
        seen.append(options)
        return plain(*args, **options)

    monkeypatch.setattr(protect, "protect_steps", noted)
    photos("me.png")
    for words, steps in (([], 10), (["--steps", 3], 3)):
        _, out, _ = run("protect", "me.png", "--fast", *words)
        assert fast(8 / 255, steps).items() <= seen.pop().items()
    assert out[0].endswith("made again: other settings (steps)")
    _, out, _ = run("protect", "me.png", "--steps", 3)
    assert out[0].endswith("made again: other settings (momentum, step_size)")


@pytest.mark.parametrize(
    "name", ["gridpure2", "gridpure2x3", "freqpure1x3", "diffpure4", "jpeg50", "jpeg75+gridpure2"]
)
def test_purifying_equals_the_library(run, photos, make_ddpm, name):
    (x,) = photos("me.png", h=20)
    assert run("purify", "me.png", "--purifier", name, "--seed", 3)[::2] == (0, [])
    assert torch.equal(load_image("out/me.png"), purify(name, x, ddpm=make_ddpm(), seed=3))


def test_diagnose_prints_flags_and_writes_nothing(run, photos, files, make_ddpm):
    photos("a.png", "b.png", h=20)
    before = files(".")
    status, out, err = run("protect", "a.png", "b.png", "--steps", 12, "--fast", "--diagnose", out=None)
    assert (status, err) == (0, [])
    assert out == [f"{name}.png: nothing found that would make the protection weak" for name in "ab"]
    pipe = make_ddpm()
    with torch.no_grad():
        pipe.unet.conv_out.weight.zero_()
    pipe.save_pretrained("flat")
    words = ("protect", "a.png", "--method", "pixel-ddpm", "--steps", 2, "--diagnose")
    status, out, _ = run(*words, out=None, model="flat")
    assert status == 0 and [line.split(": ")[:2] for line in out] == [
        ["a.png", "zero gradient"],
        ["a.png", "no gain"],
    ]
    assert all("; " in line for line in out)  # a remedy
    status, out, (line,) = run("protect", "a.png", "--method", "random", "--diagnose", out=None)
    assert status == 1 and line.startswith("error: a.png: state holds no objective")
    assert run("protect", "a.png", out=None)[2] == [
        "error: --out is missing; see python -m antipure_lib protect --help"
    ]
    assert {name: content for name, content in files(".").items() if "flat" not in name} == before


def test_a_purifier_may_need_a_latent_model(run, photos, pipe):
    (x,) = photos("me.png", h=20, w=17)
    pipe.save_pretrained("sd")
    words = ("purify", "me.png", "--purifier", "autoencoder", "--pipe", "sd")
    assert run(*words)[::2] == (0, []) and not run.estimates
    assert torch.equal(load_image("out/me.png"), purify("autoencoder", x, pipe=pipe))
    assert "kept" in run(*words, "--seed", 3)[1][0]  # it draws nothing


def test_small_photos_keep_their_size(run, pictures):
    for height, width in ((1, 1), (3, 20), (20, 3), (15, 16)):
        save_image(pictures(1, height, width)[0], f"{height}x{width}.png")
    names = sorted(Path().glob("*.png"))
    assert run("protect", *names, "--steps", 1)[0] == 0
    assert run("purify", *names, "--purifier", "diffpure1", out="pure")[0] == 0
    for name in names:
        x, x_adv = load_image(name), load_image("out" / name)
        assert x_adv.shape == x.shape == load_image("pure" / name).shape
        assert 0 < (x_adv - x).abs().max() <= 8 / 255 + 1e-6


def test_latent_methods_take_photos_of_the_models_size_alone(run, photos, tmp_path):
    tiny_stable_diffusion().save_pretrained("sd")
    photos("fits.png")
    photos("large.png", h=20)
    words = ("--method", "advdm", "--pipe", "sd", "--steps", 1)
    status, out, err = run("protect", "large.png", "fits.png", *words)
    assert status == 1 and out[0] == "fits.png → out/fits.png"
    (line,) = err
    assert "large.png: advdm takes only the latent model's size, 16×16" in line and "antipure" in line


GREY = {
    "8 bits": lambda grey: Image.fromarray(grey),
    "16 bits": lambda grey: Image.fromarray(grey.astype(np.uint16) * 257),
    "transparent": lambda grey: Image.merge("LA", [Image.fromarray(grey), Image.fromarray(255 - grey)]),
    "palette": lambda grey: Image.fromarray(grey).quantize(16),
}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("8 bits", ("protect", "--steps", 1)),
        ("16 bits", ("protect", *RANDOM)),
        ("transparent", ("protect", *RANDOM, "--seed", 1)),
        ("transparent", ("purify", "--purifier", "diffpure9")),
        ("palette", ("purify", "--purifier", "jpeg75")),
    ],
)
def test_a_grey_photo_stays_grey_and_that_is_said(run, pictures, kind, words):
    grey = (pictures(1, 20, 24)[0].mean(0) * 255).byte().numpy()
    GREY[kind](grey).save("a.png")
    status, out, _ = run(words[0], "a.png", *words[1:])
    assert status == 0 and "; grey, as the photo is" in out[0]
    pixels = np.asarray(Image.open("out/a.png").convert("RGB")).astype(int)
    assert np.ptp(pixels, axis=2).max() == 0
    stored = Image.open("a.png").convert("L") if kind == "palette" else grey
    change = np.abs(pixels[..., 0] - np.asarray(stored))
    assert change.max() > 0 and (words[0] == "purify" or change.max() <= 8)
    assert Image.open("out/a.png").mode == ("RGBA" if kind == "transparent" else "L")


@pytest.mark.parametrize("words", [("protect", *RANDOM), ("purify", "--purifier", "diffpure2")])
def test_a_photo_becomes_grey_on_request_and_that_is_said(run, photos, words):
    photos("colour.png", h=20, w=24)
    luma = Image.open("colour.png").convert("L")
    luma.convert("RGB").save("equal.png")  # three equal channels
    _, out, _ = run(words[0], "colour.png", "equal.png", "--grey", *words[1:])
    assert "; made grey" in out[0] and "; grey, as the photo is" in out[1]
    colour, equal = (np.asarray(Image.open(f"out/{name}.png")).astype(int) for name in ("colour", "equal"))
    assert colour.ndim == 2 and (colour == equal).all()
    change = np.abs(colour - np.asarray(luma))
    assert change.max() > 0 and (words[0] == "purify" or change.max() <= 8)
    assert "made again: other settings (grey)" in run(words[0], "colour.png", *words[1:])[1][0]


def test_a_photo_with_colour_keeps_it(run, photos):
    photos("a.png")
    assert "grey" not in run("protect", "a.png", *RANDOM)[1][0]
    change = load_image("out/a.png") - load_image("a.png")
    assert (change[0] != change[1]).any()


def test_transparency_that_jpeg_cannot_hold_is_told_before_the_work(run, monkeypatch):
    Image.new("RGBA", (16, 16), (10, 200, 30, 77)).save("glass.png")
    begun = lambda *words, **options: pytest.fail("it began")  # noqa: E731
    monkeypatch.setattr(protect, "protect_steps", begun)
    status, _, err = run("protect", "glass.png", "--jpeg", "--method", "random")
    assert status == 1
    assert err == ["error: glass.png: JPEG can't hold the photo's transparency; leave --jpeg out"]


def test_jpeg_only_when_forced_and_then_with_its_price(run, photos, files, make_ddpm):
    (x,) = photos("me.png", h=32, w=32)
    status, out, _ = run("protect", "me.png", "--jpeg", "--steps", 2)
    assert status == 0 and set(files()) == {"me.jpg", ".manifest/me.jpg.json"}
    assert Image.open("out/me.jpg").format == "JPEG" and load_image("out/me.jpg").shape == x.shape
    assert 0 < int(re.search(r"JPEG leaves (\d+)%", out[0])[1]) < 100
    pipe = make_ddpm()
    with torch.no_grad():
        pipe.unet.conv_out.weight.zero_()  # it always answers alike: there is no slope to climb
    pipe.save_pretrained("flat")
    words = ("--method", "pixel-ddpm", "--steps", 1, "--jpeg")
    _, out, _ = run("protect", "me.png", *words, out="same", model="flat")
    assert "no perturbation that JPEG could destroy" in out[0] and "nan" not in out[0]


def test_metadata_on_request(run, photos):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    photos("me.png", h=20)
    for suffix in ("tif", "jpg"):
        Image.open("me.png").save(f"{suffix}.{suffix}", exif=exif)
        run("protect", f"{suffix}.{suffix}", *RANDOM, out="bare")
        run("protect", f"{suffix}.{suffix}", *RANDOM, "--keep-metadata", out="kept")
        bare, kept = (Image.open(f"{out}/{suffix}.png") for out in ("bare", "kept"))
        assert bare.size == kept.size == (20, 16)  # turned
        assert not bare.getexif() and dict(kept.getexif()) == {0x010F: "Maker", 0x0112: 1}


def test_a_model_that_gives_nan_is_told(run, photos, files, make_ddpm):
    pipe = make_ddpm()
    with torch.no_grad():
        pipe.unet.conv_out.weight.fill_(torch.nan)
    pipe.save_pretrained("model")
    photos("a.png")
    status, _, (line,) = run("protect", "a.png", "--steps", 1, model="model")
    assert status == 1 and not files()
    assert line.startswith("error: a.png: NaN or infinite gradients") and "--precision float32" in line


def test_memory_of_the_largest_photo_is_told_once(run, photos, make_ddpm):
    photos("small.png", "other.png")
    photos("large.png", h=40, w=24)
    plans = {
        ("protect", "--steps", 1): protection_plan("antipure", make_ddpm(), (1, 40, 24)),
        ("purify", "--purifier", "diffpure1"): memory_plan(make_ddpm(), tile_count(40, 24, 16), False),
        ("protect", *RANDOM): None,
        ("purify", "--purifier", "jpeg75"): None,
    }
    for (command, *words), plan in plans.items():
        run(command, "small.png", "large.png", "other.png", "gone.png", *words, out=words[1])
        told = [line.partition(", in the UNet")[0] for line in run.estimates]
        assert told == ([f"estimate: largest photo, {plan}".partition(", in the UNet")[0]] if plan else [])


def test_photos_that_need_more_memory_than_there_is_are_refused(run, photos, monkeypatch):
    photos("small.png")
    photos("large.png", h=64, w=80)
    monkeypatch.setattr("antipure_lib.runtime.memory.free_memory", lambda device: 1_500_000)
    for command, *words in (("protect", "--steps", 1), ("purify", "--purifier", "diffpure1")):
        status, out, (line,) = run(command, "large.png", "small.png", *words, out=command)
        assert status == 1 and out[-1] == f"{command}: 1 made, 0 kept, 1 failed"
        assert re.search(r"large.png: 80×64 pixels need about \d[.]\d GB .* 0.0 GB are free; make", line)
        assert "all that is free" in run.estimates[0]


def test_time_left_knows_the_photos_that_were_kept(run, photos, monkeypatch):
    import tqdm

    photos("a.png", "b.png", "c.png")
    run("purify", "a.png", "b.png", "--purifier", "jpeg75")
    bars, plain = [], tqdm.tqdm
    monkeypatch.setattr(tqdm, "tqdm", type("Bar", (plain,), {"close": lambda bar: bars.append(bar)}))
    run("purify", "a.png", "b.png", "c.png", "--purifier", "jpeg75")
    assert [(bar.initial, bar.total) for bar in bars] == [(2, 3)]


def darker_steps(x, eta=16 / 255, steps=100, seed=0, step_size=1 / 255):
    return PROTECTIONS["random"].steps(x.clamp(eta) - eta / 2, eta / 2, steps, seed=seed)


def with_model_steps(ddpm, x, eta=16 / 255, steps=100, seed=0):
    return darker_steps(x, eta, steps, seed)


def posterise(x, levels: int = 4):
    return (x * levels).round() / levels


def check_levels(levels):
    if levels > 64:
        raise ValueError(f"levels must be 1 … 64, got {levels}")


def lighter(ddpm, x, by: float = 0.1, seed: int = 0):
    return (x + by * (ddpm is not None)).clamp(max=1)


def test_a_method_that_is_registered_works_without_another_edit(run, photos, monkeypatch):
    """In the help, as a command, with a plan of its memory, with its numbers and its defaults."""
    (x,) = photos("a.png", h=20)
    monkeypatch.setitem(PROTECTIONS, "darker", Protection(darker_steps))
    monkeypatch.setitem(PROTECTIONS, "modelled", Protection(with_model_steps, images=lambda ddpm, size: 3))
    monkeypatch.setitem(PURIFIERS, "posterise", Purifier(posterise, ("levels",), check_levels))
    monkeypatch.setitem(PURIFIERS, "lighter", Purifier(lighter, numbers=("by",)))
    for command, names in (("protect", "darker, modelled"), ("purify", "posterise (levels), lighter (by)")):
        assert names in " ".join(" ".join(run(command, "--help", out=None)[1]).split())
    for name in ("darker", "modelled"):
        assert run("protect", "a.png", "--method", name, "--steps", 1, out=name)[0] == 0
        assert 0 < (load_image(f"{name}/a.png") - x).abs().max() <= 8 / 255 + 1e-6
    assert "3 images a step" in run.estimates[0]
    for name, expected in (("posterise2", posterise(x, 2)), ("lighter0.2", (x + 0.2).clamp(max=1))):
        assert run("purify", "a.png", "--purifier", name, out=name)[0] == 0
        assert (load_image(f"{name}/a.png") - expected).abs().max() <= 0.51 / 255
    assert "'posterise99': levels must be" in run("purify", "a.png", "--purifier", "posterise99")[2][0]
    monkeypatch.setitem(PURIFIERS, "posterise", Purifier(partial(posterise, levels=5), ("levels",)))
    assert "(defaults)" in run("purify", "a.png", "--purifier", "posterise2", out="posterise2")[1][0]
    monkeypatch.setitem(PROTECTIONS, "darker", Protection(darker_steps, also=(posterise,)))
    assert "(defaults)" in run("protect", "a.png", "--method", "darker", "--steps", 1, out="darker")[1][0]


def test_help_tells_which_methods_take_any_size(run):
    told = " ".join(" ".join(run("protect", "--help", out=None)[1]).split())
    told = told.replace("- ", "-")  # a line may end within a name
    any_size = re.search("photos of any size: (.*?)[.]", told)[1].split(", ")
    own_size = re.search("size of --pipe's model: (.*?)[.]", told)[1].split(", ")
    assert {"random", "antipure", "end-to-end"} <= set(any_size)
    assert set(own_size) == {"advdm", "photoguard", "mist", "workflow"}
    learning = {"fsmg", "aspl", "simac"}  # from other photos, which the command line doesn't take
    assert set(any_size) | set(own_size) == set(PROTECTIONS) - learning - {"none"}
