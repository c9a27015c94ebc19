"""Photos through the command line: right files, nothing lost, nothing overwritten, nothing done twice."""

import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import tiny_stable_diffusion
from torch._subclasses.fake_tensor import is_fake

from antipure_lib.__main__ import main
from antipure_lib.commands.estimate import counted, model_runs
from antipure_lib.core.antipure import antipure
from antipure_lib.core.pgd import fast
from antipure_lib.core.tiles import tile_count
from antipure_lib.photos.jobs import plan_jobs
from antipure_lib.photos.pictures import atomic, load_image, save_image
from antipure_lib.protections.registry import PROTECTIONS, protect
from antipure_lib.purifiers.registry import PURIFIERS, parse_purifier, purify


@pytest.fixture
def run(tiny_folder, tmp_path, monkeypatch, capfd):
    """run("protect", …) in an empty folder: (exit status, lines of stdout, lines of stderr).

    Of stderr, run.estimates holds what is told beforehand.
    """
    monkeypatch.chdir(tmp_path)
    estimates = []

    def call(command, *words, out="out"):
        options = [] if command == "inspect" else ["--ddpm", str(tiny_folder), "--precision", "float32"]
        capfd.readouterr()
        status = main([command, *map(str, words), *options, "--out", out])
        out, err = (text.splitlines() for text in capfd.readouterr())
        estimates[:] = [line for line in err if line.startswith("estimate: ")]
        return status, out, [line for line in err if line not in estimates]

    call.estimates = estimates
    return call


def files(folder="out"):
    """{path: bytes} of all files, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_protecting_equals_the_library_and_keeps_the_budget(run, pictures, make_ddpm):
    x = pictures(1, 24, 37)[0]
    save_image(x, "me.png")
    status, out, err = run("protect", "me.png", "--steps", 3, "--eta", 5, "--seed", 2)
    assert (status, err) == (0, [])
    assert out == ["me.png → out/me.png", "out: 1 made, 0 kept, 0 failed"]
    expected = protect("antipure", x, ddpm=make_ddpm(), eta=5 / 255, steps=3, seed=2)
    assert torch.equal(load_image("out/me.png"), expected)
    assert 0 < (load_image("out/me.png") - x).abs().max() <= 5 / 255 + 1e-6
    assert set(files()) == {"me.png", ".manifest/me.png.json"}


def test_fast_takes_ten_long_steps_or_as_many_as_steps_says(run, pictures, make_ddpm):
    x, eta = pictures(1, 16, 16)[0], 8 / 255
    save_image(x, "me.png")
    for words, steps in (([], 10), (["--steps", 3], 3)):
        _, out, _ = run("protect", "me.png", "--fast", *words)
        assert torch.equal(load_image("out/me.png"), antipure(make_ddpm(), x, eta=eta, **fast(eta, steps)))
    assert out[0].endswith("made again: other settings (steps)")
    _, out, _ = run("protect", "me.png", "--steps", 3)
    assert out[0].endswith("made again: other settings (momentum, step_size)")


def test_purifying_equals_the_library(run, pictures, make_ddpm):
    x = pictures(1, 20, 16)[0]
    save_image(x, "me.png")
    for name in ("gridpure2", "jpeg50"):
        status, _, err = run("purify", "me.png", "--purifier", name, "--seed", 3, out=name)
        assert (status, err) == (0, [])
        assert torch.equal(load_image(f"{name}/me.png"), purify(name, x, ddpm=make_ddpm(), seed=3))


def test_another_versions_photo_is_made_again(run, pictures, monkeypatch):
    save_image(pictures(1)[0], "a.png")
    run("protect", "a.png", "--steps", 2)
    monkeypatch.setitem(PROTECTIONS, "antipure", partial(PROTECTIONS["antipure"], patch=4))
    _, out, _ = run("protect", "a.png", "--steps", 2)
    assert out[0].endswith("made again: other settings (defaults)")


def test_what_is_finished_is_kept_and_what_changed_is_made_again(run, pictures):
    for name, x in zip("ab", pictures(2), strict=True):
        save_image(x, f"{name}.png")
    both = ("protect", "a.png", "b.png", "--steps", 2)
    run(*both)
    first, stamps = files(), {p: p.stat().st_mtime_ns for p in Path("out").glob("*.png")}
    status, out, _ = run(*both)
    assert status == 0 and out[-1] == "out: 0 made, 2 kept, 0 failed" and "kept" in out[0]
    assert files() == first and all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items())

    _, out, _ = run(*both, "--seed", 1)
    assert [line.partition("; ")[2] for line in out[:2]] == ["made again: other settings (seed)"] * 2
    assert files()["a.png"] != first["a.png"]
    run(*both)
    assert files() == first

    save_image(1 - load_image("b.png"), "b.png")
    _, out, _ = run(*both)
    assert "kept" in out[0] and "the photo has changed" in out[1]
    Path("out/a.png").write_bytes(b"scribble")
    _, out, _ = run(*both)
    assert "missing or changed" in out[0] and "kept" in out[1]
    assert files()["a.png"] == first["a.png"]


def test_another_models_weights_are_another_setting(run, pictures, make_ddpm, tmp_path):
    save_image(pictures(1)[0], "a.png")
    pipe = make_ddpm()
    pipe.save_pretrained("model")
    words = ["protect", "a.png", "--ddpm", "model", "--precision", "float32", "--steps", "1", "--out", "out"]
    assert main(words) == 0
    first = files()["a.png"]
    with torch.no_grad():
        pipe.unet.conv_out.weight.neg_()
    pipe.save_pretrained("model")
    assert main(words) == 0
    assert files()["a.png"] != first
    assert json.loads(files()[".manifest/a.png.json"])["settings"]["ddpm"] == "model"


def test_photos_of_one_name_do_not_meet(run, pictures):
    names = ["x/me.png", "y/me.png", "y/me.bmp", "y/ME.png"]
    for name, x in zip(names, pictures(4), strict=True):
        save_image(x, name)
    words = ["--steps", 1, "--method", "random"]
    run("protect", *names[1:3], *words)
    _, out, _ = run("protect", *names, names[0], *words)  # one of them twice
    assert [re.split("[:;]", line.split(" → ")[1])[0] for line in out[:-1]] == [
        "out/me-3.png",
        "out/me.png",
        "out/me-2.png",
        "out/ME-4.png",
    ]
    for name, made in zip(names, ["me-3", "me", "me-2", "ME-4"], strict=True):
        assert (load_image(f"out/{made}.png") - load_image(name)).abs().max() == pytest.approx(8 / 255)


def test_files_of_others_are_never_overwritten(run, pictures):
    save_image(pictures(1)[0], "me.png")
    Path("out").mkdir()
    Path("out/me.png").write_text("somebody else's")
    run("protect", "me.png", "--steps", 1)
    run("purify", "me.png", "--purifier", "jpeg75")
    assert Path("out/me.png").read_text() == "somebody else's"
    assert set(Path("out").glob("*.png")) == {Path(f"out/me{n}.png") for n in ("", "-2", "-3")}
    _, out, _ = run("purify", "me.png", "--purifier", "blur")
    assert out[0] == "me.png → out/me-3.png; made again: other settings (defaults, purifier)"
    Path("out/.manifest/me-3.png.json").unlink()
    _, out, _ = run("purify", "me.png", "--purifier", "blur")
    assert out[0] == "me.png → out/me-4.png; me.png was taken"


def test_a_pattern_that_finds_the_folder_of_results_too_goes_on(run, pictures):
    Path("photos").mkdir()
    save_image(pictures(1)[0], "photos/me.png")
    for told in ("1 made, 0 kept, 0 failed", "0 made, 1 kept, 0 failed"):
        names = sorted(map(str, Path("photos").glob("*")))
        status, said, err = run("protect", *names, "--method", "random", out="photos/protected")
        assert status == 0 and err == [] and told in said[-1]


def test_a_method_or_a_folder_that_cannot_be_meant_is_refused(run, pictures):
    save_image(pictures(1)[0], "me.png")
    assert run("protect", "me.png", "--method", "none")[2] == [
        "error: --method none would only copy the photos; name a protection"
    ]
    assert "reads like a file" in run("protect", "me.png", out="out.png")[2][0]
    assert not Path("out").exists() and not Path("out.png").exists()


def test_a_folder_where_a_photo_would_be_overwritten_is_refused(run, pictures):
    save_image(pictures(1)[0], "me.png")
    before = files(".")
    Path("link").symlink_to(".", target_is_directory=True)
    for out in (".", "link"):
        status, _, err = run("protect", "me.png", "--steps", 1, out=out)
        assert status == 1 and err == [
            f"error: me.png would be overwritten in {out}; give another folder with --out"
        ]
    assert files(".") == before
    save_image(load_image("me.png"), "you.bmp")
    assert run("protect", "you.bmp", "--steps", 1, out=".")[0] == 0  # you.png is nobody's
    status, _, err = run("protect", "you.bmp", "you.png", "--steps", 1, out=".")
    assert status == 1 and "overwritten" in err[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "magic"], "unknown protection 'magic'; the known ones are none, random"),
        (["--method", "aspl"], "other photos of the person.*use random, pixel-ddpm, pfg, etg, antipure"),
        (["--eta", "0.5"], "--eta must be 1 … 255"),
        (["--steps", "0"], "--steps"),
        (["--fast", "--method", "random"], "--fast is for --method antipure, not random"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "9" * 20], "--seed must be 0"),
        (["--ddpm", "nowhere"], "unknown model 'nowhere'"),
        (["--ddpm", "../nope"], "unknown model '../nope'; the known names are nano, .*local folder"),
        (["--ddpm", "sd15"], "'sd15' is a StableDiffusionPipeline; it is for protect's --pipe"),
        (["--ddpm", "anna/model"], "'anna/model' isn't on this machine: --download fetches it"),
        (["--method", "mist", "--pipe", "sd15"], "'sd15' isn't on this machine: --download fetches it from"),
        (["--out", "me.jpg"], "JPEG discards.*--jpeg"),
        (["--out", "me.png"], "reads like a file; --out takes a folder"),
    ],
)
def test_bad_settings_are_refused_before_any_work(run, pictures, words, message, capfd):
    save_image(pictures(1)[0], "me.png")
    before = files(".")
    status = main(["protect", "me.png", "--out", "out", *words])
    (line,) = capfd.readouterr().err.splitlines()
    assert status == 1 and line.startswith("error: ")
    assert re.search(message, line)
    assert files(".") == before


@pytest.mark.parametrize(
    ("purifier", "message"),
    [
        ("gridpure0", "gridpure0: iterations must be at least 1, got 0"),
        ("diffpure5000", "diffpure5000: t must be 1 … 1000"),
        ("freqpure0x5", "freqpure0x5: rounds must be at least 1"),
        ("jpeg500", "jpeg500: quality must be 1 … 95"),
        ("jpeg75.5", "jpeg75.5': quality must be a whole number, got 75.5"),
        ("blur1.2.3", "blur1.2.3': sigma must be a number, got 1.2.3"),
        ("blur0", "blur0: sigma must be positive"),
        ("resize2", "resize2: factor must be in"),
    ],
)
def test_bad_numbers_of_a_purifier_are_told_once(run, pictures, purifier, message):
    for name, x in zip("ab", pictures(2), strict=True):
        save_image(x, f"{name}.png")
    status, out, err = run("purify", "a.png", "b.png", "--purifier", purifier)
    assert (status, out) == (1, []) and len(err) == 1
    assert err[0].startswith(("error: --purifier ", "error: purifier ")) and message in err[0]


def test_help_tells_which_methods_take_any_size(capsys):
    with pytest.raises(SystemExit):
        main(["protect", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    any_size = re.search("photos of any size: (.*?)[.]", told)[1].split(", ")
    own_size = re.search("size of --pipe's model: (.*?)[.]", told)[1].split(", ")
    assert {"random", "antipure", "end-to-end"} <= set(any_size)
    assert set(own_size) == {"advdm", "photoguard", "mist"}
    learning = {"fsmg", "aspl", "simac"}  # from other photos, which the command line doesn't take
    assert set(any_size) | set(own_size) == set(PROTECTIONS) - learning - {"none"}


def test_help_tells_the_purifiers(capsys):
    with pytest.raises(SystemExit):
        main(["purify", "--help"])
    (told,) = re.findall("follow the name: (.*)[.]$", " ".join(capsys.readouterr().out.split()))
    assert {name.partition(" ")[0] for name in told.split(", ")} == set(PURIFIERS)
    assert "gridpure (rounds x iterations)" in told


def test_an_estimate_comes_first_and_once(run, pictures):
    for name, side in (("small", 16), ("large", 32)):
        save_image(pictures(1, side, side)[0], f"{name}.png")
    run("protect", "small.png", "large.png", "--steps", 2)
    size, plan, time = run.estimates
    assert size == "estimate: largest photo 32×32: tiles of 16 px: 10, 2 steps"
    assert plan.startswith("estimate: memory: weights") and "20 images a step" in plan
    assert re.search(r"by its step 2 about [\d.e-]+ \w+ for this photo, [\d.e-]+ \w+ for all", time)
    run("protect", "small.png", "large.png", "--steps", 2)
    assert run.estimates == []  # nothing is left to do
    for purifier, runs in (("gridpure3", 30), ("diffpure7", 7), ("gridpure2x1", 20), ("freqpure2x3", 8)):
        assert run("purify", "large.png", "--purifier", purifier, out=purifier)[0] == 0
        size, plan = run.estimates
        assert f"32×32: tiles of 16 px: 10, {runs} times through the model; about" in size
        assert "10 images a step" in plan
    run("purify", "large.png", "--purifier", "jpeg75", out="jpeg")
    assert run.estimates == []
    run("protect", "small.png", "large.png", "--method", "random", "--steps", 1, out="random")
    size, time = run.estimates
    assert size == "estimate: largest photo 32×32: 1 steps" and "by its step 1 about" in time


def test_the_estimate_counts_the_models_calls(run, pictures, make_ddpm, monkeypatch):
    from diffusers import UNet2DModel

    calls, forward = [], UNet2DModel.forward

    def counted(unet, *words, **options):
        if not is_fake(words[0]):
            calls.append(len(words[0]))
        return forward(unet, *words, **options)

    monkeypatch.setattr(UNet2DModel, "forward", counted)
    save_image(pictures(1, 32, 32)[0], "a.png")
    for purifier in ("gridpure3", "freqpure2x3", "diffpure4"):
        del calls[:]
        run("purify", "a.png", "--purifier", purifier, out=purifier)
        (told,) = re.findall(r"(\d+) times through", run.estimates[0])
        assert sum(calls) == 10 * (int(told) + 1)  # once to see how long it takes


def test_time_left_knows_the_photos_that_were_kept(run, pictures, monkeypatch):
    import tqdm

    for name, x in zip("abc", pictures(3), strict=True):
        save_image(x, f"{name}.png")
    run("purify", "a.png", "b.png", "--purifier", "jpeg75")
    bars, plain = [], tqdm.tqdm
    monkeypatch.setattr(tqdm, "tqdm", type("Bar", (plain,), {"close": lambda bar: bars.append(bar)}))
    run("purify", "a.png", "b.png", "c.png", "--purifier", "jpeg75")
    assert [(bar.initial, bar.total) for bar in bars] == [(2, 3)]


def test_a_purifiers_bar_reaches_its_end(make_ddpm, pictures):
    ddpm, x, done = make_ddpm(), pictures(1, 24, 32), []
    for name in ("gridpure2x3", "freqpure2x3", "diffpure4"):
        del done[:]
        with counted(ddpm.unet, done.append):
            purify(name, x, ddpm=ddpm, batch=lambda plan: None)  # makes a plan, which isn't counted
        assert sum(done) == model_runs(*parse_purifier(name)) * tile_count(24, 32, 16)
    purify("gridpure1", x, ddpm=ddpm)
    assert sum(done) == 4 * tile_count(24, 32, 16)  # no longer counted


def test_photos_that_need_more_memory_than_there_is_are_refused(run, pictures, monkeypatch):
    small, large = pictures(1, 16, 16)[0], pictures(1, 64, 80)[0]
    save_image(small, "small.png")
    save_image(large, "large.png")
    from antipure_lib.runtime import memory

    monkeypatch.setattr(memory, "free_memory", lambda device: 1_500_000)
    for words in (["protect", "--steps", 1], ["purify", "--purifier", "gridpure1"]):
        status, out, err = run(words[0], "large.png", "small.png", *words[1:], out=words[0])
        assert status == 1 and out[-1] == f"{words[0]}: 1 made, 0 kept, 1 failed"
        (line,) = err
        assert re.search(
            r"large.png: 80×64 pixels need about \d[.]\d GB .* 0.0 GB are free; make .*smaller", line
        )
        assert "all that is free" in run.estimates[1]


@pytest.mark.parametrize("settings", [[1], None, "x"])
def test_a_record_with_strange_settings_is_no_record(run, pictures, settings):
    save_image(pictures(1)[0], "a.png")
    run("purify", "a.png", "--purifier", "jpeg75")
    record = Path("out/.manifest/a.png.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"settings": settings}))
    status, out, err = run("purify", "a.png", "--purifier", "jpeg75")
    assert (status, err) == (0, []) and "made again" in out[0]
    assert "kept" in run("purify", "a.png", "--purifier", "jpeg75")[1][0]


def test_a_record_that_is_no_file_costs_its_photo_alone(run, pictures):
    for name, x in zip("ab", pictures(2), strict=True):
        save_image(x, f"{name}.png")
    words = ("purify", "a.png", "b.png", "--purifier", "jpeg75")
    Path("out/.manifest/a.png.json").mkdir(parents=True)
    status, out, err = run(*words)
    assert status == 1 and out[-1] == "out: 1 made, 0 kept, 1 failed"
    assert err == [
        "error: a.png: its record belongs at out/.manifest/a.png.json, which is no file; remove that"
    ]
    Path("else").mkdir()
    Path("else/.manifest").write_text("a file")
    status, out, err = run(*words, out="else")
    assert (
        status == 1
        and len(err) == 2
        and "a.png: its record belongs at else/.manifest, which is no folder" in err[0]
    )
    assert set(files("else")) == {".manifest"}


def test_another_versions_purifier_is_run_again(run, pictures, monkeypatch):
    save_image(pictures(1)[0], "a.png")
    run("purify", "a.png", "--purifier", "gridpure1")
    assert "kept" in run("purify", "a.png", "--purifier", "gridpure1")[1][0]
    monkeypatch.setitem(PURIFIERS, "gridpure", partial(PURIFIERS["gridpure"], gamma=0.2))
    _, out, _ = run("purify", "a.png", "--purifier", "gridpure1")
    assert out[0].endswith("made again: other settings (defaults)")


def test_transparency_that_jpeg_cannot_hold_is_told_before_the_work(run, pictures, monkeypatch):
    module = sys.modules["antipure_lib.protections.registry"]
    image = Image.new("RGBA", (16, 16), (10, 200, 30, 77))
    image.save("glass.png")
    monkeypatch.setattr(module, "protect_steps", lambda *words, **options: pytest.fail("it began"))
    status, _, err = run("protect", "glass.png", "--jpeg", "--method", "random")
    assert status == 1
    assert err == ["error: glass.png: JPEG can't hold the photo's transparency; leave --jpeg out"]


def test_jpeg_of_an_unchanged_photo_says_so(run, pictures, make_ddpm, capfd):
    pipe = make_ddpm()
    with torch.no_grad():
        pipe.unet.conv_out.weight.zero_()  # it always answers alike: there is no slope to climb
    pipe.save_pretrained("model")
    save_image(pictures(1)[0], "a.png")
    words = ["--method", "pixel-ddpm", "--ddpm", "model", "--steps", "1", "--jpeg", "--out", "out"]
    assert main(["protect", "a.png", *words]) == 0
    out = capfd.readouterr().out
    assert "no perturbation that JPEG could destroy" in out and "nan" not in out


def test_latent_methods_take_photos_of_the_models_size_alone(run, pictures, tmp_path):
    tiny_stable_diffusion().save_pretrained("sd")
    for name, side in (("fits", 16), ("large", 20)):
        save_image(pictures(1, side, side)[0], f"{name}.png")
    status, out, err = run(
        "protect", "large.png", "fits.png", "--method", "advdm", "--pipe", "sd", "--steps", 1
    )
    assert status == 1 and out[0] == "fits.png → out/fits.png"
    (line,) = err
    assert "large.png: advdm works at the latent model's size alone, 16×16" in line and "antipure" in line


def test_small_photos_keep_their_size(run, pictures):
    for height, width in ((1, 1), (3, 40), (40, 3), (15, 16)):
        save_image(pictures(1, height, width)[0], f"{height}x{width}.png")
    names = sorted(Path().glob("*.png"))
    assert run("protect", *names, "--steps", 1)[0] == 0
    assert run("purify", *names, "--purifier", "gridpure1", out="pure")[0] == 0
    for name in names:
        x, x_adv = load_image(name), load_image("out" / name)
        assert x_adv.shape == x.shape == load_image("pure" / name).shape
        assert 0 < (x_adv - x).abs().max() <= 8 / 255 + 1e-6


def test_jpeg_only_when_forced_and_then_with_its_price(run, pictures):
    save_image(pictures(1, 32, 32)[0], "me.png")
    status, out, _ = run("protect", "me.png", "--jpeg", "--steps", 2)
    assert status == 0 and set(files()) == {"me.jpg", ".manifest/me.jpg.json"}
    share = int(out[0].partition("JPEG leaves ")[2].partition("%")[0]) / 100
    x, x_adv = load_image("me.png"), load_image("out/me.jpg")
    assert Image.open("out/me.jpg").format == "JPEG" and x_adv.shape == x.shape
    assert 0 < share < 1


def test_metadata_on_request(run, pictures):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    save_image(pictures(1, 20, 16)[0], "me.png")
    for suffix in ("tif", "jpg"):
        Image.open("me.png").save(f"{suffix}.{suffix}", exif=exif)
        run("protect", f"{suffix}.{suffix}", "--steps", 1, out="bare")
        run("protect", f"{suffix}.{suffix}", "--steps", 1, "--keep-metadata", out="kept")
        bare, kept = (Image.open(f"{out}/{suffix}.png") for out in ("bare", "kept"))
        assert bare.size == kept.size == (20, 16)  # turned
        assert not bare.getexif() and dict(kept.getexif()) == {0x010F: "Maker", 0x0112: 1}


def test_a_full_disk_is_told_and_leaves_no_partial_file(run, pictures, monkeypatch):
    for name, x in zip("abc", pictures(3), strict=True):
        save_image(x, f"{name}.png")
    words = ("protect", "a.png", "b.png", "c.png", "--steps", 1, "--method", "random")
    run(*words, out="whole")
    save = Image.Image.save

    def full(image, path, **options):
        if Path(path).name.startswith(".b.png"):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(image, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        status, out, err = run(*words)
    assert status == 1 and len(err) == 1
    assert err[0].startswith("error: b.png: ") and "No space left" in err[0] and "run this again" in err[0]
    assert set(files()) == {"a.png", "c.png", ".manifest/a.png.json", ".manifest/c.png.json"}
    status, out, _ = run(*words)
    assert status == 0 and out[-1] == "out: 1 made, 2 kept, 0 failed"
    assert files() == files("whole")


@pytest.mark.parametrize("nth", [1, 2])
def test_a_disk_that_is_full_for_the_record_loses_nothing(run, pictures, monkeypatch, nth):
    """The first record claims the name, the second says that the photo is finished."""
    save_image(pictures(1)[0], "a.png")
    write, calls = Path.write_text, []

    def full(path, *words, **options):
        calls.append(path)
        if len(calls) == nth:
            raise OSError(28, "No space left on device")
        return write(path, *words, **options)

    monkeypatch.setattr(Path, "write_text", full)
    status, _, err = run("protect", "a.png", "--steps", 1)
    assert status == 1 and len(err) == 1 and not list(Path("out").rglob("*.tmp"))
    monkeypatch.setattr(Path, "write_text", write)
    assert run("protect", "a.png", "--steps", 1)[0] == 0
    assert set(files()) == {"a.png", ".manifest/a.png.json"}


def test_a_model_that_gives_nan_is_told(run, pictures, make_ddpm, capfd):
    pipe = make_ddpm()
    with torch.no_grad():
        pipe.unet.conv_out.weight.fill_(torch.nan)
    pipe.save_pretrained("model")
    save_image(pictures(1)[0], "a.png")
    assert main(["protect", "a.png", "--ddpm", "model", "--steps", "1", "--out", "out"]) == 1
    err = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("estimate: ")]
    (line,) = err
    assert line.startswith("error: a.png: NaN or infinite gradients") and "--precision float32" in line
    assert not files()


def command(out, tiny_folder, *names):
    options = ["--ddpm", str(tiny_folder), "--precision", "float32", "--steps", "20", "--out", str(out)]
    return ["protect", *map(str, names), *options]


def test_a_killed_run_goes_on(pictures, tiny_folder, tmp_path):
    """Killed for good, not asked to stop: finished photos stay as they are, a half-written one is removed."""
    names = [tmp_path / f"{name}.png" for name in "abc"]
    for name, x in zip(names, pictures(3, 48, 48), strict=True):
        save_image(x, name)
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "antipure_lib", *command(out, tiny_folder, *names)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (out / "a.png").exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (out / "c.png").exists()
    recorded = [path for path in out.glob(".manifest/[!.]*") if "output_sha256" in path.read_text()]
    stamps = {out / path.stem: (out / path.stem).stat().st_mtime_ns for path in recorded}
    (out / ".b.png.123.tmp").write_bytes(b"half")
    (out / ".c.png.123.tmp").write_bytes(b"half")
    (out / ".manifest" / ".c.png.json.123.tmp").write_bytes(b"half")
    assert main(command(out, tiny_folder, *names)) == 0
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert main(command(tmp_path / "whole", tiny_folder, *names)) == 0
    assert files(out) == files(tmp_path / "whole")


def test_a_photo_whose_file_was_written_but_not_recorded_is_done_again_under_its_name(run, pictures):
    save_image(pictures(1)[0], "a.png")
    run("protect", "a.png", "--steps", 1)
    whole, record = files(), Path("out/.manifest/a.png.json")
    content = json.loads(record.read_text())
    del content["output_sha256"]  # killed between the two
    record.write_text(json.dumps(content))
    assert run("protect", "a.png", "--steps", 1)[1][-1] == "out: 1 made, 0 kept, 0 failed"
    assert files() == whole


def test_names_are_the_same_however_much_is_finished(tmp_path):
    """Processes of one run plan at different moments; any subset of records must give the same plan."""
    photos = [tmp_path / folder / "me.jpg" for folder in "abcd"]
    out = tmp_path / "out"
    whole = plan_jobs(photos, out, "protect")
    assert [job.output.name for job in whole] == ["me.png", "me-2.png", "me-3.png", "me-4.png"]
    for finished in range(16):
        for k, job in enumerate(whole):
            job.record.unlink(missing_ok=True)
            if finished >> k & 1:
                with atomic(job.record) as temporary:
                    name = os.path.relpath(job.photo, out)
                    temporary.write_text(json.dumps({"command": "protect", "input": name}))
        assert plan_jobs(photos, out, "protect") == whole


def test_the_command_line_starts_without_heavy_packages():
    heavy = {"diffusers", "transformers", "accelerate", "matplotlib", "dlib", "filelock"}
    code = f"import sys; from antipure_lib import __main__; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
