"""Results in a folder: nothing lost, nothing of others overwritten, nothing done twice, whatever happens."""

import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from itertools import cycle
from pathlib import Path

import pytest
import torch
from PIL import Image, PngImagePlugin

from antipure_lib.__main__ import main
from antipure_lib.photos import jobs
from antipure_lib.photos.jobs import plan_jobs, run_jobs
from antipure_lib.photos.pictures import atomic, load_image, save_image
from antipure_lib.protections.registry import PROTECTIONS
from antipure_lib.purifiers.registry import PURIFIERS

RANDOM = ("--method", "random", "--steps", 1)
JPEG75 = ("--purifier", "jpeg75")


def test_what_is_finished_is_kept_and_what_changed_is_made_again(run, photos, files):
    photos("a.png", "b.png")
    both = ("protect", "a.png", "b.png", *RANDOM)
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
    assert "kept" in out[0] and out[1].endswith("made again: the photo has changed")
    Path("out/a.png").unlink()
    _, out, _ = run(*both)
    assert out[0].endswith("made again: the result was missing") and "kept" in out[1]
    assert files()["a.png"] == first["a.png"]


@pytest.mark.parametrize("change", ["weights", "protection", "purifier", "function"])
def test_another_versions_result_is_made_again(run, photos, files, make_ddpm, monkeypatch, change):
    photos("a.png")
    pipe = make_ddpm()
    pipe.save_pretrained("model")
    words = ("protect", "--steps", 1) if change != "purifier" else ("purify", "--purifier", "gridpure1")
    run(words[0], "a.png", *words[1:], model="model")
    first = files()["a.png"]
    assert "kept" in run(words[0], "a.png", *words[1:], model="model")[1][0]
    antipure, gridpure = PROTECTIONS["antipure"], PURIFIERS["gridpure"]
    if change == "weights":
        with torch.no_grad():
            pipe.unet.conv_out.weight.neg_()
        pipe.save_pretrained("model")
    elif change == "protection":
        other = antipure._replace(steps=partial(antipure.steps, patch=4))
        monkeypatch.setitem(PROTECTIONS, "antipure", other)
    elif change == "purifier":
        monkeypatch.setitem(PURIFIERS, "gridpure", gridpure._replace(run=partial(gridpure.run, gamma=0.2)))
    else:
        monkeypatch.setitem(PROTECTIONS, "antipure", antipure._replace(also=(lambda other=3: 0,)))
    _, out, _ = run(words[0], "a.png", *words[1:], model="model")
    setting = "ddpm_weights" if change == "weights" else "defaults"
    assert out[0].endswith(f"made again: other settings ({setting})")
    assert (files()["a.png"] != first) == (change in ("weights", "protection"))


def painted(path):
    x = load_image(path)
    x[:, :4, :4] = 0
    save_image(x, path)


def captioned(path):
    text = PngImagePlugin.PngInfo()
    text.add_text("Caption", "me")
    Image.open(path).save(path, pnginfo=text)


def linked(path):
    path.rename("mine.png")
    painted(Path("mine.png"))
    path.symlink_to(Path("mine.png").resolve())


EDITS = {
    "painted": painted,
    "captioned": captioned,
    "rotated": lambda path: Image.open(path).rotate(90).save(path),
    "another format": lambda path: Image.open(path).convert("RGB").save(path, format="JPEG"),
    "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "emptied": lambda path: path.write_bytes(b""),
    "a link to an edited copy": linked,
}

RERUNS = [("protect", ()), ("purify", ("--keep-metadata",)), ("protect", "photo"), ("purify", ())]


@pytest.mark.parametrize(("edit", "rerun"), [*zip(EDITS, cycle(RERUNS))], ids=str)
def test_an_edited_result_is_kept_and_the_new_one_is_next_to_it(run, photos, files, edit, rerun):
    photos("a.png", "b.png")
    command, more = rerun
    words = (command, "a.png", "b.png", *(RANDOM if command == "protect" else JPEG75))
    run(*words)
    EDITS[edit](Path("out/a.png"))
    mine = files()["a.png"]
    if more == "photo":
        save_image(1 - load_image("a.png"), "a.png")
        more = ()
    status, out, _ = run(*words, *more)
    assert status == 0 and out[0].startswith("a.png → out/a-2.png; a.png was edited since, and is kept")
    assert files()["a.png"] == mine and load_image("out/a-2.png").shape == load_image("a.png").shape
    everything = files()
    status, out, _ = run(*words, *more)
    assert out[-1] == "out: 0 made, 2 kept, 0 failed" and "a.png was edited since" in out[0]
    assert files() == everything
    painted(Path("out/a-2.png"))  # the new one as well
    assert "out/a-3.png" in run(*words, *more)[1][0] and files()["a.png"] == mine


def test_a_result_that_is_edited_during_the_run_is_kept(photos, files):
    photos("a.png", "b.png")
    work = lambda photo, path: save_image(photo.x, path) and ""  # noqa: E731
    planned = plan_jobs(["a.png", "b.png"], "out", "work")
    assert [outcome.status for outcome in run_jobs(planned, {"n": 1}, work)] == ["made", "made"]
    outcomes = run_jobs(planned, {"n": 2}, work)
    assert next(outcomes).status == "made"
    painted(Path("out/b.png"))
    mine = files()["b.png"]
    failed = next(outcomes)
    assert failed.status == "failed" and "changed during this run and is kept; run this" in failed.message
    (_, job), again = plan_jobs(["a.png", "b.png"], "out", "work"), {"n": 2}
    assert [o.status for o in run_jobs([job], again, work)] == ["made"] and files()["b.png"] == mine


def test_photos_of_one_name_do_not_meet(run, pictures):
    names = ["x/me.png", "y/me.png", "y/me.bmp", "y/ME.png"]
    for name, x in zip(names, pictures(4), strict=True):
        save_image(x, name)
    run("protect", *names[1:3], *RANDOM)
    _, out, _ = run("protect", *names, names[0], *RANDOM)  # one of them twice
    made = [re.split("[:;]", line.split(" → ")[1])[0] for line in out[:-1]]
    assert made == ["out/me-3.png", "out/me.png", "out/me-2.png", "out/ME-4.png"]
    for name, path in zip(names, made, strict=True):
        assert (load_image(path) - load_image(name)).abs().max() == pytest.approx(8 / 255)


def test_files_of_others_are_never_overwritten(run, photos):
    photos("me.png")
    Path("out").mkdir()
    Path("out/me.png").write_text("somebody else's")
    run("protect", "me.png", *RANDOM)
    run("purify", "me.png", *JPEG75)
    assert Path("out/me.png").read_text() == "somebody else's"
    assert set(Path("out").glob("*.png")) == {Path(f"out/me{n}.png") for n in ("", "-2", "-3")}
    _, out, _ = run("purify", "me.png", "--purifier", "blur")
    assert out[0].endswith("me-2.png was taken; made again: other settings (defaults, purifier)")
    Path("out/.manifest/me-3.png.json").unlink()
    _, out, _ = run("purify", "me.png", "--purifier", "blur")
    assert out[0].startswith("me.png → out/me-4.png; me.png was taken; me-2.png was taken")


def test_a_folder_where_a_photo_would_be_overwritten_is_refused(run, photos, files):
    photos("me.png")
    before = files(".")
    Path("link").symlink_to(".", target_is_directory=True)
    for out in (".", "link"):
        message = f"error: me.png would be overwritten in {out}; give another folder with --out"
        assert run("protect", "me.png", *RANDOM, out=out)[::2] == (1, [message])
    assert files(".") == before
    save_image(load_image("me.png"), "you.bmp")
    assert run("protect", "you.bmp", *RANDOM, out=".")[0] == 0  # you.png is nobody's
    assert "overwritten" in run("protect", "you.bmp", "you.png", *RANDOM, out=".")[2][0]


def test_a_pattern_that_finds_the_folder_of_results_too_goes_on(run, photos):
    photos("photos/me.png")
    for told in ("1 made, 0 kept, 0 failed", "0 made, 1 kept, 0 failed"):
        names = sorted(map(str, Path("photos").glob("*")))
        status, said, err = run("protect", *names, *RANDOM, out="photos/protected")
        assert status == 0 and err == [] and told in said[-1]


@pytest.mark.parametrize("name", ["照" * 83 + "x.jpg", "x" * 250 + ".png"])
def test_long_names_are_taken(run, photos, name):
    photos("a.png")
    Image.open("a.png").save("b" + Path(name).suffix)
    Path("b" + Path(name).suffix).rename(name)
    assert run("protect", name, *RANDOM)[1][-1] == "out: 1 made, 0 kept, 0 failed"
    assert run("protect", name, *RANDOM)[1][-1] == "out: 0 made, 1 kept, 0 failed"


@pytest.mark.parametrize("content", ["{", "[1]", "\0", '{"settings": []}', "settings=null", "settings=x"])
def test_a_strange_record_costs_no_result(run, photos, files, content):
    photos("a.png")
    run("purify", "a.png", *JPEG75)
    record, before = Path("out/.manifest/a.png.json"), files()["a.png"]
    settings = {"settings=null": None, "settings=x": "x"}
    if content in settings:
        content = json.dumps(json.loads(record.read_text()) | {"settings": settings[content]})
    record.write_text(content)
    status, out, err = run("purify", "a.png", *JPEG75)
    assert (status, err) == (0, []) and files()["a.png"] == before
    assert "kept" in run("purify", "a.png", *JPEG75)[1][0]


@pytest.mark.parametrize("place", ["out/.manifest", "out/.manifest/a.png.json"])
def test_a_record_that_cannot_be_written_costs_its_photo_alone(run, photos, place):
    photos("a.png", "b.png")
    if place.endswith("json"):
        Path(place).mkdir(parents=True)
    else:
        Path("out").mkdir()
        Path(place).write_text("a file")
    status, out, err = run("purify", "a.png", "b.png", *JPEG75)
    assert status == 1 and all(line.startswith("error: ") and place in line for line in err)
    assert len(err) == (1 if place.endswith("json") else 2) and not Path("out/a.png").exists()


def test_a_full_disk_is_told_and_leaves_no_partial_file(run, photos, files, monkeypatch):
    photos("a.png", "b.png", "c.png")
    words = ("protect", "a.png", "b.png", "c.png", *RANDOM)
    run(*words, out="whole")
    save = Image.Image.save

    def full(image, path, **options):
        if Path(path).name.startswith(".b.png"):
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(image, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        status, out, (line,) = run(*words)
    assert status == 1
    assert line.startswith("error: b.png: ") and "No space left" in line and "run this again" in line
    assert set(files()) == {"a.png", "c.png", ".manifest/a.png.json", ".manifest/c.png.json"}
    status, out, _ = run(*words)
    assert status == 0 and out[-1] == "out: 1 made, 2 kept, 0 failed"
    assert files() == files("whole")


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("again", [False, True])
def test_a_disk_that_is_full_for_the_record_loses_nothing(run, photos, files, monkeypatch, nth, again):
    """The first record claims the name, the second says that the photo is finished."""
    photos("a.png")
    if again:
        run("protect", "a.png", *RANDOM, "--seed", 1)
    write, calls = jobs._write, []

    def full(record, content):
        calls.append(record)
        if len(calls) == nth:
            raise OSError(28, "No space left on device")
        write(record, content)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "_write", full)
        status, _, err = run("protect", "a.png", *RANDOM)
    assert status == 1 and len(err) == 1 and not list(Path("out").rglob("*.tmp"))
    assert run("protect", "a.png", *RANDOM)[1][-1] == "out: 1 made, 0 kept, 0 failed"
    assert set(files()) == {"a.png", ".manifest/a.png.json"}


def test_a_killed_run_goes_on(pictures, files, tiny_folder, tmp_path):
    """Killed for good, not asked to stop: finished photos stay as they are, a half-written one is removed."""
    names = [tmp_path / f"{name}.png" for name in "abc"]
    for name, x in zip(names, pictures(3, 24, 24), strict=True):
        save_image(x, name)
    out, options = tmp_path / "out", ["--ddpm", tiny_folder, "--precision", "float32", "--steps", 20, "--out"]
    words = [*map(str, ["protect", *names, *options])]
    command = [sys.executable, "-m", "antipure_lib", *words, str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "a.png").exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (out / "c.png").exists()
    recorded = [path for path in out.glob(".manifest/[!.]*") if "output_sha256" in path.read_text()]
    stamps = {out / path.stem: (out / path.stem).stat().st_mtime_ns for path in recorded}
    for half in (".b.png.123.tmp", ".c.png.123.tmp", ".manifest/.c.png.json.123.tmp"):
        (out / half).write_bytes(b"half")
    assert main([*words, str(out)]) == 0
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert main([*words, str(tmp_path / "whole")]) == 0
    assert files(out) == files(tmp_path / "whole")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_result_that_was_written_but_not_recorded_is_made_again_under_its_name(run, photos, files, seed):
    photos("a.png")
    run("protect", "a.png", *RANDOM)
    whole, record = files(), Path("out/.manifest/a.png.json")
    content = json.loads(record.read_text())
    del content["output_sha256"]  # killed between the two
    record.write_text(json.dumps(content))
    assert run("protect", "a.png", *RANDOM, "--seed", seed)[1][-1] == "out: 1 made, 0 kept, 0 failed"
    assert set(files()) == set(whole) and (files() == whole) == (seed == 0)


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
