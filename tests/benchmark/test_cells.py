"""The runner: a killed run goes on and gives the same table; equal inputs share their pictures."""

import copy
import csv
import re
import time
from functools import wraps
from types import SimpleNamespace

import pytest
import torch
from forked import Forked, needs_fork
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import WORDS, tiny_stable_diffusion

from antipure_lib.__main__ import main
from antipure_lib.benchmark import cells as stages
from antipure_lib.benchmark.cache import kept
from antipure_lib.benchmark.cells import World, load_person, purified_photos, run_cell
from antipure_lib.benchmark.rows import COLUMNS, FIGURES, Cell, plan, read_rows, write_rows
from antipure_lib.benchmark.run import benchmark, make_world
from antipure_lib.core.pgd import PGDState
from antipure_lib.customization.registry import CUSTOMIZERS, Customizer
from antipure_lib.customization.training import CustomizeState
from antipure_lib.models.embedded import load_faces
from antipure_lib.protections.registry import PROTECTIONS, Protection
from antipure_lib.purifiers.diffpure import PurifyState
from antipure_lib.purifiers.gridpure import gridpure
from antipure_lib.purifiers.registry import PURIFIERS, Purifier, purify
from antipure_lib.runtime.digests import defaults, digest, weights_digest

SMALL = dict(eta=16 / 255, steps=2, samples=1, learning=2)
CELL = Cell("random", "jpeg75", "lora", "p02", 0)
HEADER = ",".join(COLUMNS)


@pytest.fixture(scope="module")
def models(tiny_folder, tmp_path_factory):
    """The folders of a DDPM and of a latent model of the embedded photos' size, both with random weights."""
    pipe = tmp_path_factory.mktemp("pipe")
    tiny_stable_diffusion(side=64, words=[*WORDS, "dslr", "portrait"]).save_pretrained(pipe)
    return str(tiny_folder), str(pipe)


@pytest.fixture(scope="module")
def world(models, tmp_path_factory):
    return make_world(*models, tmp_path_factory.mktemp("cache"), **SMALL)


@pytest.fixture
def row():
    cell = Cell("none", "none", "lora", "p01", 3)
    return dict.fromkeys(COLUMNS, 0.1234567) | cell._asdict() | dict(steps=7, setup="a-b-c-d", cell="x")


def faces(*_, n, **__):
    """In place of `generate`."""
    return load_faces("p04")[:n]


@needs_fork
def test_a_killed_run_resumes_to_the_table_of_an_unkilled_one(tmp_path, world, monkeypatch):
    monkeypatch.setattr(stages, "_machine", lambda world: ("cpu", 1))  # the fork has one thread
    cells = plan(["none", "random"], ["jpeg75"], ["lora"], ["p01"], [0])
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    list(benchmark(cells, whole, world._replace(cache=tmp_path / "a")))
    assert [tuple(row[name] for name in Cell._fields) for row in read_rows(whole)] == cells
    world = world._replace(cache=tmp_path / "b")
    process = Forked(lambda: list(benchmark(cells, broken, world)))
    while not broken.exists():  # it comes whole, with the first cell
        assert process.returncode is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert broken.read_text().count("\n") == 2
    with broken.open("a") as file:
        file.write("random,none,lo")  # a row that was cut off
    list(benchmark(cells, broken, world))
    assert broken.read_bytes() == whole.read_bytes()


def test_a_cell_has_every_column_and_its_pictures_are_made_once(world, monkeypatch):
    row = run_cell(CELL, world)
    assert set(row) == set(COLUMNS)
    assert all(row[name] == row[name] for name in FIGURES if name not in ("ism", "distance"))
    for name in ("protect", "purify", "generate"):

        @wraps(getattr(stages, name))
        def not_again(*_, **__):
            raise AssertionError("made again")

        monkeypatch.setattr(stages, name, not_again)
    loaded = []
    monkeypatch.setattr(stages, "load_faces", lambda *name: loaded.append(name) or load_faces(*name))
    assert str(run_cell(CELL, world)) == str(row)
    assert sorted(loaded) == [("p02", "A"), ("p02", "B"), ("p02", "C")]  # each set once


def test_purified_pictures_depend_on_content_and_not_on_its_name(world, monkeypatch):
    calls = []
    monkeypatch.setattr(stages, "purify", lambda name, x, **_: calls.append(name) or x)
    x = load_faces("p03", "B")
    first = purified_photos(Cell("none", "jpeg50", "lora", "p03", 0), x, world)
    again = purified_photos(Cell("random", "jpeg50", "dreambooth", "p03", 1), x.clone(), world)
    purified_photos(Cell("none", "jpeg50", "lora", "p03", 0), 1 - x, world)
    assert torch.equal(first, again) and len(calls) == 2


def test_a_cell_may_purify_with_the_latent_model(world):
    x = load_faces("p03", "B")
    found = purified_photos(Cell("none", "autoencoder", "lora", "p03", 0), x, world)
    assert torch.equal(found, purify("autoencoder", x, pipe=world.pipe)) and not torch.equal(found, x)


def test_a_cell_may_have_several_purifiers_and_shares_their_first(world, monkeypatch):
    cell, x, calls = Cell("none", "jpeg60+diffpure2", "lora", "p03", 2), load_faces("p03", "B"), []

    def noted(name, *args, **options):
        calls.append(name)
        return purify(name, *args, **options)

    monkeypatch.setattr(stages, "purify", noted)
    first = purified_photos(cell._replace(purify="jpeg60"), x, world)
    found = purified_photos(cell, x, world)
    seed = int(digest(2, "purify")[:8], 16) + 1
    assert torch.equal(found, purify("diffpure2", first, ddpm=world.ddpm, seed=seed))
    assert calls == ["jpeg60", "diffpure2"]
    hashes = [stages.setup(cell._replace(purify=name), world) for name in ("jpeg60+diffpure2", "jpeg60")]
    assert len(set(hashes)) == 2


def test_a_cell_may_learn_from_several_draws_of_the_noise(world):
    x, cell = load_faces("p03", "B"), Cell("none", "diffpure2", "lora", "p03", 2)

    def made(name):
        return purified_photos(cell._replace(purify=name), x, world)

    draws = [made(name) for name in ("diffpure2", "diffpure2@1", "diffpure2@2")]
    assert len({draw.numpy().tobytes() for draw in draws}) == 3
    assert torch.equal(made("diffpure2@0"), draws[0])
    assert torch.equal(made("diffpure2*3"), torch.cat(draws))
    assert torch.equal(made("diffpure2@1*2"), torch.cat(draws[1:]))
    assert torch.equal(made("jpeg50*2"), made("jpeg50").repeat(2, 1, 1, 1))  # draws no noise


def test_gridpure_keeps_what_it_passes_on_the_way(tmp_path, tiny_ddpm, pictures, monkeypatch):
    world = World(tiny_ddpm, tiny_ddpm, judge=None, cache=tmp_path, weights={"ddpm": "d", "pipe": "p"})
    x, cell = pictures(n=1), Cell("none", "gridpure2x10", "lora", "p01", 3)
    seed = int(digest(3, "purify")[:8], 16)
    long = purified_photos(cell, x, world)
    never = PURIFIERS["gridpure"]._replace(along=lambda *_, **__: iter(()))
    monkeypatch.setitem(PURIFIERS, "gridpure", never)
    names = ("gridpure20", "gridpure", "gridpure10")
    same, plain, short = (purified_photos(cell._replace(purify=name), x, world) for name in names)
    assert torch.equal(long, same) and torch.equal(long, plain) and not torch.equal(short, long)
    assert torch.equal(long, gridpure(tiny_ddpm, x, rounds=2, iterations=10, seed=seed))
    assert torch.equal(short, gridpure(tiny_ddpm, x, iterations=10, seed=seed))


def test_methods_of_ones_own_need_an_entry_in_the_registries_and_nothing_else(
    tmp_path, models, monkeypatch, capsys
):
    seen = {}

    def fade_steps(x, eta=16 / 255, steps=100, seed=0, *, set_a):
        seen["set_a"] = set_a
        yield PGDState(1, (x - eta).clamp(0, 1), {}, {})

    def dim(x, iterations: int = 3, rounds: int = 1):
        return [state.x for state in dim_steps(x, iterations, rounds)][-1]

    def dim_steps(x, iterations=3, rounds=1):
        for n in range(iterations * rounds):
            seen["dim"] = seen.get("dim", 0) + 1
            yield PurifyState(0, n, x * 0.99 ** (n + 1))

    def nothing_steps(pipe, images, *, seed, dtype, steps=5, prior_images=None):
        seen["prior"], seen["learned"] = prior_images, images
        yield CustomizeState(1, torch.zeros(()), {}, pipe)

    monkeypatch.setitem(PROTECTIONS, "fade", Protection(fade_steps))
    monkeypatch.setitem(PURIFIERS, "dim", Purifier(dim, ("rounds", "iterations"), along=dim_steps))
    monkeypatch.setitem(CUSTOMIZERS, "nothing", Customizer(nothing_steps))
    monkeypatch.setattr(stages, "PRIOR", 2)
    monkeypatch.setattr(stages, "generate", faces)
    with pytest.raises(SystemExit):
        main(["benchmark", "--help"])
    assert {"fade", "dim", "nothing"} <= set(re.findall(r"[\w-]+", capsys.readouterr().out))
    words = "--protect fade --purify dim2x10 dim10 --customize nothing --identities p01 --samples 1".split()
    words += ["--ddpm", models[0], "--pipe", models[1], "--out", tmp_path / "t.csv", "--cache", tmp_path]
    assert main(["benchmark", *map(str, words)]) == 0, capsys.readouterr().err
    person = load_person("p01")
    assert [row["purify"] for row in read_rows(tmp_path / "t.csv")] == ["dim2x10", "dim10"]
    assert seen["dim"] == 2 * 20  # set B faded and as it was; ten iterations are kept on the way
    assert torch.equal(seen["set_a"], person.set_a) and seen["prior"].shape == (2, 3, 64, 64)
    wanted = (person.set_b - 16 / 255).clamp(0, 1) * 0.99**10
    torch.testing.assert_close(seen["learned"], wanted, atol=1 / 255, rtol=0)


def test_digest_tells_apart_what_differs(tiny_ddpm):
    x = torch.zeros(2, 3)
    tensors = [(x,), (x.T,), (x.double(),), (x.bfloat16(),), (x.half(),), (x + 1,)]
    parts = [*tensors, ("a", "b"), ("ab",), ({"a": 1},), ({"a": 1, "b": x},), (1,), ("1",)]
    assert len({digest(*p) for p in parts}) == len(parts)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert defaults(lambda x, a=1, *, b=2: 0) == {"0 a": "1", "0 b": "2"}
    unet, before = copy.deepcopy(tiny_ddpm.unet), weights_digest(tiny_ddpm, ("unet",))
    assert weights_digest(SimpleNamespace(unet=unet), ("unet",)) == before
    unet.conv_in.weight.data.add_(1)
    assert weights_digest(SimpleNamespace(unet=unet), ("unet",)) != before


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1}\n{"b": 2}\n',
        b"a,b\n1,2\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\n",
        HEADER[:12].encode(),  # a new table is written whole, so this isn't one that was cut off
        f"{HEADER},mine\n".encode(),
        HEADER.replace(",", ";").encode() + b"\n",  # as some spreadsheets write it
        f"{HEADER}\n".encode("utf-16"),
    ],
)
def test_another_kind_of_file_is_refused_and_stays(content, tmp_path, world):
    out = tmp_path / "config.json"
    out.write_bytes(content)
    with pytest.raises(ValueError, match="config.json isn't a table of this benchmark"):
        list(benchmark([CELL], out, world))
    assert out.read_bytes() == content and not list(tmp_path.glob(".*"))


@given(st.binary(min_size=1, max_size=200))
def test_no_bytes_are_taken_for_a_table(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "t.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=path.name):
        read_rows(path)


@pytest.mark.parametrize("spoil", ["x,y", "1", "\udcff\0", HEADER])
def test_a_broken_row_is_named_and_nothing_is_lost(spoil, tmp_path, world, row):
    out = tmp_path / "t.csv"
    write_rows(out, [row])
    content = out.read_bytes() + spoil.encode(errors="surrogateescape") + b"\n"
    out.write_bytes(content)
    with pytest.raises(ValueError, match="t.csv, line 3 is broken"):
        list(benchmark([CELL], out, world))
    assert out.read_bytes() == content


def test_rows_survive_the_file_and_a_spreadsheet(tmp_path, row):
    path = tmp_path / "t.csv"
    write_rows(path, [row | {"ism": float("nan")}, row | {"identity": 'a "b", c'}])
    found, second = read_rows(path)
    assert found["ism"] != found["ism"] and found["seed"] == 3 and found["fdfr"] == pytest.approx(0.123457)
    assert second["identity"] == 'a "b", c' and list(csv.DictReader(path.open()))[1]["identity"] == 'a "b", c'
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert str(read_rows(path)) == str([found, second])
    with pytest.raises(KeyError):
        write_rows(path, [{"protect": "none"}])


def test_other_models_or_options_want_another_file(tmp_path, world):
    out, cell = tmp_path / "t.csv", CELL
    (row,) = benchmark([cell, cell], out, world)
    strange = "other models, arguments or threads.* random, jpeg75, lora"
    for other, changed, message in (
        (cell._replace(identity="p03"), {"options": {"random": {"step_size": 0.1}}}, strange),
        (cell._replace(protect="none"), {"weights": world.weights | {"pipe": "another"}}, strange),
        (cell, {"samples": 3}, strange),  # nothing is missing, but the table is one of other settings
        (cell, {"eta": 8 / 255}, "eta=0.0627451, not 0.0313725"),
        (cell, {"steps": 3}, "steps=2, not 3"),
    ):
        with pytest.raises(ValueError, match=message):
            list(benchmark([other], out, world._replace(**changed)))
    (kept_row,) = read_rows(out)
    assert kept_row["cell"] == row["cell"] and kept_row["setup"] == row["setup"]
    write_rows(out, [row | {"setup": "6f586998-f664c9ea"}])  # of an older version
    with pytest.raises(ValueError, match="other models"):
        list(benchmark([cell], out, world))


@pytest.mark.parametrize("content", ["", HEADER, f"{HEADER}\nrandom,none,lo"])
def test_a_crash_in_the_first_row_leaves_a_table_to_go_on_with(content, tmp_path, world):
    (tmp_path / "t.csv").write_text(content)
    cells = [CELL._replace(seed=seed) for seed in (0, 1)]
    states = benchmark(cells, tmp_path / "t.csv", world)
    next(states)
    states.close()  # stopped early: what is finished stays
    assert [row["seed"] for row in read_rows(tmp_path / "t.csv")] == [0]
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


@settings(deadline=None, max_examples=25)
@given(place=st.integers(0, 10**6), bits=st.integers(1, 255))
def test_broken_pictures_are_made_again(place, bits, tmp_path_factory):
    folder, x = tmp_path_factory.mktemp("cache"), torch.arange(96).view(2, 3, 4, 4) / 255
    whole, key = kept(folder, ("purify", 1), lambda: x)
    (file,) = folder.glob("purify-*.npz")
    content = bytearray(file.read_bytes())
    content[place % len(content)] ^= bits
    for broken in (content, content[: place % len(content)], b"PK", b""):
        file.write_bytes(broken)
        again, same = kept(folder, ("purify", 1), lambda: x)
        assert torch.equal(again, whole) and torch.equal(whole, x) and same == key


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
        generate=faces,
        purify=lambda name, x, **_: 0.9 * x,
    )
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(stages, name, noted(getattr(stages, name), stand_in))
    record = CUSTOMIZERS["dreambooth"]
    steps = noted(record.steps, lambda pipe, *_, **__: [CustomizeState(1, torch.zeros(()), {}, pipe)])
    monkeypatch.setitem(CUSTOMIZERS, "dreambooth", record._replace(steps=steps))
    run_cell(Cell("random", "diffpure1", "dreambooth", "p04", 5), world)
    # protect, purify (x + δ and x: the same noise), prior, learn, two prompts
    assert len(seeds) == 7 and len(set(seeds)) == 6
