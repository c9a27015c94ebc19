"""The runner: a killed run goes on and gives the same table; equal inputs share their pictures."""

import copy
import os
import subprocess
import sys
import time
from functools import wraps

import pytest
import torch

from antipure_lib.__main__ import main
from antipure_lib.benchmark import cells as benchmark_stages
from antipure_lib.benchmark.cells import Cell, World, plan, purified_photos, run_cell
from antipure_lib.benchmark.estimate import estimate
from antipure_lib.benchmark.rows import COLUMNS, FIGURES, append_row, read_rows
from antipure_lib.benchmark.run import benchmark, make_world
from antipure_lib.models.embedded import load_faces
from antipure_lib.purifiers.diffpure import gridpure
from antipure_lib.runtime.digests import defaults, digest, weights_digest

SMALL = dict(eta=16 / 255, steps=2, samples=2, learning=2)
GRID = "--protect none random --purify none jpeg75 --customize lora --identities p01".split()
SETTINGS = "--steps 2 --samples 2 --learning 2 --estimate no".split()


@pytest.fixture
def half_the_threads():
    """Torch as each of two workers has it."""
    before = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(max(1, cores // 2))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def world(cache):
    return make_world("nano", "nano", cache, **SMALL)


def command(out, cache, *more):
    return [sys.executable, "-m", "antipure_lib", "benchmark", *GRID, *SETTINGS, *more] + [
        "--out",
        str(out),
        "--cache",
        str(cache),
    ]


def test_a_killed_run_resumes_to_the_table_of_an_unkilled_one(tmp_path):
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    subprocess.run(command(whole, tmp_path / "a"), check=True, capture_output=True)
    assert [tuple(row[name] for name in Cell._fields) for row in read_rows(whole)] == plan(
        ["none", "random"], ["none", "jpeg75"], ["lora"], ["p01"], [0]
    )

    process = subprocess.Popen(
        command(broken, tmp_path / "b"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not broken.exists() or broken.read_text().count("\n") < 3:  # the header and two cells
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert broken.read_text().count("\n") < 5
    with broken.open("a") as file:
        file.write("random,none,lo")  # a row that was cut off
    assert main(command(broken, tmp_path / "b")[3:]) == 0  # here, where other tests have run before
    assert broken.read_bytes() == whole.read_bytes()


def test_two_workers_give_the_same_table(tmp_path, half_the_threads):
    cells = plan(["none", "random"], ["jpeg75"], ["lora"], ["p01"], [0])
    models = dict(ddpm="nano", pipe="nano", **SMALL)
    for workers in (1, 2):
        models["cache"] = tmp_path / f"cache{workers}"
        assert len(list(benchmark(cells, tmp_path / f"{workers}.csv", models, workers))) == 2
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_a_cell_has_every_column_and_its_pictures_are_made_once(world, monkeypatch):
    cell = Cell("random", "jpeg75", "lora", "p02", 0)
    row = run_cell(cell, world)
    assert set(row) == set(COLUMNS)
    assert all(row[name] == row[name] for name in FIGURES if name not in ("ism", "distance"))

    for name in ("protect", "purify", "generate"):

        @wraps(getattr(benchmark_stages, name))
        def not_again(*_, **__):
            raise AssertionError("made again")

        monkeypatch.setattr(f"antipure_lib.benchmark.cells.{name}", not_again)
    assert digest(*map(str, run_cell(cell, world).values())) == digest(*map(str, row.values()))


def test_purified_pictures_depend_on_content_and_not_on_its_name(world, monkeypatch):
    calls = []
    monkeypatch.setattr("antipure_lib.benchmark.cells.purify", lambda name, x, **_: calls.append(name) or x)
    x = load_faces("p03", "B")
    first = purified_photos(Cell("none", "jpeg50", "lora", "p03", 0), x, world)
    again = purified_photos(Cell("random", "jpeg50", "dreambooth", "p03", 1), x.clone(), world)
    purified_photos(Cell("none", "jpeg50", "lora", "p03", 0), 1 - x, world)
    assert torch.equal(first, again) and len(calls) == 2


def test_gridpure_keeps_what_it_passes_on_the_way(tmp_path, tiny_ddpm, pictures, monkeypatch):
    world = World(tiny_ddpm, tiny_ddpm, judge=None, cache=tmp_path)
    monkeypatch.setattr("antipure_lib.benchmark.cells._models", lambda _: ("ddpm", "pipe"))
    x = pictures(n=2)
    cell = Cell("none", "gridpure2x10", "lora", "p01", 3)
    seed = int(digest(3, "purify")[:8], 16)
    long = purified_photos(cell, x, world)
    monkeypatch.setattr("antipure_lib.benchmark.cells.gridpure_steps", lambda *_, **__: iter(()))  # not again
    same, plain, short = (
        purified_photos(cell._replace(purify=name), x, world)
        for name in ("gridpure20", "gridpure", "gridpure10")
    )
    assert torch.equal(long, same) and torch.equal(long, plain) and not torch.equal(short, long)
    assert torch.equal(long, gridpure(tiny_ddpm, x, rounds=2, iterations=10, seed=seed))
    assert torch.equal(plain, gridpure(tiny_ddpm, x, seed=seed))
    assert torch.equal(short, gridpure(tiny_ddpm, x, iterations=10, seed=seed))


def test_digest_tells_apart_what_differs():
    x = torch.zeros(2, 3)
    parts = [
        (x,),
        (x.T,),
        (x.double(),),
        (x.bfloat16(),),
        (x.half(),),
        (x + 1,),
        ("a", "b"),
        ("ab",),
        ({"a": 1},),
        ({"a": 1, "b": x},),
        (1,),
        ("1",),
    ]
    assert len({digest(*p) for p in parts}) == len(parts)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_the_estimate_counts_what_cells_share_once(world, monkeypatch):
    monkeypatch.setattr("antipure_lib.benchmark.estimate._seconds", lambda run: 1.0)
    cells = plan(["none", "random"], ["jpeg75"], ["lora"], ["p01", "p02"], [0, 1])
    found = estimate(cells, world)
    # 4 pairs of person and seed, 2 protections: 8 protected sets, 8 purified ones, 8 models; 1 s each
    sampling = 1 / 4 * 2 * world.samples
    judging = 1 / 4 * 2 * world.samples
    assert found.seconds == pytest.approx(8 + 8 + 8 * (1 + sampling) + 8 * judging)
    assert found.memory > 1e8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protect", "magic"], "unknown 'magic'; the known ones are none, random"),
        (["--purify", "jpeg75x3"], "takes quality"),
        (["--identities", "p99"], "p01, p02"),
        (["--customize", "magic"], "dreambooth, lora"),
        (["--workers", "0"], "--workers"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--samples", "0"], "--samples must be at least 1"),
        (["--learning", "0"], "--learning must be at least 1"),
        (["--seeds", "0", "-1"], "--seeds must be 0 … 2⁶³−1, got -1"),
        (["--out", "/dev/null/table.csv"], "/dev/null can't be written to; name another CSV file"),
        (["--out", "."], "can't be written to; name another CSV file"),
        (["--eta", "0.5"], "--eta must be 1"),
    ],
)
def test_bad_names_are_refused_at_once(words, message, tmp_path, capsys):
    assert main(["benchmark", "--out", str(tmp_path / "t.csv"), *words, "--estimate", "no"]) == 1
    assert message in capsys.readouterr().err


def test_another_budget_wants_another_file(tmp_path):
    row = dict.fromkeys(COLUMNS) | dict(
        Cell("none", "none", "lora", "p01", 0)._asdict(), eta=8 / 255, steps=2
    )
    append_row(tmp_path / "t.csv", row)
    models = dict(ddpm="nano", pipe="nano", cache=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="eta=0.0313725, not 0.0627451"):
        list(benchmark([], tmp_path / "t.csv", models))


def test_other_models_or_options_want_another_file(tmp_path, world):
    cell = Cell("random", "jpeg75", "lora", "p02", 0)
    models = dict(ddpm="nano", pipe="nano", cache=world.cache, **SMALL)
    (row,) = benchmark([cell, cell], tmp_path / "t.csv", models)
    for other, more in (
        (cell._replace(identity="p03"), {"options": {"random": {"step_size": 0.1}}}),
        (cell._replace(protect="none"), {"samples": 3}),
    ):
        with pytest.raises(ValueError, match="other models, arguments or threads"):
            list(benchmark([other], tmp_path / "t.csv", models | more))
    # Also where nothing is missing: a finished table isn't taken for one of other settings.
    with pytest.raises(ValueError, match="such as those of 'random'"):
        list(benchmark([cell], tmp_path / "t.csv", models | {"samples": 3}))
    (kept,) = read_rows(tmp_path / "t.csv")
    assert kept["cell"] == row["cell"] and kept["setup"] == row["setup"]


@pytest.mark.parametrize("cut", ["protect,puri", ",".join(COLUMNS) + "\nrandom,none,lo"])
def test_a_crash_in_the_first_row_leaves_a_table_to_go_on_with(cut, tmp_path, world):
    (tmp_path / "t.csv").write_text(cut)
    models = dict(ddpm="nano", pipe="nano", cache=world.cache, **SMALL)
    list(benchmark([Cell("random", "jpeg75", "lora", "p02", 0)], tmp_path / "t.csv", models))
    assert len(read_rows(tmp_path / "t.csv")) == 1


@pytest.mark.parametrize("content", [b"", b"PK", None])
def test_broken_pictures_are_made_again(content, tmp_path, world):
    cell, x = Cell("none", "jpeg50", "lora", "p03", 0), load_faces("p03", "B")
    fresh = world._replace(cache=tmp_path)
    whole = purified_photos(cell, x, fresh)
    (file,) = tmp_path.glob("purify-*.npz")
    file.write_bytes(file.read_bytes()[:-40] if content is None else content)
    assert torch.equal(purified_photos(cell, x, fresh), whole)


def test_no_stage_shares_its_noise_with_another(world, monkeypatch):
    """Above all the protector's surrogate and the abuser's model, and the two prompts' images."""
    seeds = []

    def noted(function, stand_in):
        @wraps(function)
        def note(*args, seed, **options):
            seeds.append(seed)
            return stand_in(*args, **options)

        return note

    stand_ins = dict(
        protect=lambda name, x, **_: 0.9 * x,
        generate=lambda *_, n, **__: load_faces("p04")[:n],
        purify=lambda name, x, **_: 0.9 * x,
    )
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(
            f"antipure_lib.benchmark.cells.{name}", noted(getattr(benchmark_stages, name), stand_in)
        )
    learn = noted(benchmark_stages.dreambooth, lambda pipe, *_, **__: pipe)
    monkeypatch.setitem(benchmark_stages.CUSTOMIZERS, "dreambooth", learn)
    run_cell(Cell("random", "diffpure1", "dreambooth", "p04", 5), world)
    # protect, purify (x + δ and x: the same noise), prior, learn, two prompts
    assert len(seeds) == 7 and len(set(seeds)) == 6


def test_a_digest_follows_the_weights_and_defaults_follow_the_function(tiny_ddpm):
    ddpm = copy.copy(tiny_ddpm)
    ddpm.unet = copy.deepcopy(tiny_ddpm.unet)
    before = weights_digest(ddpm, ("unet",))
    assert before == weights_digest(tiny_ddpm, ("unet",)) == weights_digest(ddpm, ("unet",))
    with torch.no_grad():
        ddpm.unet.conv_in.weight.add_(1)
    assert weights_digest(ddpm, ("unet",)) != before
    assert defaults(lambda x, a=1, *, b=2: 0) == {"0 a": "1", "0 b": "2"}


def test_rows_survive_the_file_and_strange_files_are_refused(tmp_path):
    row = dict.fromkeys(COLUMNS, 0.1234567) | dict(
        Cell("none", "none", "lora", "p01", 3)._asdict(), steps=7, cell="x"
    )
    append_row(tmp_path / "t.csv", row | {"ism": float("nan")})
    (found,) = read_rows(tmp_path / "t.csv")
    assert found["ism"] != found["ism"] and found["seed"] == 3 and found["fdfr"] == pytest.approx(0.123457)
    with pytest.raises(ValueError, match="unknown columns"):
        append_row(tmp_path / "t.csv", row | {"magic": 1})
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="columns"):
        read_rows(tmp_path / "other.csv")
