"""tools/speed/bench.py measures what it says; no test here depends on the time anything takes."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_stable_diffusion

from antipure_lib import antipure_steps, gridpure_steps, quantise, to_pil
from tools.speed import bench
from tools.speed import by_turns as bench_measure
from tools.speed import report as bench_report
from tools.speed.bare import bare_forwards, bare_step
from tools.speed.peers import peers_gridpure, peers_step
from tools.speed.report import PARTS, markdown, write_report

CPU = bench_measure.CPU


@pytest.fixture
def passes(tiny_ddpm):
    """passes(call): how many tiles went through the UNet, forward and backward, during a call."""

    def count(call):
        seen = Counter()

        def called(module, args, output):
            seen["forward"] += len(output)
            if output.requires_grad:
                output.register_hook(lambda gradient: seen.update(backward=len(gradient)))

        handle = tiny_ddpm.unet.conv_out.register_forward_hook(called)
        try:
            call()
        finally:
            handle.remove()
        return dict(seen)

    return count


@pytest.mark.parametrize("balance", ["sum", "equal"])
def test_the_bare_step_makes_the_passes_of_ours(tiny_ddpm, pictures, passes, balance):
    states = antipure_steps(tiny_ddpm, pictures(2, 24, 24), steps=1, balance=balance)
    bare = passes(bare_step(tiny_ddpm, 10, balance))
    assert bare == passes(lambda: next(states))
    assert bare == {"forward": 20, "backward": 20 if balance == "sum" else 40}
    assert all(p.requires_grad and p.grad is None for p in tiny_ddpm.unet.parameters())


def test_the_bare_iteration_makes_the_passes_of_ours(tiny_ddpm, pictures, passes):
    states = gridpure_steps(tiny_ddpm, pictures(2, 24, 24), t=3)
    assert passes(bare_forwards(tiny_ddpm, 10, 3)) == passes(lambda: next(states)) == {"forward": 30}


def test_the_published_step_is_ours(tiny_ddpm, pictures):
    """Another hand's loop: the same terms, noise and steps."""
    x, options = pictures(2, 24, 24), {"eta": 8 / 255, "step_size": 3 / 255}
    step = peers_step(tiny_ddpm, x, t_err=300, **options)
    paper = {"balance": "sum", "weights": (1, 0.5, 0.5), "momentum": 0}
    for state in antipure_steps(tiny_ddpm, x, steps=4, t_err=300, **paper, **options):
        theirs = step()
        same = (theirs - state.x_adv).abs() < 1e-5
        assert same.float().mean() > 0.99  # the sign of a vanishing gradient is anybody's
    assert (theirs - x).abs().max() > 7 / 255


@pytest.mark.parametrize("kind", ["fixed_small", "learned_range"])
def test_the_published_purifier_is_ours_in_eight_bits(make_ddpm, pictures, kind):
    ddpm = make_ddpm(out_channels=6 if kind == "learned_range" else 3, variance_type=kind)
    x = pictures(2)  # of one tile: larger images draw their noise in another order
    theirs = peers_gridpure(ddpm, x, t=3)()
    torch.testing.assert_close(
        theirs, quantise(next(gridpure_steps(ddpm, x, t=3)).x), atol=1.01 / 255, rtol=0
    )
    larger = peers_gridpure(ddpm, pictures(1, 24, 24), t=2)()
    assert torch.equal(larger, quantise(larger)) and to_pil(larger).size == (24, 24)


def test_by_turns(monkeypatch):
    clock, calls = [0.0], []
    durations = iter([100, 100, 2, 1, 9, 3, 8, 2])  # the first pair is a warm-up

    def call(name):
        calls.append(name)
        clock[0] += next(durations)

    monkeypatch.setattr(bench_measure.time, "perf_counter", lambda: clock[0])
    figures = bench.by_turns(lambda: call("a"), lambda: call("b"), 3, CPU)
    assert calls == list("abababab")
    assert figures == (3, 2, 4, 8, 2)  # median, lowest, highest of 2/1, 9/3, 8/2; medians of 2 9 8 and 1 3 2


def test_peak_memory_sees_what_was_freed_again():
    small = bench.peak_memory(lambda: None, CPU)
    large = bench.peak_memory(lambda: torch.ones(50_000_000), CPU)  # 200 MB
    assert 150e6 < large - small < 260e6


def test_the_256_px_model_has_the_shape_of_adm():
    s = bench.adm(CPU, torch.float32, rounds=1, width=32, photos=1)
    unet = s.ddpm.unet
    attending = [
        256 // 2**k for k, block in enumerate(unet.down_blocks) if getattr(block, "attentions", None)
    ]
    assert attending == [32, 16, 8]
    assert unet.config.out_channels == 6 and s.x.shape == (1, 3, 256, 256)
    assert bench.adm(CPU, torch.float32, 1, 32, 1).ddpm.unet.conv_in.weight.equal(unet.conv_in.weight)


def test_everything_is_measured_and_written(tiny_ddpm, pictures, monkeypatch, tmp_path, capsys):
    def tiny(*args, **kwargs):
        return bench.Setting("tiny", tiny_ddpm, pictures(1, 24, 24), 2, 1)

    started = []

    def answer(command, **_):
        started.append(command[2])
        return SimpleNamespace(stdout="2.0")

    monkeypatch.setattr(bench, "nano", tiny)
    monkeypatch.setattr(bench, "adm", tiny)
    monkeypatch.setattr(bench, "load_stable_diffusion", lambda **_: tiny_stable_diffusion())
    monkeypatch.setattr(bench, "load_faces", lambda name: pictures(2))
    monkeypatch.setattr(bench.subprocess, "run", answer)
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    compiled = []  # a compiler needs a minute
    monkeypatch.setattr(torch.nn.Module, "compile", lambda model: compiled.append(model))
    bench.main([])
    assert len(compiled) == 2 * (1 + torch.cuda.is_available())  # two models
    table = json.loads((tmp_path / "data/results/speed.json").read_text())
    assert {row["part"] for row in table["rows"]} == set(PARTS)
    assert all(row["low"] <= row["ratio"] <= row["high"] for row in table["rows"])
    assert {'AntiPure step, balance="equal"', "LoRA step", "GrIDPure iteration, t=2"} <= {
        row["what"] for row in table["rows"]
    }
    assert set(started) == {*bench.STARTS.values(), bench.KEPT}
    text = (tmp_path / "data/results/speed.md").read_text()
    assert "Not measured: there was none" in text or torch.cuda.is_available()
    assert str(tmp_path) not in text
    assert text.count("\n## ") == len(PARTS) + 1 + (not torch.cuda.is_available())
    for code in started:
        compile(code, "<start>", "exec")

    started.clear()
    bench.main(["--only", "training"])
    again = json.loads((tmp_path / "data/results/speed.json").read_text())
    others = [row for row in table["rows"] if row["group"] != "training"]
    assert again["rows"][: len(others)] == others and len(again["rows"]) == len(table["rows"])
    assert not started


def test_figures_of_another_machine_are_not_kept(monkeypatch, tmp_path):
    row = bench.Row("bare", "m", "cpu", "float32", "w", 1.2, 1.1, 1.3, 0.5, 0.4)._asdict()
    for processor in ("this", "that"):
        monkeypatch.setattr(bench_report, "machine", lambda device, name=processor: {"processor": name})
        for group in ("nano", "large"):
            write_report(tmp_path, group, "cpu", [row | {"group": group, "note": processor}])
            written = json.loads((tmp_path / "speed.json").read_text())
    kept = [(line["group"], line["note"]) for line in written["rows"]]
    assert kept == [("nano", "that"), ("large", "that")]


def test_a_gpu_s_figures_stand_beside_those_of_another_machine_s_cpu(monkeypatch, tmp_path):
    row = bench.Row("bare", "m", "cpu", "float32", "w", 1.2, 1.1, 1.3, 0.5, 0.4)._asdict() | {"group": "nano"}
    monkeypatch.setattr(bench_report, "machine", lambda device: {"processor": "here"})
    write_report(tmp_path, "nano", "cpu", [row])
    monkeypatch.setattr(bench_report, "machine", lambda device: {"GPU": "there"})
    for note in ("first", "second"):
        write_report(tmp_path, "nano", "cuda", [row | {"device": "cuda", "note": note}])
    written = json.loads((tmp_path / "speed.json").read_text())
    assert written["facts"] == {"cpu": {"processor": "here"}, "cuda": {"GPU": "there"}}
    assert [(line["device"], line["note"]) for line in written["rows"]] == [("cpu", ""), ("cuda", "second")]
    text = (tmp_path / "speed.md").read_text()
    assert "cpu: processor here." in text and "cuda: GPU there." in text
    assert "Precisions with a figure: float32." in text and "Measured on a CPU alone" not in text
    write_report(tmp_path, "large", "cuda", [row | {"group": "large", "device": "cuda", "dtype": "float16"}])
    monkeypatch.setattr(bench_report, "machine", lambda device: {"processor": "here"})
    write_report(tmp_path, "large", "cpu", [row | {"group": "large", "what": what} for what in "wv"])
    section = (tmp_path / "speed.md").read_text().partition("## GPU")[2]
    assert section.splitlines()[2:] == [
        "Precisions with a figure: float16, float32.",
        "",
        "Measured on a CPU alone:",
        "",
        "- large: v",
    ]
    slow = row | {
        "device": "cuda",
        "model": "nano",
        "what": "low precision (step, sum)",
        "dtype": "float32 → bfloat16",
    }
    lines = markdown({}, [slow | {"ratio": 0.95}]).partition("## GPU")[2]
    assert "16 bits bring 0.95 (bfloat16): starting kernels takes the time" in lines
    assert "starting kernels" not in markdown({}, [slow | {"ratio": 1.7}])


def test_targets_in_the_table():
    row = bench.Row("bare", "m", "cpu", "float32", "w", 1.2, 1.1, 1.3, 0.5, 0.4)._asdict()
    cells = [
        next(line for line in markdown({}, [row | target]).splitlines() if line.startswith("| w |"))
        for target in ({"at_most": 1.1}, {"at_most": 1.5}, {"at_least": 1.5}, {"at_least": 1.0})
    ]
    assert [cell.split("|")[5].strip() for cell in cells] == [
        "≤ 1.10: **missed**",
        "≤ 1.50: met",
        "≥ 1.5: **missed**",
        "≥ 1.0: met",
    ]
    assert cells[0].startswith("| w | m | cpu float32 | **1.20** (1.10–1.30) |")


def test_what_did_not_help_is_named():
    row = bench.Row("means", "m", "cpu", "float32", "w", 1.2, 1.1, 1.3, 0.5, 0.4)._asdict()
    rows = [row | {"what": "good"}, row | {"what": "bad", "ratio": 0.97}, row | {"part": "bare", "ratio": 1}]
    section = markdown({}, rows).partition("## What did not help")[2]
    assert "- bad, cpu float32: 0.97." in section and "good" not in section
    assert "saved 2 % or more" in markdown({}, rows[:1])
