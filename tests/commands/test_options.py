"""The command line's words: what is mistaken is told in one line, before any work."""

import os
import re
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import pytest

from antipure_lib.__main__ import main

PROTECT = [
    (["--method", "magic"], "--method: unknown protection 'magic'; the known ones are none, random"),
    (["--method", "none"], "--method none would only copy the photos; name a protection"),
    (["--method", "aspl"], "other photos of the person.*use random, random-grey, .*, etg, antipure.*set_a="),
    (["--fast", "--method", "random"], "--fast is for --method antipure and workflow, not random"),
    (["--eta", "0.5"], r"--eta must be 1 … 255 \(steps of 1/255\), got 0.5"),
    (["--eta", "16/255"], "--eta must be a number, 1 … 255 .*, got '16/255'"),
    (["--eta", "nan"], "--eta must be 1 … 255"),
    (["--steps", "0"], "--steps must be at least 1, got 0"),
    (["--steps", "1e3"], "--steps must be a whole number, at least 1, got '1e3'"),
    (["--seed", "-1"], "--seed must be 0 … 2⁶³−1, got -1; see python"),
    (["--seed", str(2**63)], "--seed must be 0 …"),
    (["--precision", "int8"], "--precision: invalid choice: 'int8'"),
    (["--stepz", "3"], "unrecognized arguments: --stepz.*see python -m antipure_lib protect --help"),
    (["--ddpm", "../nope"], "unknown model '../nope'; the known names are nano, .*local folder"),
    (["--method", "mist", "--pipe", "ddpm-celebahq-256"], "'ddpm-celebahq-256' is .*--ddpm"),
    (["--method", "mist", "--pipe", "sd15"], "'sd15' isn't on this machine: --download .* fetches it from"),
    (["--out", "me.jpg"], "reads like a file; --out takes a folder.*JPEG discards.*--jpeg"),
    (["--out", "out.PNG"], "reads like a file; --out takes a folder"),
    (["--out", ""], "--out must name a file or a folder, got an empty word"),
    (["–steps", "3"], "–steps begins with a typographic dash; write --steps"),
    (["−−fast"], "write --fast"),
    (["-gone.png"], r"a file whose name begins with a dash is written \./-gone.png"),
    (["--gone.png"], r"written \./--gone.png"),
]

BENCHMARK = [
    (["--protect", "magic"], "protect: unknown 'magic'; the known ones are none, random"),
    (["--purify", "jpeg75x3"], "purifier 'jpeg75x3': 'jpeg' takes quality"),
    (["--purify", "none", "blur0"], "purifier 'blur0': sigma must be positive"),
    (["--purify", "jpeg75+blur0"], "purifier 'blur0': sigma must be positive"),
    (["--identities", "p99"], "identity: unknown 'p99'; the known ones are p01, p02"),
    (["--customize", "magic"], "customize: unknown 'magic'; the known ones are dreambooth, lora"),
    (["--steps", "0"], "--steps must be at least 1"),
    (["--samples", "0"], "--samples must be at least 1"),
    (["--learning", "0"], "--learning must be at least 1"),
    (["--seeds", "0", "-1"], "--seeds must be 0 … 2⁶³−1, got -1"),
    (["--eta", "0.06"], "--eta must be 1 … 255"),
    (["–samples", "3"], ".*write --samples"),
    (["--out", "/dev/null"], "/dev/null: /dev/null can't be written to; name another CSV file"),
    (["--out", "/dev/null/table.csv"], ".*: /dev/null can't be written to; name another CSV file"),
    (["--out", "."], ".*can't be written to; name another CSV file"),
    (["--cache", "a.png"], "a.png: a.png can't be written to; name another folder"),
]
PURIFY = {
    "gridpure0": "gridpure0': iterations must be at least 1, got 0",
    "diffpure5000": "diffpure5000: t must be 1 … 1000",
    "freqpure0x5": "freqpure0x5': rounds must be at least 1",
    "freqpure5x0": "freqpure5x0': t must be at least 1",
    "jpeg500": "jpeg500': quality must be 1 … 95",
    "jpeg75.5": "jpeg75.5': quality must be a whole number, got 75.5",
    "blur1.2.3": "blur1.2.3': sigma must be a number, got 1.2.3",
    "blur0": "blur0': sigma must be positive",
    "resize2": "resize2': factor must be in",
    "magic": "unknown purifier 'magic'; known are none, jpeg",
    "jpeg75+magic": "unknown purifier 'magic'; known are none, jpeg",
    "jpeg75+diffpure5000": "diffpure5000: t must be 1 … 1000",
}


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        *[("protect", *row) for row in PROTECT],
        *[("purify", ["--purifier", name], message) for name, message in PURIFY.items()],
        *[("benchmark", *row) for row in BENCHMARK],
    ],
    ids=str,
)
def test_bad_words_are_refused_in_one_line_before_any_work(
    photos, files, capfd, monkeypatch, command, words, message
):
    monkeypatch.setattr("antipure_lib.benchmark.run.load_ddpm", lambda *_: pytest.fail("loaded"))
    photos("a.png")
    before = files(".")
    given = [] if command == "benchmark" else ["a.png", "--out", "out"]
    assert main([command, *given, *words]) == 1
    out, err = capfd.readouterr()
    assert out == "" and re.match(f"error: .*{message}", err) and len(err.splitlines()) == 1
    assert files(".") == before


DASHED = ["-dash.png", "--out.png", "-1.png", "-a=b.png", "-", "-h.png", "-no suffix"]


@pytest.mark.parametrize(("name", "command"), [*zip(DASHED, cycle(["protect", "inspect", "purify"]))])
def test_a_file_whose_name_begins_with_a_dash_is_a_file(run, photos, name, command):
    photos("a.png", "b.png")
    Path("b.png").rename(name)
    if command == "inspect":
        status, _, err = run("inspect", "a.png", name, out="report.png")
        assert (status, err) == (0, []) and Path("report.png").exists()
    else:
        words = ("--method", "random") if command == "protect" else ("--purifier", "jpeg75")
        status, out, err = run(command, name, "a.png", *words)
        assert (status, err) == (0, []) and out[0].startswith(name)


def test_the_users_own_folder_is_found(run, photos, monkeypatch):
    monkeypatch.setenv("HOME", str(Path.cwd() / "home"))
    photos("home/a.png")
    assert run("protect", "~/a.png", "--method", "random", out="~/out")[0] == 0
    assert Path("home/out/a.png").exists() and not Path("~").exists()


@pytest.mark.parametrize("command", ["protect a.png --out out", "benchmark"])
@pytest.mark.parametrize("name", ["anna/model", "ddpm-celebahq-256", "guided-diffusion-256-uncond", "sd15"])
def test_errors_of_models_are_in_the_words_of_options(photos, capfd, command, name):
    photos("a.png")
    assert main([*command.split(), "--ddpm", name]) == 1
    err, remedy = capfd.readouterr().err, "it is for --pipe" if name == "sd15" else "--download .* fetches it"
    assert f"'{name}' is" in err and re.search(remedy, err)
    assert not re.search("load_|download=True", err)


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "purify --help",
        "doctor",
        "inspect a.png b.png --out report.png",
        "protect a.png b.png --out out --method random --steps 1",
    ],
)
def test_a_reader_that_goes_away_is_no_error(photos, monkeypatch, capfd, words):
    photos("a.png", "b.png")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        assert main(words.split()) == 141
    assert "Traceback" not in capfd.readouterr().err


def test_head_ends_a_command_without_a_word():
    line = f"{sys.executable} -m antipure_lib --help | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.stderr == "" and re.fullmatch(r"usage: .*\n(0|141)\n", done.stdout)


def test_the_command_line_starts_without_heavy_packages():
    heavy = {"torch", "numpy", "diffusers", "transformers", "accelerate", "matplotlib", "dlib", "filelock"}
    code = f"import sys; from antipure_lib import __main__; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
