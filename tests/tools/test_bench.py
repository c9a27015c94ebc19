"""tools/speed measures what it says; no test here depends on the time anything takes."""

import subprocess
from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from antipure_lib import antipure_steps, gridpure_steps, quantise, to_pil
from tools.speed import bench, by_turns
from tools.speed.bare import bare_forwards, bare_step
from tools.speed.models import guided_diffusion
from tools.speed.peers import peers_gridpure, peers_step


@pytest.fixture
def passes(tiny_ddpm):
    """passes(make): how many tiles go through the UNet, forward and backward, during a call of make()."""

    def count(make):
        seen = Counter()

        def called(module, args, output):
            seen["forward"] += len(output)
            if output.requires_grad:
                output.register_hook(lambda gradient: seen.update(backward=len(gradient)))

        handle = tiny_ddpm.unet.conv_out.register_forward_hook(called)  # views are copied with it
        try:
            call = make()
            seen.clear()
            call()
        finally:
            handle.remove()
        return dict(seen)

    return count


def test_the_bare_step_makes_the_passes_of_ours(tiny_ddpm, pictures, passes):
    x = pictures(2, 24, 24)
    bare = passes(lambda: bare_step(tiny_ddpm, 10, 300))
    ours = passes(lambda: partial(next, antipure_steps(tiny_ddpm, x, steps=1, balance="sum")))
    assert bare == ours == {"forward": 20, "backward": 20}
    assert all(p.requires_grad and p.grad is None for p in tiny_ddpm.unet.parameters())


def test_the_bare_iteration_makes_the_passes_of_ours(tiny_ddpm, pictures, passes):
    x = pictures(2, 24, 24)
    bare = passes(lambda: bare_forwards(tiny_ddpm, 10, 3))
    assert bare == passes(lambda: partial(next, gridpure_steps(tiny_ddpm, x, t=3))) == {"forward": 30}


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

    monkeypatch.setattr(by_turns.time, "perf_counter", lambda: clock[0])
    figures = by_turns.by_turns(lambda: call("a"), lambda: call("b"), 3, bench.CPU)
    assert calls == list("abababab")
    assert figures == (3, 2, 4, 8, 2)  # median, lowest, highest of 2/1, 9/3, 8/2; medians of 2 9 8 and 1 3 2
    line = bench.Setting("m", SimpleNamespace(device=bench.CPU, dtype=torch.float32), None, 1).line(
        "w", figures
    )
    assert line == "| w | m | cpu float32 | **3.00** (2.00–4.00) | 8 | 2 |"


def test_the_256_px_model_has_the_shape_of_guided_diffusion():
    unet = guided_diffusion(bench.CPU, torch.bfloat16, 32).unet
    blocks = enumerate(unet.down_blocks)
    assert [256 // 2**k for k, block in blocks if getattr(block, "attentions", None)] == [32, 16, 8]
    assert unet.config.out_channels == 6 and unet.dtype is torch.bfloat16
    same = guided_diffusion(bench.CPU, torch.bfloat16, 32).unet
    assert same.conv_in.weight.equal(unet.conv_in.weight)
    full = guided_diffusion(torch.device("meta"), torch.float32).unet
    assert round(sum(p.numel() for p in full.parameters()) / 1e6, 1) == 552.8  # as the checkpoint's


def test_everything_is_measured_and_written(tiny_ddpm, pictures, monkeypatch, tmp_path, capsys):
    tiny, started = bench.Setting("tiny", tiny_ddpm, pictures(1), 2), []

    def answer(command, **_):
        compile(command[2], "<start>", "exec")
        started.append(command[3:])
        return SimpleNamespace(stdout="2.0")

    for name in ("small", "large"):
        monkeypatch.setattr(bench, name, lambda device: tiny)
    monkeypatch.setattr(subprocess, "run", answer)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["bench"])
    bench.main()
    text = (tmp_path / "build/speed.md").read_text()
    assert text == capsys.readouterr().out and text.count("\n## ") == 3
    assert text.count("| tiny |") == (2 * 5) * (1 + torch.cuda.is_available()) + 3
    assert started[:2] == [["AntiPure step, plain sum", "without"], ["AntiPure step, plain sum", "with"]]
    assert {what for what, _ in started} == set(bench.loops(tiny)) and len(started) == 3 * 6


def test_the_process_that_keeps_no_freed_memory_patches_what_the_library_calls(monkeypatch):
    from antipure_lib.runtime import unet

    kept = []
    monkeypatch.setattr(unet, "keep_freed_memory", lambda *_: kept.append(1))
    unet.view(torch.nn.Linear(1, 1))
    assert kept and "unet.keep_freed_memory = " in bench.KEPT
