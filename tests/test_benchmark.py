"""The runner: a killed run goes on and gives the same table; equal inputs share their pictures."""

import subprocess
import sys
import time

import pytest
import torch

from antipure_lib.__main__ import main
from antipure_lib.benchmark import Cell, World, digest, plan, purified_photos, run_cell
from antipure_lib.benchmark_run import benchmark, make_world
from antipure_lib.data import load_faces
from antipure_lib.estimate import estimate
from antipure_lib.purify import gridpure
from antipure_lib.results import COLUMNS, FIGURES, append_row, read_rows

SMALL = dict(eta=16 / 255, steps=2, samples=2, learning=2)
GRID = "--protect none random --purify none jpeg75 --customize lora --identities p01".split()
SETTINGS = "--steps 2 --samples 2 --learning 2 --estimate no".split()


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
    subprocess.run(command(broken, tmp_path / "b"), check=True, capture_output=True)
    assert broken.read_bytes() == whole.read_bytes()


def test_two_workers_give_the_same_table(tmp_path, world):
    cells = plan(["none", "random"], ["jpeg75"], ["lora"], ["p01"], [0])
    models = dict(ddpm="nano", pipe="nano", cache=tmp_path / "cache", **SMALL)
    for workers in (1, 2):
        assert len(list(benchmark(cells, tmp_path / f"{workers}.csv", models, workers))) == 2
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()


def test_a_cell_has_every_column_and_its_pictures_are_made_once(world, monkeypatch):
    cell = Cell("random", "jpeg75", "lora", "p02", 0)
    row = run_cell(cell, world)
    assert set(row) == set(COLUMNS)
    assert all(row[name] == row[name] for name in FIGURES if name not in ("ism", "distance"))

    def not_again(*_, **__):
        raise AssertionError("made again")

    for name in ("protect", "purify", "generate"):
        monkeypatch.setattr(f"antipure_lib.benchmark.{name}", not_again)
    assert digest(*map(str, run_cell(cell, world).values())) == digest(*map(str, row.values()))


def test_purified_pictures_depend_on_content_and_not_on_its_name(world, monkeypatch):
    calls = []
    monkeypatch.setattr("antipure_lib.benchmark.purify", lambda name, x, **_: calls.append(name) or x)
    x = load_faces("p03", "B")
    first = purified_photos(Cell("none", "jpeg50", "lora", "p03", 0), x, world)
    again = purified_photos(Cell("random", "jpeg50", "dreambooth", "p03", 1), x.clone(), world)
    purified_photos(Cell("none", "jpeg50", "lora", "p03", 0), 1 - x, world)
    assert torch.equal(first, again) and len(calls) == 2


def test_gridpure_keeps_what_it_passes_on_the_way(tmp_path, tiny_ddpm, pictures, monkeypatch):
    world = World(tiny_ddpm, tiny_ddpm, judge=None, cache=tmp_path)
    monkeypatch.setattr("antipure_lib.benchmark._models", lambda _: ("ddpm", "pipe"))
    x = pictures(n=2)
    cell = Cell("none", "gridpure2x10", "lora", "p01", 3)
    long = purified_photos(cell, x, world)
    monkeypatch.setattr("antipure_lib.benchmark.gridpure_steps", lambda *_, **__: iter(()))  # not again
    same, plain, short = (
        purified_photos(cell._replace(purify=name), x, world)
        for name in ("gridpure20", "gridpure", "gridpure10")
    )
    assert torch.equal(long, same) and torch.equal(long, plain) and not torch.equal(short, long)
    assert torch.equal(long, gridpure(tiny_ddpm, x, rounds=2, iterations=10, seed=3))
    assert torch.equal(plain, gridpure(tiny_ddpm, x, seed=3))
    assert torch.equal(short, gridpure(tiny_ddpm, x, iterations=10, seed=3))


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
    monkeypatch.setattr("antipure_lib.estimate._seconds", lambda run: 1.0)
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
    ],
)
def test_bad_names_are_refused_at_once(words, message, tmp_path, capsys):
    assert main(["benchmark", *words, "--out", str(tmp_path / "t.csv"), "--estimate", "no"]) == 1
    assert message in capsys.readouterr().err


def test_another_budget_wants_another_file(tmp_path):
    row = dict.fromkeys(COLUMNS) | dict(
        Cell("none", "none", "lora", "p01", 0)._asdict(), eta=8 / 255, steps=2
    )
    append_row(tmp_path / "t.csv", row)
    models = dict(ddpm="nano", pipe="nano", cache=tmp_path, **SMALL)
    with pytest.raises(ValueError, match="eta=0.0313725, not 0.0627451"):
        list(benchmark([], tmp_path / "t.csv", models))


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
