"""The tournament: an honest entry is ranked, whatever goes wrong is named and ranked last."""

import html
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from forked import Forked, needs_fork
from tiny import WORDS, tiny_stable_diffusion

from antipure_lib.__main__ import main
from antipure_lib.benchmark import entrant
from antipure_lib.benchmark.leaderboard import show_contest, write_leaderboard
from antipure_lib.benchmark.tournament import Match, hidden_people, rehearse, standings, tournament
from antipure_lib.judges.visible import lpips
from antipure_lib.models.embedded import identities, load_faces
from antipure_lib.protections.registry import protect

HEADER = """
import torch
from antipure_lib import PGDState, load_faces
from antipure_lib.protections.registry import PROTECTIONS, Protection
from antipure_lib.purifiers.registry import PURIFIERS, Purifier
"""

HONEST = """
def signs_steps(x, eta=16 / 255, steps=1, seed=0):
    signs = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).sign()
    yield PGDState(1, (x + eta * signs).clamp(0, 1), {}, {})
PROTECTIONS["signs"] = Protection(signs_steps)
PURIFIERS["darker"] = Purifier(lambda pipe, x: 0.5 * x)
"""

WRONG = {
    "loud": ("over budget", "def s(x, eta, steps, seed): yield PGDState(1, 1 - x, {}, {})"),
    "small": ("shape", "def s(x, eta, steps, seed): yield PGDState(1, x[..., :8], {}, {})"),
    "nothing": ("NaN", "def s(x, eta, steps, seed): yield PGDState(1, x * float('nan'), {}, {})"),
    "broken": ("ZeroDivisionError", "def s(x, eta, steps, seed): yield 1 / 0"),
    "greedy": ("memory", "def s(x, eta, steps, seed): yield torch.ones(2**34)"),
    "cheat": (
        "judge's photos",
        "def s(x, eta, steps, seed):\n"
        "    try: load_faces('p12', 'C')\n"
        "    except PermissionError: pass\n"
        "    yield PGDState(1, x, {}, {})",
    ),
}


@pytest.fixture(scope="module")
def common(tiny_folder, tmp_path_factory):
    """Small models and little work, for `tournament`."""
    pipe = tmp_path_factory.mktemp("pipe")
    tiny_stable_diffusion(side=64, words=[*WORDS, "dslr", "portrait"]).save_pretrained(pipe)
    models = dict(ddpm=str(tiny_folder), pipe=str(pipe), cache=tmp_path_factory.mktemp("cache"))
    return models | dict(people=["p12"], rivals=["none"], purifiers=["none"], samples=1, learning=1)


@pytest.fixture
def forked(monkeypatch):
    """Entries run in forks of this process: a Python of their own would first import everything."""

    def begin(command, stdout, **_):
        return Forked(lambda: entrant.main(*map(Path, command[-2:])), stdout)

    monkeypatch.setattr(entrant.subprocess, "Popen", begin)


def entry(folder, name, text):
    """An entry's file."""
    path = folder / f"{name}.py"
    path.write_text(HEADER + text, encoding="utf-8")
    return path


@needs_fork
@pytest.mark.usefixtures("forked")
def test_an_honest_entry_meets_everyone_and_is_no_more_visible_than_antipure(common, tmp_path, monkeypatch):
    learned = "antipure_lib.benchmark.tournament.generated_images"
    monkeypatch.setattr(learned, lambda cell, photos, world: (photos[:1], ""))
    rivals = ["none", "antipure", "random"]
    *_, (matches, problems) = tournament([entry(tmp_path, "honest", HONEST)], **common | {"rivals": rivals})
    assert not problems
    pairs = {(match.protection, match.purifier) for match in matches}
    assert pairs == {(a, b) for a in (*rivals, "honest/signs") for b in ("none", "honest/darker")}
    assert {match.person for match in matches} == {"p12"}
    assert all(0 <= match.passed <= 1 for match in matches)
    found = {match.protection: match.lpips for match in matches}
    x = load_faces("p12", "B")
    unscaled = protect("random", x, seed=0)
    assert float(lpips(x, unscaled).mean()) > 1.2 * found["antipure"]  # so it has to be scaled
    for name in ("honest/signs", "random"):
        assert 0.8 * found["antipure"] < found[name] <= found["antipure"]


def test_a_rehearsal_gives_the_photos_of_an_entry(common, tmp_path):
    photos, problems = rehearse(entry(tmp_path, "honest", HONEST), ddpm=common["ddpm"], pipe=common["pipe"])
    x = load_faces(hidden_people()[0], "B")
    assert list(photos) == ["honest/signs"] and not problems
    assert photos["honest/signs"].shape == x.shape
    assert 0 < (photos["honest/signs"] - x).abs().max() <= 16 / 255 + 1e-6


@needs_fork
@pytest.mark.usefixtures("forked")
def test_a_rehearsal_names_the_problem_of_an_entry(common, tmp_path):
    loud = entry(tmp_path, "loud", f'{WRONG["loud"][1]}\nPROTECTIONS["mine"] = Protection(s)\n')
    photos, problems = rehearse(loud, "p12", ddpm=common["ddpm"], pipe=common["pipe"])
    assert not photos and "over budget" in problems["loud/mine"]
    with pytest.raises(ValueError, match="gone.py"):
        rehearse(tmp_path / "gone.py")


def test_the_leaderboard_shows_titles():
    image = torch.zeros(3, 4, 4)
    rows = standings([Match("none", "gridpure2x20", "p1", 0.5, float("nan"), image)], {})
    assert [row["name"] for row in rows] == ["clean photos", "GrIDPure 2 × 20"]
    assert len(show_contest([Match("none", "none", "p1", 0.5, float("nan"), image)]).axes) == 1


@needs_fork
@pytest.mark.usefixtures("forked")
def test_what_goes_wrong_is_named_and_ranked_last(common, tmp_path):
    files = [
        entry(tmp_path, name, f'{text}\nPROTECTIONS["mine"] = Protection(s)\n')
        for name, (_, text) in WRONG.items()
    ]
    files.append(entry(tmp_path, "empty", ""))
    *_, (matches, problems) = tournament(files, **common, seconds=900, memory=4)
    said = {name: words for name, (words, _) in WRONG.items()} | {"empty": "registers no new"}
    assert {key.split("/")[0] for key in problems} == set(said)
    for key, problem in problems.items():
        assert said[key.split("/")[0]] in problem
    assert {match.protection for match in matches} == {"none"}  # the others play on
    last = standings(matches, problems)[-len(files) :]
    assert {row["rank"] for row in last} == {"last"}


@needs_fork
@pytest.mark.usefixtures("forked")
def test_a_slow_entry_is_ended(common, tmp_path):
    text = "import time\ndef s(x, eta, steps, seed): time.sleep(3600); yield\n"
    path = entry(tmp_path, "slow", text + 'PROTECTIONS["mine"] = Protection(s)\n')
    *_, (_, problems) = tournament([path], **common, seconds=2)
    assert problems == {"slow": "took longer than 2 s"}


def test_a_file_that_is_not_there(common, tmp_path):
    with pytest.raises(ValueError, match="gone.py"):
        next(tournament([tmp_path / "gone.py"], **common))


def test_ranks_by_hand():
    """Two people; the abuser chooses the better purifier per person."""
    rates = {"a": {"u": (0.2, 0.9), "v": (0.4, 0.1)}, "b": {"u": (0.5, 0.5), "v": (0.5, 0.5)}}
    image = torch.zeros(3, 4, 4)
    matches = [
        Match(protection, purifier, person, rate, 0.1, image)
        for protection, row in rates.items()
        for purifier, pair in row.items()
        for person, rate in zip(("p1", "p2"), pair, strict=True)
    ]
    rows = standings(matches, {"c/d": "over budget"})
    assert len({tuple(row) for row in rows}) == 1  # the page writes the values in their order
    ranks = [(row["kind"], row["rank"], row["name"]) for row in rows]
    assert ranks[:2] == [("protection", 1, "b"), ("protection", 2, "a")]
    assert ranks[2:] == [("purifier", 1, "u"), ("purifier", 2, "v"), ("–", "last", "c/d")]
    expected = [0.5, (0.4 + 0.9) / 2, (0.2 + 0.9 + 0.5 + 0.5) / 4, (0.4 + 0.1 + 0.5 + 0.5) / 4]
    assert all(math.isclose(row["pass rate"], value) for row, value in zip(rows, expected, strict=False))


def test_the_page_shows_names_as_text(tmp_path):
    name = "<b>x</b>/&"
    match = Match(name, "none", "p1", 0.5, 0.1, torch.zeros(3, 8, 8))
    write_leaderboard(tmp_path / "page.html", [match], {"other": "a < b"})
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert html.escape(name) in page and name not in page and "a &lt; b" in page
    requests = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: requests.extend(
        value for key, value in attributes if key in ("src", "href")
    )
    parser.feed(page)
    assert len(requests) == 1 and requests[0].startswith("data:image/png")


def test_the_hidden_people_are_the_last_third():
    people = identities()
    assert hidden_people() == people[-(len(people) // 3) :] and len(hidden_people()) >= 4


@needs_fork
@pytest.mark.usefixtures("forked")
def test_the_command_writes_the_page(common, tmp_path, capsys):
    words = ["tournament", entry(tmp_path, "honest", HONEST), "--people", "p12", "--rivals", "none"]
    words += ["--purify", "none", "--samples", "1", "--learning", "1", "--out", tmp_path / "page.html"]
    words += ["--cache", common["cache"], "--ddpm", common["ddpm"], "--pipe", common["pipe"]]
    assert main([str(word) for word in words]) == 0
    assert "honest/signs against honest/darker" in capsys.readouterr().out
    assert "honest/signs" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    assert main(["tournament", "--out", str(tmp_path), "--ddpm", "no such model"]) == 1
    assert "name another HTML file" in capsys.readouterr().err
